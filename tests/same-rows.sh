#!/usr/bin/env bash
# same-rows.sh FILE EXPECTED: both have the same lines, in any order.
set -euo pipefail
[ -f "$1" ] || { echo "$1 was not written" >&2; exit 1; }
if ! difference=$(diff <(sort "$2") <(sort "$1")); then
    echo "$1 differs from $2 (<: expected, >: got):" >&2
    head -n 20 <<<"$difference" >&2
    exit 1
fi
echo "$1: $(grep -c . "$1") rows, as $2 has them"
