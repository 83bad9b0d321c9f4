"""Model files that their makers write, told by `purlin-models`: LightGBM's here, the others where LONG_TESTS=1 installs them."""
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from all import COMPILED  # pylint: disable=wrong-import-position

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SERVERS = os.environ.get('REMOTE_SERVERS', os.path.join(ROOT, 'third_party', 'servers'))
PACKAGES = ['xgboost-cpu', 'onnx', 'safetensors', 'numpy']

MAKE = '''
import sys
import numpy as np
import onnx
import xgboost
from onnx import TensorProto, helper
from safetensors.numpy import save_file

folder = sys.argv[1]
rows = np.random.default_rng(7).random((200, 7))
trained = xgboost.train({"max_depth": 3}, xgboost.DMatrix(rows, rows[:, 0] + rows[:, 1], feature_names=list("abcdefg")), 5)
trained.save_model(folder + "/model.json")
trained.save_model(folder + "/model.ubj")
weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3], np.arange(12, dtype=np.float32))
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])], [weight])
onnx.save(helper.make_model(graph), folder + "/model.onnx")
save_file({"w": np.zeros((3, 4), np.float32)}, folder + "/model.safetensors")
'''


@pytest.fixture(name='models', scope='session')
def _models():
  """Runs the program on a store: what it says. PURLIN_MODELS names one that is built already."""
  program = os.environ.get('PURLIN_MODELS', os.path.join(ROOT, 'target', 'tests', 'release', 'purlin-models'))
  if 'PURLIN_MODELS' not in os.environ:
    subprocess.run(['cargo', 'build', '-q', *COMPILED, '--bin', 'purlin-models'], cwd=ROOT, check=True)

  def models(store, *arguments, code=0):
    done = subprocess.run([program, '--store=%s' % store, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr

  return models


def test_lightgbm(models, tmp_path):
  import lightgbm  # pylint: disable=import-outside-toplevel
  import numpy  # pylint: disable=import-outside-toplevel
  rows = numpy.random.default_rng(7).random((200, 7))
  trained = lightgbm.train({'verbose': -1}, lightgbm.Dataset(rows, rows[:, 0]), 5)
  path = str(tmp_path / 'model.txt')
  trained.save_model(path)
  store = tmp_path / 'store'
  assert models(store, 'add', 'prices', path).startswith('prices:1  lightgbm  ')
  assert 'features:FP64[-1,7]' in models(store, 'verify')
  assert 'expected features:FP64[-1,8]' in models(store, 'add', 'prices', path, '--input=features:FP64[-1,8]', code=1)


@pytest.mark.skipif(not os.environ.get('LONG_TESTS'), reason='LONG_TESTS=1 installs XGBoost, ONNX and safetensors')
def test_files_of_other_makers(models, tmp_path):
  folder = os.path.join(SERVERS, 'kinds')
  if not os.path.exists(os.path.join(folder, 'installed')):
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    subprocess.run([os.path.join(folder, 'bin', 'pip'), 'install', '-q', *PACKAGES], check=True)
    with open(os.path.join(folder, 'installed'), 'w', encoding='utf-8'):
      pass
  subprocess.run([os.path.join(folder, 'bin', 'python'), '-c', MAKE, str(tmp_path)], check=True)
  for name, told in [('model.json', 'xgboost'), ('model.ubj', 'xgboost'), ('model.onnx', 'onnx'), ('model.safetensors', 'safetensors')]:
    added = models(tmp_path / 'store', 'add', 'any', str(tmp_path / name))
    inputs = {'xgboost': 'features:FP32[-1,7]', 'onnx': 'x:FP32[-1,4]', 'safetensors': 'inputs not told'}[told]
    assert ('  %s  ' % told) in added and added.rstrip().endswith(inputs)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / 'cut').write_bytes(whole[:len(whole) // 2])
    assert 'was cut off' in models(tmp_path / 'store', 'add', 'any', str(tmp_path / 'cut'), code=1)
  assert models(tmp_path / 'store', 'verify').count(' is well') == 4
