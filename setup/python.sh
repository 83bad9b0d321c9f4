#!/usr/bin/env bash
# Makes third_party/venv with Beam's Python SDK, LightGBM and XGBoost: needed by the tests that run Beam's own suites and compare with these
# packages, not by users of Purlin.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=third_party/venv
want=$(cat conformance/requirements.txt)
[ -f $venv/requirements.txt ] && [ "$(cat $venv/requirements.txt)" = "$want" ] && exit 0
echo "setup: installing Beam's Python SDK, LightGBM and XGBoost into $venv"
rm -rf $venv
python3 -m venv $venv
$venv/bin/python -m pip install -q --disable-pip-version-check -r conformance/requirements.txt
cp conformance/requirements.txt $venv/requirements.txt
