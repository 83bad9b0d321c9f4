"""LightGBM models of all kinds, trained here with seeds of their own: our predictions beside those of LightGBM's Python package.

The kinds are those of ml/trees/tests/make_models.py; the program is ml/trees/examples/predict.rs. TREES_SEED sets the first seed.
"""
import importlib.util
import os
import subprocess
import sys

import lightgbm as lgb
import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import example_programs  # pylint: disable=wrong-import-position

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEED = int(os.environ.get('TREES_SEED', '100'))


def _make_models():
  spec = importlib.util.spec_from_file_location('make_models', os.path.join(ROOT, 'ml', 'trees', 'tests', 'make_models.py'))
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


make_models = _make_models()


@pytest.fixture(name='program', scope='session')
def _program():
  """The example; PURLIN_PREDICT names one that is built already."""
  return example_programs.built('predict', env='PURLIN_PREDICT')


def ours(program, model, rows, *options):
  lines = '\n'.join(' '.join(map(repr, map(float, row))) for row in rows)
  done = subprocess.run([program, model, *options], input=lines, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return np.array([[float(word) for word in line.split(' ')] for line in done.stdout.splitlines()])


def equal(found, expected, tolerance):
  expected = np.asarray(expected, dtype=float).reshape(len(found), -1)
  assert found.shape == expected.shape
  with np.errstate(invalid='ignore'):
    near = np.abs(found - expected) <= tolerance * np.maximum(1, np.abs(expected))
  near |= (found == expected) | (np.isnan(found) & np.isnan(expected))
  assert near.all(), 'rows %s' % np.argwhere(~near)[:5]


@pytest.mark.parametrize('kind', make_models.KINDS)
@pytest.mark.parametrize('seed', range(SEED, SEED + 3))
def test_a_model_trained_here(program, tmp_path, kind, seed):
  trained, data = make_models.train(kind, seed, rounds=30, leaves=15 + seed % 32)
  path = str(tmp_path / 'model.txt')
  trained.save_model(path)
  rows = data.asked
  # The booster that was trained, and what LightGBM itself makes of the file.
  for booster in (trained, lgb.Booster(model_file=path)):
    equal(ours(program, path, rows), booster.predict(rows), 1e-12)
    equal(ours(program, path, rows, '--output=raw'), booster.predict(rows, raw_score=True), 1e-12)
    equal(ours(program, path, rows, '--output=leaves'), booster.predict(rows, pred_leaf=True), 0)
    part = booster.predict(rows, start_iteration=3, num_iteration=11)
    equal(ours(program, path, rows, '--start=3', '--iterations=11', '--threads=2'), part, 1e-12)
    if not make_models.linear(kind):
      equal(ours(program, path, rows[:50], '--output=contributions'), booster.predict(rows[:50], pred_contrib=True), 1e-9)
  narrow = booster.predict(rows[:, :4], predict_disable_shape_check=True)
  equal(ours(program, path, rows[:, :4], '--any-width'), narrow, 1e-12)


def test_a_row_of_another_width(program, tmp_path):
  trained, _ = make_models.train('binary', SEED, rounds=3, leaves=7)
  path = str(tmp_path / 'model.txt')
  trained.save_model(path)
  done = subprocess.run([program, path], input='1 2 3 4 5 6\n1 2 3\n', capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert 'row: 1, found: 3, expected: 6' in done.stderr
