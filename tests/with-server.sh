#!/usr/bin/env bash
# with-server.sh PORT SERVER [OPTION...] -- COMMAND...
# Starts a server, runs the command once the server says that it listens on the port, stops the server; ends with the
# command's status.
set -euo pipefail
port=$1 server=()
shift
while [ "$1" != -- ]; do
    server+=("$1")
    shift
done
shift
said=$(mktemp)
"${server[@]}" >"$said" &
pid=$!
stop() {
    kill -TERM $pid 2>/dev/null || true
    wait $pid || { echo "${server[0]} ended with status $?" >&2; status=1; }
    rm -f "$said"
}
status=0
trap 'stop; exit $status' EXIT
until grep -q ":$port" "$said"; do
    kill -0 $pid 2>/dev/null || { status=1; exit; }
    read -rt 0.05 <> <(:) || true
done
"$@" || status=$?
