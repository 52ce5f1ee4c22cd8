#!/usr/bin/env bash
# Benchmarks: Portico compared with nginx, memory during floods, instructions per request, and the cost of plugins,
# edits, routes and consumers.
#
#   scripts/bench.sh [all|compare|floods|instructions|plugins|limits|control|consumers|routes]
#   scripts/bench.sh compare|floods|plugins [options of portico-load, such as --rounds 9]
#   scripts/bench.sh routes [http-routes COUNT LISTENERS | ingresses COUNT]
#   scripts/bench.sh cluster [arguments of `portico-e2e bench`, such as propagation --one-host]
#
# nginx is Debian's package. This script installs it, as root; BENCH_NGINX=off leaves nginx out. Results are comparable
# only within one run. Those of `compare` are also written to target/bench/compare.json.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# The servers run on one core and everything else on another, so that they do not compete.
server_core=${BENCH_SERVER_CORE:-0}
load_core=${BENCH_LOAD_CORE:-1}

main() {
    local what=${1:-all}
    [ $# -eq 0 ] || shift
    case "$what" in
        all | compare | floods | instructions | plugins | limits | control | consumers | routes | cluster) ;;
        *) echo "usage: scripts/bench.sh [all|compare|floods|instructions|plugins|limits|control|consumers|routes|cluster]" >&2 && exit 2 ;;
    esac
    need taskset util-linux
    if [ "$(nproc)" -lt 2 ]; then
        echo "bench: two cores are needed, so that the load generator does not compete with the servers" >&2
        exit 1
    fi
    # Not the whole workspace: portico-e2e enables features of dependencies that a release does not have.
    cargo build --locked --release -p portico -p portico-load --bins --features alloc-jemalloc
    describe_machine
    mkdir -p target/bench
    # The default limit of open files is low, and every request needs two sockets.
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
            routes
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

# Prints the path of the nginx program.
nginx() {
    PATH="$PATH:/usr/sbin" type -P nginx
}

floods() {
    taskset -c "$load_core" target/release/portico-load floods --portico target/release/portico --core "$server_core" "$@"
}

# Measures time, and then instructions, whose number does not depend on other load of the machine.
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
    printf '\nConsumers with a key each, from objects to the served snapshot\n'
    cargo bench --locked --features alloc-jemalloc --bench consumers
}

routes() {
    printf '\nHTTPRoutes and Ingresses with a host each, from objects to the served snapshot\n'
    cargo bench --locked --features alloc-jemalloc --bench routes -- "$@"
}

control() {
    printf '\nEdits and memory by number of routes\n'
    cargo bench --locked --features alloc-jemalloc --bench control
}

# Not part of `all`, because it needs root and builds a control plane the first time.
cluster() {
    cargo build --locked --release -p portico-e2e --bins
    target/release/portico-e2e bench "$@"
}

instructions() {
    need valgrind valgrind
    printf '\nInstructions per request, without the kernel\n'
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
        echo "bench: the machine is busy, so results will be worse and vary more"
    fi
}

# need COMMAND PACKAGE: installs the Debian package if the command is missing.
need() {
    # Not `command -v`, which also finds functions of this script, such as nginx.
    PATH="$PATH:/usr/sbin" type -P "$1" >/dev/null && return
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "bench: $1 is missing: as root, apt-get install $2" >&2
        exit 1
    fi
    echo "bench: installing $2"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    # Debian packages start their services when they are installed, which this prevents.
    [ -e /usr/sbin/policy-rc.d ] || {
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    }
    apt-get install -y -qq --no-install-recommends "$2" </dev/null >/dev/null
}

main "$@"
