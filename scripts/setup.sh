#!/usr/bin/env bash
# Installs the missing packages that building and testing Portico need on Debian. Returns quickly if nothing is missing.
#
#   scripts/setup.sh               for building
#   scripts/setup.sh test          also for tests: programs that they start
#   scripts/setup.sh e2e           also for tests with a control plane
#   scripts/setup.sh caches        as test, and other caches, which make cache-tests compares
#   scripts/setup.sh full          as e2e and caches, for make test-full
#   scripts/setup.sh fuzz          also for fuzzing: a nightly toolchain
#   scripts/setup.sh toolchain     the toolchain only, and nothing that was compiled before
#   scripts/setup.sh image [ARCH]  for an image for amd64 or arm64; the default is the machine's architecture
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

main() {
    install_packages "$@"
    require_rust "$@"
    [ "${1:-}" != fuzz ] || require_nightly
    case "${1:-}" in
        "" | test | e2e | caches | full)
            bash scripts/dependency-cache.sh restore || say "all dependencies are compiled"
            bash scripts/workspace-cache.sh restore || say "the whole workspace is compiled"
            ;;
    esac
}

# Prints the Debian packages of missing programs and files.
missing_packages() {
    command -v cc >/dev/null || echo gcc
    [ -e /usr/include/stdlib.h ] || echo libc6-dev
    command -v make >/dev/null || echo make
    command -v git >/dev/null || echo git
    command -v curl >/dev/null || echo curl
    [ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    case "${1:-}" in
        test | e2e | caches | full) ;;
        fuzz)
            # libFuzzer is written in C++.
            command -v c++ >/dev/null || echo g++
            return 0
            ;;
        image)
            cross_compiler "${2:-}"
            return 0
            ;;
        *) return 0 ;;
    esac
    # Tests start redis-server on their own ports. The package includes redis-cli.
    installed redis-server || echo redis-server
    # A directory, which is not in every PATH.
    [ -x /usr/sbin/slapd ] || echo slapd
    [ -x /usr/sbin/rsyslogd ] || echo rsyslog
    # Servers behind TCP and UDP listeners, with their clients psql and dig. PostgreSQL's are not in PATH.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || installed initdb || echo postgresql
    installed psql || echo postgresql-client
    installed dnsmasq || echo dnsmasq-base
    installed dig || echo bind9-dnsutils
    # Alerts and dashboards are tested with prometheus and promtool, which are in one package.
    installed prometheus && installed promtool || echo prometheus
    # valgrind counts the instructions of the suite `baseline`.
    installed valgrind || echo valgrind
    # Ingresses of ingress-nginx are compared with it.
    installed nginx || echo nginx-light
    # Envoy and Go are Python packages, which are installed into virtual environments.
    python3 -c "import ensurepip, venv" 2>/dev/null || echo python3-venv
    case "$1" in
        caches | full)
            # varnishtest is in the same package.
            installed varnishd || echo varnish
            ;;
    esac
    case "$1" in
        e2e | full) ;;
        *) return 0 ;;
    esac
    # iproute2 is for network namespaces, nftables for Services of type LoadBalancer.
    installed ip || echo iproute2
    installed nft || echo nftables
    # capsh limits the capabilities of Pods.
    installed capsh || echo libcap2-bin
    # A browser, which logs in at an OpenID provider.
    installed chromium || echo chromium
}

# Prints Debian's C cross compiler and library for an architecture; nothing for the machine's own.
cross_compiler() {
    local machine
    case "$1" in
        "" | "$(dpkg --print-architecture)") return 0 ;;
        amd64) machine=x86_64 ;;
        arm64) machine=aarch64 ;;
        *) fail "unknown architecture $1: images are built for amd64 and arm64" ;;
    esac
    command -v "$machine-linux-gnu-gcc" >/dev/null || echo "gcc-${machine//_/-}-linux-gnu"
    [ -e "/usr/$machine-linux-gnu/include/stdlib.h" ] || echo "libc6-dev-$1-cross"
}

# Whether a program is installed, also in folders that only root has in PATH.
installed() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null
}

install_packages() {
    local missing
    missing=$(missing_packages "$@" | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        fail "these Debian packages, or their equivalents on this system, are needed: $missing"
    fi
    if [ "$(id -u)" != 0 ]; then
        fail "these packages are missing, and root must install them: sudo apt-get install $missing"
    fi
    say "Installing $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    # Packages start their services when they are installed, and some of these listen on all addresses. Tests start
    # servers of their own.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    # shellcheck disable=SC2086 # One word per package.
    apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
}

# Fails unless the toolchain of rust-toolchain.toml is installed or can be fetched.
require_rust() {
    local wanted found
    if ! command -v cargo >/dev/null; then
        fail "Rust is missing: install rustup (https://rustup.rs), then run this again"
    fi
    wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
    # If this toolchain is missing, rustup either fetches it now or fails.
    if ! found=$(rustc --version); then
        say "Fetching the Rust toolchain $wanted"
        rustup toolchain install "$wanted" --profile default --no-self-update </dev/null
        found=$(rustc --version)
    fi
    case "$found" in
        "rustc $wanted "*) ;;
        *) fail "Rust $wanted is needed, but $found is installed: run \`rustup toolchain install $wanted\`" ;;
    esac
    [ "${1:-}" != image ] || return 0
    for tool in rustfmt clippy; do
        cargo "${tool/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        say "Adding $tool to the Rust toolchain"
        rustup component add "$tool" </dev/null
    done
}

# Fetches a nightly toolchain, which alone supports sanitizers. Any release of it that compiles Portico is suitable.
require_nightly() {
    rustup run nightly rustc --version >/dev/null 2>&1 && return 0
    say "Fetching a nightly Rust toolchain, for sanitizers"
    rustup toolchain install nightly --profile minimal --no-self-update </dev/null
}

say() {
    echo "setup: $*"
}

fail() {
    echo "setup: $*" >&2
    exit 1
}

main "$@"
