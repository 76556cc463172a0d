#!/usr/bin/env bash
# Instructions of every audio kernel at every level, one 20 ms frame at 8 kHz, as
# valgrind's callgrind counts them.
#
#   perf/kernels.sh [KERNEL...]        # or: make kernels
#
# The same build gives the same numbers on each run, whatever else the machine does, and
# times do not. What an instruction costs is not in them; `cargo bench -p mixer-simd`
# measures time. The call of the kernel, 25 to 31 instructions, is counted with it.
# Levels that valgrind does not play (3.19 knows no AVX-512) are left out and named.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "kernels.sh: valgrind is missing; perf/setup.sh valgrind installs it" >&2; exit 2; }
cargo build --quiet --release -p mixer-simd --example instructions
binary=${CARGO_TARGET_DIR:-target}/release/examples/instructions

log=$(mktemp)
trap 'rm -f "$log"' EXIT
not_here=3

# count KERNEL LEVEL: instructions, frames and samples in a frame.
count() {
    local run status=0 collected
    run=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect='instructions::one_frame*' "$binary" "$1" "$2" 2>"$log") || status=$?
    [ "$status" = 0 ] || return "$status"
    collected=$(sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p' "$log")
    # Nothing counted would mean that the function got another name.
    [ "${collected:-0}" -gt 0 ] || { cat "$log" >&2; return 1; }
    echo "$collected $run"
}

printf '%-12s %-7s %12s %18s %10s\n' kernel level instructions samples/instr. 'to scalar'
missing=
scalar=
while read -r kernel level; do
    [ $# = 0 ] || [[ " $* " = *" $kernel "* ]] || continue
    status=0
    counted=$(count "$kernel" "$level") || status=$?
    if [ "$status" = "$not_here" ]; then
        [[ " $missing " = *" $level "* ]] || missing="$missing $level"
        continue
    fi
    if [ "$status" != 0 ]; then
        cat "$log" >&2
        echo "kernels.sh: counting $kernel at $level failed" >&2
        exit 1
    fi
    read -r collected frames len <<<"$counted"
    if [ "$level" = scalar ]; then scalar=$collected; fi
    awk -v kernel="$kernel" -v level="$level" -v collected="$collected" -v frames="$frames" \
        -v len="$len" -v scalar="$scalar" 'BEGIN {
            each = collected / frames
            printf "%-12s %-7s %12.0f %18.2f %9.1fx\n", kernel, level, each, len / each, scalar / collected
        }'
done < <("$binary")
[ -n "$scalar" ] || { echo "kernels.sh: no such kernel: $*" >&2; exit 2; }
[ -z "$missing" ] || echo "not counted, valgrind $(valgrind --version | sed 's/valgrind-//') does not play it:$missing"
