#!/usr/bin/env bash
# Prints a port such that it and the two above are free for UDP and TCP, searched upwards
# from a random one, so that two who ask at once rarely get the same. All lie below the
# server's RTP range (16384) and below what the kernel hands out itself.
set -euo pipefail

for ((port = 10000 + RANDOM % 1000 * 4; port < 16380; port += 4)); do
    printf -v taken ':(%04X|%04X|%04X) ' "$port" $((port + 1)) $((port + 2))
    if ! cat /proc/net/{udp,udp6,tcp,tcp6} 2>/dev/null | grep -qE "$taken"; then
        echo "$port"
        exit 0
    fi
done
echo "free-port.sh: no free port" >&2
exit 1
