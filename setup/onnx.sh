#!/usr/bin/env bash
# Makes third_party/onnx: the converters of scikit-learn's and LightGBM's models, of which tests/onnx.py makes new ones, and ONNX Runtime,
# whose library they are run with, too. Needed by the gate's step `onnx` alone.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=third_party/onnx
want=$(cat ml/onnx/tests/requirements.txt)
[ -f $venv/requirements.txt ] && [ "$(cat $venv/requirements.txt)" = "$want" ] && exit 0
echo "setup: installing ONNX Runtime and converters of models into $venv"
rm -rf $venv
python3 -m venv $venv
$venv/bin/python -m pip install -q --disable-pip-version-check -r ml/onnx/tests/requirements.txt
cp ml/onnx/tests/requirements.txt $venv/requirements.txt
