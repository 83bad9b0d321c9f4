"""LightGBM's predict beside ours, ml/trees: batches of 1, 100 and 100,000 rows of 28 features, one thread and two.

Wants `cargo build --release -p purlin-trees --example predict` before, and a Python with lightgbm (setup/python.sh). Both predict the
same rows with the same model, in turns; times are of predict alone, medians. ROUNDS sets how many turns, PREDICT names another
program. LightGBM's time is that of its Python package; of one row the greater part is Python's, so the C function for single
rows that are asked for again and again is shown too.
"""
import ctypes
import os
import statistics
import subprocess
import tempfile
import time

import lightgbm as lgb
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PREDICT = os.environ.get('PREDICT', os.path.join(ROOT, 'target', 'release', 'examples', 'predict'))
ROUNDS = int(os.environ.get('ROUNDS', '5'))
FEATURES = 28
BATCHES = [1, 100, 100_000]
# So many rows are predicted in batches of each size. Each batch has rows of its own: of rows that come again a processor remembers
# which way they went.
ROWS = {1: 5_000, 100: 20_000, 100_000: 100_000}
MODELS = [(100, 31), (500, 255)]


def train(trees, leaves, rng):
  x = rng.normal(size=(50_000, FEATURES))
  y = (x[:, 0] * x[:, 1] + np.abs(x[:, 2]) + np.sin(x[:, 3:]).sum(axis=1) + rng.normal(size=len(x)) > 1).astype(float)
  parameters = {'objective': 'binary', 'num_leaves': leaves, 'verbose': -1, 'seed': 1, 'min_data_in_leaf': 20}
  return lgb.train(parameters, lgb.Dataset(x, y), trees)


def timed(call, batches):
  """The median of the seconds that calls take."""
  times = []
  for batch in batches:
    start = time.perf_counter()
    call(batch)
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def theirs(booster, batches, threads):
  return timed(lambda batch: booster.predict(batch, num_threads=threads), batches)


def ours(path, size, lines, threads):
  command = [PREDICT, path, '--threads=%d' % threads, '--time=%d' % size]
  with open(lines, encoding='utf-8') as file:
    done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True)
  return statistics.median(map(float, done.stdout.split()))


def single_row_fast(booster, rows):
  """LightGBM's C function for one row, with all that can be prepared done before; a call through ctypes is in the time."""
  lib, handle = lgb.basic._LIB, booster._handle  # pylint: disable=protected-access
  config = ctypes.c_void_p()
  assert lib.LGBM_BoosterPredictForMatSingleRowFastInit(
      handle, 0, 0, -1, 1, FEATURES, ctypes.c_char_p(b'num_threads=1'), ctypes.byref(config)) == 0
  out, length = (ctypes.c_double * 1)(), ctypes.c_int64()
  pointers = [row.ctypes.data_as(ctypes.c_void_p) for row in rows]
  predict = lib.LGBM_BoosterPredictForMatSingleRowFast
  seconds = timed(lambda row: predict(config, row, ctypes.byref(length), out), pointers)
  lib.LGBM_FastConfigFree(config)
  return seconds


def check(booster, path, rows, lines):
  with open(lines, encoding='utf-8') as file:
    done = subprocess.run([PREDICT, path], stdin=file, capture_output=True, text=True, check=True)
  found = np.array(done.stdout.split(), dtype=float)
  worst = np.abs(found - booster.predict(rows)).max()
  assert worst <= 1e-12, worst


def compare(name, size, threads, turn):
  other, own = (statistics.median(times) for times in zip(*(turn() for _ in range(ROUNDS))))
  print('%-26s %7d %8s %9.1f us %9.1f us %8.2f' % (name, size, threads, other * 1e6, own * 1e6, other / own), flush=True)


def main():
  rng = np.random.default_rng(1)
  print('%-26s %7s %8s %12s %12s %8s' % ('model', 'rows', 'threads', 'LightGBM', 'Purlin', 'ratio'))
  with tempfile.TemporaryDirectory() as folder:
    files = {}
    for size in BATCHES:
      rows = rng.normal(size=(ROWS[size], FEATURES))
      files[size] = rows, os.path.join(folder, '%d.csv' % size)
      with open(files[size][1], 'w', encoding='utf-8') as file:
        file.writelines(','.join(map(repr, row)) + '\n' for row in rows.tolist())
    for trees, leaves in MODELS:
      booster = train(trees, leaves, rng)
      path = os.path.join(folder, 'model.txt')
      booster.save_model(path)
      name = '%d trees x %d leaves' % (trees, leaves)
      for size, (rows, lines) in files.items():
        check(booster, path, rows, lines)
        batches = rows.reshape(-1, size, FEATURES)
        for threads in (1, 2):
          compare(name, size, threads,
                  lambda: (theirs(booster, batches, threads), ours(path, size, lines, threads)))  # pylint: disable=cell-var-from-loop
        if size == 1:
          compare(name, size, 'C, 1', lambda: (single_row_fast(booster, rows), ours(path, 1, lines, 1)))  # pylint: disable=cell-var-from-loop


if __name__ == '__main__':
  main()
