#!/usr/bin/env bash
# with-service.sh SERVICE JOB_PORT ARTIFACT_PORT EXPANSION_PORT -- COMMAND...
# Starts the job service, runs the command, stops the service; ends with the command's status.
set -euo pipefail
service=$1 job=$2 artifact=$3 expansion=$4
shift 5
said=$(mktemp)
"$service" --job_port="$job" --artifact_port="$artifact" --expansion_port="$expansion" >"$said" &
pid=$!
stop() {
    kill -TERM $pid 2>/dev/null || true
    wait $pid || { echo "the job service ended with status $?" >&2; status=1; }
    rm -f "$said"
}
status=0
trap 'stop; exit $status' EXIT
until grep -q ":$job" "$said"; do
    kill -0 $pid 2>/dev/null || { status=1; exit; }
    read -rt 0.05 <> <(:) || true
done
"$@" || status=$?
