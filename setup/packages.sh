#!/usr/bin/env bash
# Checks the tools that the build needs, and installs what is missing where it may (root and apt).
# Otherwise prints the one command to run.
set -euo pipefail
need=()
have() { command -v "$1" >/dev/null 2>&1; }

if ! have cargo; then
    echo "setup: cargo is missing. Install Rust 1.88 or newer (https://rustup.rs), then run this again." >&2
    exit 1
fi
version=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n1.88.0\n' "$version" | sort -V | head -n1)" != 1.88.0 ]; then
    echo "setup: rustc $version is too old, 1.88 is needed. Run: rustup update stable" >&2
    exit 1
fi
have python3 || need+=(python3)
python3 -m pip --version >/dev/null 2>&1 || need+=(python3-pip)
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || need+=(python3-venv)
have cc && have c++ || need+=(gcc g++)
have make || need+=(make)
for pair in "$@"; do # further tools, as command:package
    have "${pair%%:*}" || need+=("${pair##*:}")
done
[ ${#need[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && have apt-get; then
    echo "setup: installing ${need[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
else
    echo "setup: missing: ${need[*]}. Run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${need[*]}" >&2
    exit 1
fi
