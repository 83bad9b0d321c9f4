#!/usr/bin/env bash
# flink-cluster.sh FLINK REST_PORT LOGS [TASKMANAGERS]
# Runs a Flink cluster on this machine until it is told to end, which is no failure: a JobManager and TaskManagers (1 if not said), of
# the Flink in a folder. What they log goes to files in LOGS; the line that says that the cluster is ready is printed. A cluster
# without its JobManager or its last TaskManager ends, and fails.
set -euo pipefail
flink=$1 port=$2 logs=$3 workers=${4:-1}
mkdir -p "$logs"

folder=$(mktemp -d)
# Both write the same to a file of their own, too, under one name for all.
export FLINK_LOG_DIR=$folder
# Ports but the one of the REST API are free ones, so that clusters do not meet.
read -r rpc blob < <(python3 -c 'import socket
s = [socket.socket() for _ in range(2)]
for x in s: x.bind(("localhost", 0))
print(*(x.getsockname()[1] for x in s))')
settings=(-D jobmanager.rpc.address=localhost -D jobmanager.rpc.port="$rpc" -D blob.server.port="$blob" -D rest.address=localhost
    -D rest.bind-address=localhost -D rest.port="$port" -D rest.bind-port="$port" -D io.tmp.dirs="$folder" -D web.tmpdir="$folder"
    -D taskmanager.numberOfTaskSlots=8 -D parallelism.default=1 -D web.refresh-interval=500)
while IFS=': ' read -r name value; do
    [[ "$name" == \#* ]] || settings+=(-D "$name=$value")
done <"${BASH_SOURCE%/*}/../setup/flink-memory.conf"
processes=()
ended() {
    trap - TERM INT EXIT
    # The scripts become Java by exec.
    for process in "${processes[@]}"; do kill -TERM "$process" 2>/dev/null || true; done
    for process in "${processes[@]}"; do
        for _ in {1..100}; do
            kill -0 "$process" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$process" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap 'ended; exit 0' TERM INT
trap ended EXIT
"$flink/bin/jobmanager.sh" start-foreground "${settings[@]}" >"$logs/jobmanager.log" 2>&1 &
processes+=($!)
for n in $(seq "$workers"); do
    "$flink/bin/taskmanager.sh" start-foreground "${settings[@]}" -D taskmanager.resource-id="taskmanager-$n" \
        -D taskmanager.host=localhost >"$logs/taskmanager-$n.log" 2>&1 &
    processes+=($!)
done
ready() {
    curl -sf --max-time 5 "http://localhost:$port/v1/overview" | grep -q "\"taskmanagers\":$workers[,}]"
}
until ready; do
    for process in "${processes[@]}"; do
        if ! kill -0 "$process" 2>/dev/null; then
            tail -qn 20 "$logs"/*.log >&2
            echo "a process of the Flink cluster ended before the cluster was ready; the logs are in $logs" >&2
            exit 1
        fi
    done
    sleep 0.2
done
echo "Flink listens on localhost:$port"
living=$workers
while [ "$living" -gt 0 ] && kill -0 "${processes[0]}" 2>/dev/null; do
    gone=
    wait -n -p gone "${processes[@]}" || true
    [ -n "$gone" ] || break
    echo "a process of the Flink cluster ended; the logs are in $logs" >&2
    [ "$gone" = "${processes[0]}" ] || living=$((living - 1))
done
exit 1
