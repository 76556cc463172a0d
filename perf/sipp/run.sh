#!/usr/bin/env bash
# Runs SIPp scenarios against a server and prints one line for each.
#
#   perf/sipp/run.sh [HOST:PORT [SCENARIO...]]
#
# Without names: every scenario that suits a server on its defaults, in about 35 s.
# Exits 1 when any fails and shows what SIPp said. Everything is bounded: each run
# has a number of calls, a limit per answer and a limit for the whole.
# SIPP_LOCAL_IP (127.0.0.1) is the address SIPp binds and advertises.
set -euo pipefail

target=${1:-127.0.0.1:5060}
shift || true
local_ip=${SIPP_LOCAL_IP:-127.0.0.1}
cd "$(dirname "$0")"

command -v sipp >/dev/null || { echo "run.sh: sipp is missing; perf/setup.sh sipp installs it" >&2; exit 2; }

logs=$(mktemp -d)
background=()
finish() {
    for pid in "${background[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$logs"
}
trap finish EXIT

# "exec" in a subshell that is SIPp and nothing else, so that its pid is SIPp's pid.
exec=
# sipp_run NAME FILE DESTINATION OPTIONS...: logs go to $logs/NAME.*
sipp_run() {
    local name=$1 file=$2 destination=$3
    shift 3
    $exec sipp "$destination" -sf "$file" -i "$local_ip" -s "$name" -m 1 \
        -nostdin -recv_timeout 5000 -timeout 60 -timeout_error \
        -trace_err -error_file "$logs/$name.err" \
        -trace_msg -message_file "$logs/$name.msg" \
        "$@" >"$logs/$name.out" 2>&1 </dev/null
}

# Two callers of one room, who must hear each other. SIPp sends RTP and never reads
# it, so what the room sent them stays in the receive queue of the media socket.
call_rtp() {
    local port heard=no sipp_pid
    port=$(../free-port.sh)
    (exec=exec; sipp_run call_rtp call_rtp.xml "$target" -m 2 -r 10 -mp "$port") &
    sipp_pid=$!
    while kill -0 "$sipp_pid" 2>/dev/null; do
        if awk -v local=":$(printf %04X "$port")\$" \
            '$2 ~ local && $5 !~ /:00000000$/ { queued = 1 } END { exit !queued }' /proc/net/udp; then
            heard=yes
        fi
        sleep 0.1
    done
    wait "$sipp_pid" || return 1
    [ "$heard" = yes ] || { echo "the room sent no RTP" >"$logs/call_rtp.err"; return 1; }
}

# A redirecting server in front, so that the call arrives by way of a 302.
redirect() {
    local port
    port=$(../free-port.sh)
    (exec=exec; sipp_run uas_302 uas_302.xml "" -p "$port" -key target "$target") &
    background+=($!)
    sleep 0.5
    sipp_run redirect redirect.xml "$local_ip:$port"
}

scenario() {
    case $1 in
        call_rtp | redirect) "$1" ;;
        call_tcp) sipp_run call_tcp call.xml "$target" -t t1 ;;
        rooms) sipp_run rooms rooms.xml "$target" -m 20 -r 20 -d 1000 ;;
        never_ack) sipp_run never_ack never_ack.xml "$target" -nr ;;
        *) sipp_run "$1" "$1.xml" "$target" ;;
    esac
}

failures=0
report() {
    local name=$1 status=$2
    if [ "$status" = 0 ]; then
        echo "ok   $name"
        return
    fi
    failures=$((failures + 1))
    echo "FAIL $name"
    # Without errors of its own SIPp failed to start, and said so on its output.
    [ -s "$logs/$name.err" ] || cp "$logs/$name.out" "$logs/$name.err"
    for log in err msg; do
        [ -s "$logs/$name.$log" ] || continue
        echo "     --- $log"
        tail -n 60 "$logs/$name.$log" | tr -d '\r' | sed 's/^/     /'
    done
}

if [ $# -gt 0 ]; then
    names=("$@")
else
    names=(call call_tcp call_rtp rooms hold codec_change offerless cancel_late options
        redirect unknown_method wrong_codec bye_unknown never_ack)
fi

# never_ack takes 32 s by the standard, so it runs beside the others.
patient=
for name in "${names[@]}"; do
    if [ "$name" = never_ack ] && [ ${#names[@]} -gt 1 ]; then
        (exec=exec; scenario never_ack) &
        patient=$!
        background+=("$patient")
    fi
done
for name in "${names[@]}"; do
    [ "$name" = never_ack ] && [ -n "$patient" ] && continue
    status=0
    scenario "$name" || status=$?
    report "$name" "$status"
done
if [ -n "$patient" ]; then
    status=0
    wait "$patient" || status=$?
    report never_ack "$status"
fi

echo "${#names[@]} scenarios, $failures failed"
[ "$failures" = 0 ]
