#!/usr/bin/env bash
# Everything that is measured, in its short form, into perf/RESULTS.md: about half an hour on two cores.
#
#   perf/bench.sh [SECTION...]        # or: make bench
#
# Without names: limit rooms capacity hall seventy calls peers memory. Processor SERVER_CORE (0) is the server's,
# LOAD_CORE (1) the callers'. PLENUM and PLENUM_PERF name other binaries than those of target/release.
# Exits 1 when something did not hold; what it printed is in the file all the same.
set -euo pipefail
cd "$(dirname "$0")/.."

server_core=${SERVER_CORE:-0}
load_core=${LOAD_CORE:-1}
binaries=${CARGO_TARGET_DIR:-target}/release
plenum=${PLENUM:-$binaries/plenum}
perf=${PLENUM_PERF:-$binaries/plenum-perf}
results=perf/RESULTS.md
scratch=$(mktemp -d)
server=
failed=0

finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    rm -rf "$scratch"
}
trap finish EXIT

# say LINE...
say() { printf '%s\n' "$@" >>"$results"; }

# run TITLE COMMAND...: the command and what it says for people, and on the terminal too.
run() {
    local title=$1
    shift
    echo "bench: $title" >&2
    say "" "## $title" "" '```' "$ $(basename "$1") ${*:2}"
    "$@" 2>"$scratch/table" >"$scratch/json" || failed=1
    tee -a "$results" <"$scratch/table" >&2
    say "" '```'
}

# start_server SET...: sets server, sip and http.
start_server() {
    local port sets=()
    port=$(perf/free-port.sh)
    for set in "server.cores=$server_core" "sip.listen=udp:127.0.0.1:$port" \
        "http.listen=127.0.0.1:$((port + 1))" load.max=4000000 load.hot_max=1 log.level=error "$@"; do
        sets+=(--set "$set")
    done
    "$plenum" serve "${sets[@]}" >"$scratch/ready" &
    server=$!
    for _ in $(seq 100); do
        kill -0 "$server" 2>/dev/null || { echo "bench.sh: the server did not start" >&2; exit 1; }
        read -r sip http < <(sed -n 's/^plenum .* ready sip=\([^ ]*\) http=http:..\([^ ]*\).*/\1 \2/p' "$scratch/ready") && return
        sleep 0.1
    done
    echo "bench.sh: the server is not ready after ten seconds" >&2
    exit 1
}

stop_server() {
    kill -INT "$server"
    wait "$server" || failed=1
    server=
}

# A server of its own for each measurement, so that none inherits another's memory.
with_server() {
    start_server
    "$@"
    stop_server
}

limit() {
    run "The machine's own limit" "$perf" limit --callers 4000 --core "$server_core" --peer-core "$load_core"
}

of_ten() {
    for round in 1 2 3; do
        run "200 callers in 20 rooms, run $round of 3" "$perf" rooms "$sip" --rooms 20 --participants 10 --talkers 2 \
            --core "$load_core" --pid "$server" --http "$http"
    done
}

find_capacity() {
    run "Capacity in rooms of ten" "$perf" capacity "$sip" --start 3000 --most 16000 --seconds 5 \
        --core "$load_core" --server-core "$server_core" --pid "$server" --http "$http"
    capacity=$(grep -o '^[0-9]* participants held' "$scratch/table" | cut -d' ' -f1)
}

find_hall() {
    run "Capacity of one hall, three talking" "$perf" capacity "$sip" --hall --talkers 3 --start 2000 --most 16000 \
        --seconds 5 --core "$load_core" --server-core "$server_core" --pid "$server" --http "$http"
}

seventy_percent() {
    local rooms=$((${capacity:-6000} * 7 / 100))
    for round in 1 2 3; do
        run "At 70 % of it, run $round of 3" "$perf" rooms "$sip" --rooms "$rooms" --participants 10 --talkers 2 \
            --core "$load_core" --pid "$server" --http "$http"
    done
}

# What the same turns of an idle server look like: the machine's own lateness.
idle_lateness() {
    run "Ticks of a server with one room of two: the machine's own lateness" "$perf" rooms "$sip" --rooms 1 \
        --participants 2 --talkers 1 --core "$load_core" --pid "$server" --http "$http"
}

call_rate() {
    run "5,000 calls a second, a room each" "$perf" calls "$sip" --rate 5000 --seconds 5 --core "$load_core" --pid "$server"
    run "5,000 calls a second into 100 rooms" "$perf" calls "$sip" --rate 5000 --seconds 5 --rooms 100 --core "$load_core" --pid "$server"
}

# SIPp's own server under the same calls: what answering costs that does nothing.
sipp_uas() {
    local port uas
    port=$(perf/free-port.sh)
    taskset -c "$server_core" sipp -sn uas -i 127.0.0.1 -p "$port" -nostdin >/dev/null 2>&1 &
    uas=$!
    sleep 1
    run "The same against SIPp's own server" "$perf" calls "127.0.0.1:$port" --rate 5000 --seconds 5 --core "$load_core" --pid "$uas"
    kill "$uas" 2>/dev/null || true
    wait "$uas" 2>/dev/null || true
}

sipp_uac() {
    echo "bench: SIPp calls" >&2
    say "" "## SIPp calls at 5,000 a second" "" '```' '$ sipp -sn uac -r 5000 -m 25000'
    taskset -c "$load_core" sipp -sn uac "$sip" -i 127.0.0.1 -r 5000 -m 25000 -l 100000 -nostdin >"$scratch/sipp" 2>&1 || failed=1
    grep -E 'Call Rate|Successful call|Failed call' "$scratch/sipp" | tail -n 3 | tee -a "$results" >&2
    say '```'
}

# Ten minutes of a hundred calls a second among two hundred participants: does memory stay where it was?
keep_memory() {
    local seconds=${MEMORY_SECONDS:-600} every at
    every=$((seconds / 10))
    echo "bench: memory over $seconds s" >&2
    say "" "## Resident memory over $seconds s, a hundred calls a second coming and going" "" '```'
    "$perf" calls "$sip" --rate 100 --hold-ms 5000 --seconds "$seconds" --rooms 50 --core "$load_core" >"$scratch/json" 2>"$scratch/table" &
    local load=$!
    for at in $(seq 0 10); do
        printf '%5d s  %s kB, %s participants\n' $((at * every)) \
            "$(awk '/^VmRSS/ { print $2 }' "/proc/$server/status")" \
            "$(curl -s "http://$http/api/v1/status" | grep -o '"participants":[0-9]*' | head -n 1 | cut -d: -f2)" |
            tee -a "$results" >&2
        [ "$at" = 10 ] || sleep "$every"
    done
    wait "$load" || failed=1
    grep -E 'calls' "$scratch/table" >>"$results"
    say '```'
}

against_peers() {
    run "Against others" "$perf" peers --plenum "$plenum" --server-core "$server_core" --core "$load_core" --seconds 5
}

[ "$(nproc)" -gt 1 ] || { echo "bench.sh: a server and its callers need a processor each" >&2; exit 1; }
sections=("$@")
[ $# -gt 0 ] || sections=(limit rooms capacity hall seventy calls peers memory)
{
    echo "# Results"
    echo
    echo "Written by \`make bench\`; perf/README.md says how to read it."
    echo
    echo "- $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "- $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors, one for the server and one for the callers"
    echo "- $(uname -sr), $(grep -q hypervisor /proc/cpuinfo && echo 'a virtual machine' || echo 'bare metal')"
} >"$results"
capacity=
for section in "${sections[@]}"; do
    case $section in
        limit) limit ;;
        rooms) with_server idle_lateness; with_server of_ten ;;
        capacity) with_server find_capacity ;;
        hall) with_server find_hall ;;
        seventy) with_server seventy_percent ;;
        calls) with_server call_rate; sipp_uas; with_server sipp_uac ;;
        memory) with_server keep_memory ;;
        peers) against_peers ;;
        *) echo "bench.sh: no such section: $section" >&2; exit 2 ;;
    esac
done
exit "$failed"
