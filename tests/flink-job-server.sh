#!/usr/bin/env bash
# flink-job-server.sh JAR LOG OPTION...
# Runs Beam's job server for Flink until it is told to end, which is no failure. What it logs goes to a file; the line that says that
# it listens is printed, too.
set -euo pipefail
jar=$1 log=$2
shift 2
mkdir -p "$(dirname "$log")"
# What an earlier server said is not taken for this one's words.
: >"$log"
artifacts=$(mktemp -d)
# Beam and Flink look into these, as Flink's own settings allow them.
java --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED \
    --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/java.time=ALL-UNNAMED -jar "$jar" --artifacts-dir="$artifacts" "$@" >>"$log" 2>&1 &
pid=$!
ended() {
    kill -TERM $pid 2>/dev/null || true
    wait $pid || true
    rm -rf "$artifacts"
}
trap 'ended; exit 0' TERM INT
trap 'rm -rf "$artifacts"' EXIT
until grep -m1 'JobService started on' "$log"; do
    if ! kill -0 $pid 2>/dev/null; then
        tail -n 20 "$log" >&2
        echo "Beam's job server for Flink ended before it listened; its log is in $log" >&2
        exit 1
    fi
    read -rt 0.1 <> <(:) || true
done
wait $pid
