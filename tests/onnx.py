#!/usr/bin/env python3
"""The gate's step `onnx`: purlin-onnx, which no other step builds, with tract and with ONNX Runtime.

Its tests; models that are trained here, with seeds of their own, beside what their makers give; and its documentation. What the
compiler, clippy or rustdoc says of it is an error. ONNX_SEED sets the first seed.
"""
import glob
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'tests'))
from all import ONNX  # pylint: disable=wrong-import-position
import docs  # pylint: disable=wrong-import-position

SEED = int(os.environ.get('ONNX_SEED', '100'))
VENV = os.path.join(ROOT, 'third_party', 'onnx')


def installed():
  """Whether ONNX Runtime and the converters are here, which are fetched where that can be."""
  if subprocess.run(['setup/onnx.sh'], cwd=ROOT, check=False).returncode == 0:
    return True
  if os.environ.get('CI'):
    sys.exit('error: setup/onnx.sh failed')
  print('skipped: ONNX Runtime, and models that are trained here: setup/onnx.sh failed')
  return False


def cargo(*arguments, env=None):
  return docs.tests(ONNX, *arguments, env=env)


def trained_here(env):
  """Models of seeds of their own."""
  good = True
  for seed in range(SEED, SEED + 2):
    with tempfile.TemporaryDirectory() as folder:
      subprocess.run([os.path.join(VENV, 'bin', 'python'), 'ml/onnx/tests/make_models.py', folder, str(seed)], cwd=ROOT,
                     check=True)
      print('models of seed %d' % seed, flush=True)
      good &= cargo('--test', 'integration', 'models_give_what_their_makers_give', env=dict(env, ONNX_MODELS=folder))
  return good


def main():
  env = dict(os.environ)
  is_installed = installed()
  if is_installed:
    env['ORT_DYLIB_PATH'] = glob.glob(VENV + '/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.*')[0]
  good = cargo('--no-fail-fast', env=env)
  if is_installed:
    good &= trained_here(env)
  good &= docs.document(ONNX, lambda name: name == 'purlin-onnx')
  return 0 if good else 1


if __name__ == '__main__':
  sys.exit(main())
