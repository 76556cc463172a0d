#!/usr/bin/env bash
# Fuzzes each target for a bounded time, on whatever toolchain is the default.
#
#   perf/fuzz/run.sh SECONDS [TARGET...]
#
# Without names: all targets. Stable Rust will do: the coverage flags are stable, and
# without a sanitizer (-s none) nothing else is needed; `forbid(unsafe_code)` in the
# crates leaves an address sanitizer nothing to find. Debug assertions are on.
# New inputs go to corpus/TARGET; corpus-seeds are read only. A crash is left in
# artifacts/TARGET and ends the run with status 1.
set -euo pipefail

seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift
cd "$(dirname "$0")"

if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(cargo fuzz list --fuzz-dir .); fi

# Longest input: a packet never exceeds an MTU, a message of a control channel and its XML have no such bound,
# and what is cut and put together has to be longer than their buffers; for the rest, what a header may be.
length_max() {
    case $1 in
        rtp* | rtcp) echo 1600 ;;
        cfw_channel | dist_conf) echo 131072 ;;
        *) echo 8192 ;;
    esac
}

dictionary() {
    case $1 in
        sip_* | refer_*) echo -dict=sip.dict ;;
        sdp | digest | conference_info | dist_conf | cfw_channel) echo "-dict=$1.dict" ;;
        cfw_sdp) echo -dict=sdp.dict ;;
    esac
}

seeds() {
    echo "corpus-seeds/$1"
    # A stream is made of such messages.
    case $1 in sip_stream) echo corpus-seeds/sip_message ;; esac
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "fuzz: building ${#targets[@]} targets"
cargo fuzz build --fuzz-dir . -s none "${targets[@]:0:$(($# == 1))}"

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    echo "fuzz: $target for $seconds s"
    # shellcheck disable=SC2046
    if ! cargo fuzz run --fuzz-dir . -s none "$target" "corpus/$target" $(seeds "$target") -- \
        -max_total_time="$seconds" -max_len="$(length_max "$target")" -timeout=10 \
        -rss_limit_mb=2048 $(dictionary "$target") >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "fuzz: $target failed; the input is in perf/fuzz/artifacts/$target"
        exit 1
    fi
    sed -n "s/^#\([0-9]*\).*DONE *cov: \([0-9]*\).*/fuzz: $target: \1 runs, \2 edges covered/p" "$log"
done
