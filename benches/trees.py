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
# Of small batches as many as make a time that can be measured.
REPEATS = {1: 2000, 100: 200, 100_000: 1}
MODELS = [(100, 31), (500, 255)]


def train(trees, leaves, rng):
  x = rng.normal(size=(50_000, FEATURES))
  y = (x[:, 0] * x[:, 1] + np.abs(x[:, 2]) + np.sin(x[:, 3:]).sum(axis=1) + rng.normal(size=len(x)) > 1).astype(float)
  parameters = {'objective': 'binary', 'num_leaves': leaves, 'verbose': -1, 'seed': 1, 'min_data_in_leaf': 20}
  return lgb.train(parameters, lgb.Dataset(x, y), trees)


def theirs(booster, rows, threads):
  """Seconds of one call."""
  times = []
  for _ in range(REPEATS[len(rows)]):
    start = time.perf_counter()
    booster.predict(rows, num_threads=threads)
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def ours(path, rows, lines, threads):
  command = [PREDICT, path, '--threads=%d' % threads, '--time=%d' % REPEATS[len(rows)]]
  with open(lines, encoding='utf-8') as file:
    done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True)
  return statistics.median(map(float, done.stdout.split()))


def single_row_fast(booster, row):
  """Seconds of LightGBM's C function for one row, with all that can be prepared done before; a ctypes call is in it."""
  lib, handle = lgb.basic._LIB, booster._handle  # pylint: disable=protected-access
  config = ctypes.c_void_p()
  assert lib.LGBM_BoosterPredictForMatSingleRowFastInit(
      handle, 0, 0, -1, 1, FEATURES, ctypes.c_char_p(b'num_threads=1'), ctypes.byref(config)) == 0
  data, out, length = row.ctypes.data_as(ctypes.c_void_p), (ctypes.c_double * 1)(), ctypes.c_int64()
  times = []
  for _ in range(REPEATS[1]):
    start = time.perf_counter()
    lib.LGBM_BoosterPredictForMatSingleRowFast(config, data, ctypes.byref(length), out)
    times.append(time.perf_counter() - start)
  lib.LGBM_FastConfigFree(config)
  return statistics.median(times)


def check(booster, path, rows, lines):
  with open(lines, encoding='utf-8') as file:
    done = subprocess.run([PREDICT, path], stdin=file, capture_output=True, text=True, check=True)
  found = np.array(done.stdout.split(), dtype=float)
  worst = np.abs(found - booster.predict(rows)).max()
  assert worst <= 1e-12, worst


def main():
  rng = np.random.default_rng(1)
  print('%-26s %7s %8s %12s %12s %8s' % ('model', 'rows', 'threads', 'LightGBM', 'Purlin', 'ratio'))
  with tempfile.TemporaryDirectory() as folder:
    batches = {}
    for size in BATCHES:
      rows = rng.normal(size=(size, FEATURES))
      lines = os.path.join(folder, '%d.csv' % size)
      with open(lines, 'w', encoding='utf-8') as file:
        file.writelines(','.join(map(repr, row)) + '\n' for row in rows.tolist())
      batches[size] = rows, lines
    for trees, leaves in MODELS:
      booster = train(trees, leaves, rng)
      path = os.path.join(folder, 'model.txt')
      booster.save_model(path)
      name = '%d trees x %d leaves' % (trees, leaves)
      for size, (rows, lines) in batches.items():
        check(booster, path, rows, lines)
        for threads in (1, 2):
          turns = [(theirs(booster, rows, threads), ours(path, rows, lines, threads)) for _ in range(ROUNDS)]
          other, own = (statistics.median(times) for times in zip(*turns))
          print('%-26s %7d %8d %9.1f us %9.1f us %8.2f' % (name, size, threads, other * 1e6, own * 1e6, other / own), flush=True)
        if size == 1:
          turns = [(single_row_fast(booster, rows[0]), ours(path, rows, lines, 1)) for _ in range(ROUNDS)]
          other, own = (statistics.median(times) for times in zip(*turns))
          print('%-26s %7d %8s %9.1f us %9.1f us %8.2f' % (name, 1, 'C, 1', other * 1e6, own * 1e6, other / own), flush=True)


if __name__ == '__main__':
  main()
