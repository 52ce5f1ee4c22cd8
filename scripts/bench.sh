#!/usr/bin/env bash
# Measures: Portico beside nginx, memory during floods, instructions per request, what plugins cost, how long an edit takes and
# what routes and consumers cost.
#
#   scripts/bench.sh [all|compare|floods|instructions|plugins|limits|control|consumers]
#   scripts/bench.sh compare|floods|plugins [their options, such as --rounds 9]
#   scripts/bench.sh cluster [what and options of `portico-e2e bench`, such as propagation --one-host]
#
# nginx is Debian's and is installed here only, as root; BENCH_NGINX=off leaves it out. Nothing here is a test: figures of
# one run compare with each other and with nothing else. Figures also go to target/bench/compare.json.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# The servers get one core and everything else another, so that neither is in the other's way.
server_core=${BENCH_SERVER_CORE:-0}
load_core=${BENCH_LOAD_CORE:-1}

main() {
    local what=${1:-all}
    [ $# -eq 0 ] || shift
    case "$what" in
        all | compare | floods | instructions | plugins | limits | control | consumers | cluster) ;;
        *) echo "usage: scripts/bench.sh [all|compare|floods|instructions|plugins|limits|control|consumers|cluster]" >&2 && exit 2 ;;
    esac
    need taskset util-linux
    if [ "$(nproc)" -lt 2 ]; then
        echo "bench: one core is not enough: the load would take the time of what it measures" >&2
        exit 1
    fi
    # As it is released.
    cargo build --locked --release --workspace --bins --features alloc-jemalloc
    describe_machine
    mkdir -p target/bench
    # A machine allows few open files by default, and every request takes two sockets.
    ulimit -n "$(ulimit -H -n)"
    case "$what" in
        all)
            compare "$@"
            floods
            instructions
            plugins
            limits
            control
            consumers
            ;;
        *) "$what" "$@" ;;
    esac
}

compare() {
    local arguments=(--portico target/release/portico --core "$server_core" --json target/bench/compare.json)
    if [ "${BENCH_NGINX:-on}" != off ]; then
        need nginx nginx-light
        arguments+=(--nginx "$(nginx)")
    fi
    taskset -c "$load_core" target/release/portico-load compare "${arguments[@]}" "$@"
}

nginx() {
    PATH="$PATH:/usr/sbin" type -P nginx
}

floods() {
    taskset -c "$load_core" target/release/portico-load floods --portico target/release/portico --core "$server_core" "$@"
}

# Time, and then what does not depend on the machine.
plugins() {
    local arguments=(plugins --portico target/release/portico --core "$server_core")
    taskset -c "$load_core" target/release/portico-load "${arguments[@]}" "$@"
    need valgrind valgrind
    taskset -c "$load_core" target/release/portico-load "${arguments[@]}" "$@" --instructions
}

limits() {
    printf '\nDecisions of rate-limiting on one core and on two\n'
    cargo bench --locked --features alloc-jemalloc --bench limits
}

consumers() {
    printf '\nConsumers with a key each, from objects to the snapshot that is served\n'
    cargo bench --locked --features alloc-jemalloc --bench consumers
}

control() {
    printf '\nEdits and memory by number of routes\n'
    cargo bench --locked --features alloc-jemalloc --bench control
}

# Not among `all`: it takes root, and a control plane that is built the first time.
cluster() {
    target/release/portico-e2e bench "$@"
}

instructions() {
    need valgrind valgrind
    printf '\nInstructions per request, without those of the kernel\n'
    local arguments=(--portico target/release/portico)
    if [ "${BENCH_NGINX:-on}" != off ]; then
        need nginx nginx-light
        arguments+=(--nginx "$(nginx)")
    fi
    taskset -c "$load_core" target/release/portico-load instructions "${arguments[@]}"
}

describe_machine() {
    echo "bench: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
        "load average $(cut -d' ' -f1-3 /proc/loadavg), Linux $(uname -r), $(rustc --version)"
    if awk '{ exit !($1 > 0.5) }' /proc/loadavg; then
        echo "bench: the machine is doing something else too; figures will be worse and less steady than they could be"
    fi
}

# need COMMAND PACKAGE: installs the Debian package if the command is missing.
need() {
    PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null && return
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "bench: $1 is missing: as root, apt-get install $2" >&2
        exit 1
    fi
    echo "bench: installing $2"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    # A Debian package starts its service when it is installed; this one is not to serve anything here.
    [ -e /usr/sbin/policy-rc.d ] || {
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    }
    apt-get install -y -qq --no-install-recommends "$2" </dev/null >/dev/null
}

main "$@"
