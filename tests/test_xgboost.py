"""XGBoost models of all kinds, trained here with seeds of their own: our predictions beside those of XGBoost's package.

The kinds are those of ml/trees/tests/make_xgboost.py; the program is ml/trees/examples/predict_xgboost.rs. TREES_SEED
sets the first seed.
"""
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import xgboost as xgb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import example_programs  # pylint: disable=wrong-import-position

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEED = int(os.environ.get('TREES_SEED', '100'))


def _make_models():
  path = os.path.join(ROOT, 'ml', 'trees', 'tests', 'make_xgboost.py')
  spec = importlib.util.spec_from_file_location('make_xgboost', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


make_models = _make_models()


@pytest.fixture(name='program', scope='session')
def _program():
  """The example; PURLIN_PREDICT_XGBOOST names one that is built already."""
  return example_programs.built('predict_xgboost', env='PURLIN_PREDICT_XGBOOST')


def ours(program, model, rows, *options):
  lines = '\n'.join(' '.join(map(str, row)) for row in rows)
  done = subprocess.run([program, model, *options], input=lines, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return np.array([[np.float32(word) for word in line.split(' ')] for line in done.stdout.splitlines()])


def equal(found, expected, apart):
  """Whether numbers are at most so many units in the last place apart."""
  assert found.shape == expected.shape
  assert found.dtype == expected.dtype == np.float32
  ordered = [values.view(np.int32).astype(np.int64) for values in (found, expected)]
  ordered = [np.where(bits < 0, -(bits & 0x7fffffff), bits) for bits in ordered]
  far = np.abs(ordered[0] - ordered[1]) > apart
  far &= ~(np.isnan(found) & np.isnan(expected))
  assert not far.any(), 'rows %s' % np.argwhere(far)[:5]


@pytest.mark.parametrize('kind', make_models.KINDS)
@pytest.mark.parametrize('seed', range(SEED, SEED + 2))
def test_a_model_trained_here(program, tmp_path, kind, seed):
  trained, data = make_models.train(kind, seed, rounds=30, depth=3 + seed % 4)
  for name in ('model.json', 'model.ubj'):
    path = str(tmp_path / name)
    trained.save_model(path)
    expected = make_models.answers(xgb.Booster(model_file=path), kind, data.asked)
    expected = {what: np.array([[int(bits, 16) for bits in row.split(' ')] for row in rows], np.uint32).view(np.float32)
                for what, rows in expected.items()}
    equal(ours(program, path, data.asked), expected['prediction'], 2)
    equal(ours(program, path, data.asked, '--output=margin', '--threads=2'), expected['margin'], 0)
    if 'leaves' in expected:
      equal(ours(program, path, data.asked, '--output=leaves'), expected['leaves'], 0)
      equal(ours(program, path, data.asked, '--iterations=1..3'), expected['part'], 2)
    if 'best' in expected:
      equal(ours(program, path, data.asked, '--iterations=best'), expected['best'], 2)


def test_leaves_of_several_values_are_an_error(program, tmp_path):
  data = make_models.Data(SEED)
  trained = xgb.train({'multi_strategy': 'multi_output_tree', 'tree_method': 'hist'}, xgb.DMatrix(data.x, data.two), 2)
  path = str(tmp_path / 'model.ubj')
  trained.save_model(path)
  done = subprocess.run([program, path], input='1 2 3 4 5 6\n', capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert 'VectorLeaves { tree: 0, values: 2 }' in done.stderr
