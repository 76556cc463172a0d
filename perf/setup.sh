#!/usr/bin/env bash
# Installs what a bare Debian machine lacks, and only that.
#
#   perf/setup.sh TOOL...
#
# A tool that is already on the path is left alone. The rest comes from apt-get
# (with sudo when we are not root), rustup components and `cargo install`.
set -euo pipefail

package_of() {
    case $1 in
        sipp) echo sip-tester ;;
        baresip) echo baresip-core ;;
        linphonec) echo linphone-cli ;;
        kamailio) echo kamailio ;;
        c++) echo g++ ;;
        cmake) echo cmake ;;
        kill) echo procps ;;
        xmllint) echo libxml2-utils ;;
        ip) echo iproute2 ;;
        curl) echo curl ;;
        janus) echo janus ;;
        valgrind) echo valgrind ;;
        *) echo "setup.sh: no such tool: $1" >&2; exit 2 ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env "$@"
    elif command -v sudo >/dev/null; then
        sudo env "$@"
    else
        echo "setup.sh: neither root nor sudo; install by hand: ${*: -1}" >&2
        exit 1
    fi
}

packages=()
for tool in "$@"; do
    case $tool in
        rustfmt | clippy)
            name=${tool/rustfmt/fmt}
            cargo "$name" --version >/dev/null 2>&1 && continue
            echo "setup: rustup component add $tool"
            rustup component add "$tool"
            ;;
        cargo-fuzz)
            command -v cargo-fuzz >/dev/null && continue
            echo "setup: cargo install cargo-fuzz --locked"
            cargo install cargo-fuzz --locked
            ;;
        *)
            package=$(package_of "$tool")
            # Servers live in /usr/sbin, which is not on everybody's path.
            PATH=$PATH:/usr/sbin type -P "$tool" >/dev/null || packages+=("$package")
            ;;
    esac
done

[ ${#packages[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null; then
    # No Debian: what cannot do without them says so itself.
    echo "setup: no apt-get here; missing: ${packages[*]}" >&2
    exit 0
fi
echo "setup: apt-get install ${packages[*]}"
as_root DEBIAN_FRONTEND=noninteractive apt-get update -qq
as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null

# Debian starts what it installs. Tests start a Kamailio of their own, and port 5060 is Plenum's here.
case " ${packages[*]} " in
    *" kamailio "*) ! command -v systemctl >/dev/null || as_root systemctl disable --now kamailio || true ;;
esac
