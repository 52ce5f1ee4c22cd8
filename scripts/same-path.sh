#!/usr/bin/env bash
# Runs a command in this checkout under a path that is the same for all checkouts: scripts/same-path.sh COMMAND…
#
# What Cargo compiles for the workspace contains the path of the checkout, so only a checkout with the same path can use
# it again: see scripts/workspace-cache.sh. The path exists only in a mount namespace of the command, which needs root.
# Otherwise, if there is a build already, or while another checkout runs a command this way, the command runs at the
# checkout's own path.
set -euo pipefail
cd "$(dirname "$0")/.."

path=/run/portico-checkout
# The exit code of flock if another checkout has the path.
taken=200

main() {
    [ $# -gt 0 ] || fail "usage: scripts/same-path.sh COMMAND…"
    if [ "${1:-}" = --inside ]; then
        shift
        mount --bind "$PWD" "$path"
        cd "$path"
        export PORTICO_SAME_PATH=yes
        exec "$@"
    fi
    # scripts/workspace-cache.sh gives old times to files, which would hide their changes from an older build.
    if [ -e target/debug ]; then
        say "there is a build in target, so the checkout keeps its path"
        exec "$@"
    fi
    if [ "$(id -u)" != 0 ] || ! unshare --mount true 2>/dev/null; then
        say "only root can create a mount namespace, so the checkout keeps its path"
        exec "$@"
    fi
    mkdir -p "$path"
    local code=0
    # Processes that outlive the command do not keep the path.
    flock --nonblock --close --conflict-exit-code "$taken" "$path.lock" \
        unshare --mount bash scripts/same-path.sh --inside "$@" || code=$?
    if [ "$code" = "$taken" ]; then
        say "another checkout is running at $path, so this one keeps its path"
        exec "$@"
    fi
    exit "$code"
}

say() {
    echo "same-path: $*"
}

fail() {
    echo "same-path: $*" >&2
    exit 2
}

main "$@"
