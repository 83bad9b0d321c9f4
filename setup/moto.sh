#!/usr/bin/env bash
# Makes third_party/moto, a Python environment with moto's stand-in for Amazon S3: needed by tests/test_object_store.py alone.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=third_party/moto
want='moto[server]==5.2.5'
[ "$(cat $venv/requirements.txt 2>/dev/null)" = "$want" ] && exit 0
echo "setup: installing $want into $venv"
rm -rf $venv
python3 -m venv $venv
$venv/bin/python -m pip install -q --disable-pip-version-check "$want"
echo "$want" >$venv/requirements.txt
