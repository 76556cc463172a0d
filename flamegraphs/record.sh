#!/usr/bin/env bash
# Makes the pictures in this directory again: the server on its own under a bounded
# load from this machine, asked where its time goes.
#
#   flamegraphs/record.sh [WORKLOAD...]        # or: make flamegraph [W=WORKLOAD]
#
# Without names: all workloads, about half a minute each. FLAMEGRAPH_SECONDS (20) is how
# long the server samples itself. The stacks are kept beside the picture, not in git, as
# WORKLOAD.folded; when there were some from an earlier run, WORKLOAD-diff.svg shows what
# has changed since. Exits 1 when a load did not hold, for then its picture shows something
# else than its name.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FLAMEGRAPH_SECONDS:-20}
binaries=${CARGO_TARGET_DIR:-target}/release
ready_file=$(mktemp)
load_file=$(mktemp)
server= load=
finish() {
    for pid in $load $server; do kill "$pid" 2>/dev/null || true; done
    for pid in $load $server; do wait "$pid" 2>/dev/null || true; done
    rm -f "$ready_file" "$load_file"
}
trap finish EXIT

workloads=(rooms-of-10 rooms-of-2 hall calls)

# load_of WORKLOAD SIP-ADDRESS SECONDS: the load as a command line.
load_of() {
    case $1 in
        # 3000 callers, 600 of them talking: hearing, mixing, encoding and sending.
        rooms-of-10) echo "$binaries/plenum-perf rooms $2 --rooms 300 --participants 10 --talkers 2 --seconds $3" ;;
        # 1600 callers, all talking: nobody shares a mix with anybody.
        rooms-of-2) echo "$binaries/plenum-perf rooms $2 --rooms 800 --participants 2 --talkers 2 --seconds $3" ;;
        # 3000 callers in one room: a mix for three talkers, one for all others, 2997 sends of it.
        hall) echo "$binaries/plenum-perf rooms $2 --rooms 1 --participants 3000 --talkers 3 --seconds $3" ;;
        # 1000 calls a second, each in a room of its own for half a second: signalling.
        calls) echo "sipp $2 -sf perf/sipp/rooms.xml -i 127.0.0.1 -nostdin -r 1000 -m $((1000 * ($3 + 2))) -l 4000 -d 500 -timeout $(($3 + 30)) -timeout_error" ;;
        *) echo "record.sh: no such workload: $1; there are ${workloads[*]}" >&2; return 2 ;;
    esac
}

# start_server: sets server, sip and http. The RTP ports lie above what the kernel hands
# out itself and outside the default range, so that another server may run meanwhile.
start_server() {
    local port
    port=$(perf/free-port.sh)
    "$binaries/plenum" serve \
        --set "sip.listen=udp:127.0.0.1:$port,tcp:127.0.0.1:$port" \
        --set "http.listen=127.0.0.1:$((port + 1))" \
        --set rtp.ports=61000-65535 --set log.level=warn >"$ready_file" &
    server=$!
    for _ in $(seq 100); do
        kill -0 "$server" 2>/dev/null || { echo "record.sh: the server did not start" >&2; exit 1; }
        read -r sip http < <(sed -n 's/^plenum .* ready sip=\([^ ]*\) http=\([^ ]*\).*/\1 \2/p' "$ready_file") && return
        sleep 0.1
    done
    echo "record.sh: the server is not ready after ten seconds" >&2
    exit 1
}

cargo build --release -p engine -p perf
[ $# -gt 0 ] || set -- "${workloads[@]}"
failures=0
for workload in "$@"; do
    start_server
    command=$(load_of "$workload" "$sip" $((seconds + 3)))
    echo "flamegraph: $workload: $command"
    $command >"$load_file" 2>&1 </dev/null &
    load=$!
    # plenum-perf measures from two seconds after the last caller has joined; sample in there.
    sleep 4
    stacks=flamegraphs/$workload.folded
    # What is kept is a recording whose load held, and so what the next one is compared with.
    if [ -s "$stacks" ]; then mv "$stacks" "flamegraphs/$workload-before.folded"; fi
    "$binaries/plenum" flamegraph --http "$http" --seconds "$seconds" --folded -o "$stacks"
    if ! wait "$load"; then
        tail -n 20 "$load_file"
        echo "record.sh: the load of $workload did not hold" >&2
        failures=$((failures + 1))
        rm -f "$stacks"
    fi
    load=
    kill -INT "$server"
    wait "$server" || true
    server=
    [ -s "$stacks" ] || continue
    "$binaries/plenum" flamegraph --draw "$stacks" -o "flamegraphs/$workload.svg"
    echo "flamegraph: flamegraphs/$workload.svg"
    before=flamegraphs/$workload-before.folded
    [ -s "$before" ] || continue
    "$binaries/plenum" flamegraph --diff "$before" "$stacks" -o "flamegraphs/$workload-diff.svg"
    echo "flamegraph: flamegraphs/$workload-diff.svg: against the run before"
done
[ "$failures" = 0 ]
