#!/usr/bin/env bash
# with-pool.sh POOL PORT -- COMMAND...
# Starts a worker pool, runs the command, stops the pool; ends with the command's status.
set -euo pipefail
pool=$1 port=$2
shift 3
said=$(mktemp)
"$pool" --port="$port" >"$said" &
pid=$!
stop() {
    kill -TERM $pid 2>/dev/null || true
    wait $pid || { echo "the worker pool ended with status $?" >&2; status=1; }
    rm -f "$said"
}
status=0
trap 'stop; exit $status' EXIT
until grep -q ":$port" "$said"; do
    kill -0 $pid 2>/dev/null || { status=1; exit; }
    read -rt 0.05 <> <(:) || true
done
"$@" || status=$?
