#!/usr/bin/env bash
# Installs what a fresh Debian lacks to build and test Portico. Does nothing, quickly, where nothing is missing.
#
#   scripts/setup.sh               what building takes
#   scripts/setup.sh test          that, and the servers that tests talk to
#   scripts/setup.sh e2e           that, and what a control plane of our own takes
#   scripts/setup.sh image [ARCH]  what an image for amd64 or arm64 takes; for the machine's own if none is named
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

main() {
    install_packages "$@"
    require_rust "$@"
}

# Pairs of "what must be there" and "the Debian package that brings it".
missing_packages() {
    command -v cc >/dev/null || echo gcc
    [ -e /usr/include/stdlib.h ] || echo libc6-dev
    command -v make >/dev/null || echo make
    command -v git >/dev/null || echo git
    command -v curl >/dev/null || echo curl
    [ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    case "${1:-}" in
        test | e2e) ;;
        image)
            cross_compiler "${2:-}"
            return 0
            ;;
        *) return 0 ;;
    esac
    # Started by tests on ports of their own. The package brings redis-cli along.
    installed redis-server || echo redis-server
    # Alerts and dashboards are held to it, and its promtool.
    installed prometheus && installed promtool || echo prometheus
    [ "$1" = e2e ] || return 0
    # Network namespaces, the balancer of LoadBalancer Services, and the Python environment that Go comes in.
    installed ip || echo iproute2
    installed nft || echo nftables
    # What a Pod's program may do.
    installed capsh || echo libcap2-bin
    python3 -c "import ensurepip, venv" 2>/dev/null || echo python3-venv
}

# Debian's C compiler and library for an architecture, by the name that images use; nothing for the machine's own.
cross_compiler() {
    local machine
    case "$1" in
        "" | "$(dpkg --print-architecture)") return 0 ;;
        amd64) machine=x86_64 ;;
        arm64) machine=aarch64 ;;
        *) fail "there are images for amd64 and arm64, and not for $1" ;;
    esac
    command -v "$machine-linux-gnu-gcc" >/dev/null || echo "gcc-${machine//_/-}-linux-gnu"
    [ -e "/usr/$machine-linux-gnu/include/stdlib.h" ] || echo "libc6-dev-$1-cross"
}

# A program, also where users other than root do not look.
installed() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null
}

install_packages() {
    local missing
    missing=$(missing_packages "$@" | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        fail "these Debian packages, or what they are called on this system, are needed: $missing"
    fi
    if [ "$(id -u)" != 0 ]; then
        fail "these packages are missing and only root can install them: sudo apt-get install $missing"
    fi
    say "Installing $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    # shellcheck disable=SC2086 # One word per package.
    apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
}

# rustup reads rust-toolchain.toml and fetches that toolchain at its first use.
require_rust() {
    local wanted found
    if ! command -v cargo >/dev/null; then
        fail "Rust is missing: install rustup (https://rustup.rs), then run this again"
    fi
    wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
    # Where this toolchain is not there yet, rustup may fetch it now or ask for it.
    if ! found=$(rustc --version); then
        say "Fetching the Rust toolchain $wanted"
        rustup toolchain install "$wanted" --profile default --no-self-update </dev/null
        found=$(rustc --version)
    fi
    case "$found" in
        "rustc $wanted "*) ;;
        *) fail "Rust $wanted is needed and this is $found: run \`rustup toolchain install $wanted\`" ;;
    esac
    [ "${1:-}" != image ] || return 0
    for tool in rustfmt clippy; do
        cargo "${tool/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        say "Adding $tool to the Rust toolchain"
        rustup component add "$tool" </dev/null
    done
}

say() {
    echo "setup: $*"
}

fail() {
    echo "setup: $*" >&2
    exit 1
}

main "$@"
