#!/usr/bin/env bash
# Runs a command whose Rust compiler is in huge pages: scripts/huge-pages.sh COMMAND…
#
# On virtual machines without nested page tables in hardware, a TLB miss costs microseconds instead of nanoseconds. The
# code and the heap of rustc are hundreds of megabytes, so in pages of 4 KiB it does little but wait there. On such a
# machine, the crate regex-syntax took 93 s to compile, 49 s with the heap in huge pages, and 20 s with the code in them
# too.
#
# The toolchain is copied into memory in a mount namespace of its own, of which nothing is left after the command. This
# needs root and 4 GiB of available memory. Otherwise, only the heap is in huge pages. The copies are read-only, because
# a component that rustup installed there would be lost.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# For rustc's allocator, which also keeps what it has freed, because new pages are slow too. Portico's own allocator
# reads a variable of another name.
export MALLOC_CONF="thp:always,metadata_thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"

main() {
    [ $# -gt 0 ] || fail "usage: scripts/huge-pages.sh COMMAND…"
    if [ "${PORTICO_IN_NAMESPACE:-}" = yes ]; then
        unset PORTICO_IN_NAMESPACE
        copy_toolchain || say "the code of the compiler stays in small pages"
        exec "$@"
    fi
    if [ "$(id -u)" != 0 ] || ! unshare --mount true 2>/dev/null; then
        say "only root can create a mount namespace, so the code of the compiler stays in small pages"
        exec "$@"
    fi
    if [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -lt $((4 * 1024 * 1024)) ]; then
        say "less than 4 GiB of memory are available, so the code of the compiler stays in small pages"
        exec "$@"
    fi
    PORTICO_IN_NAMESPACE=yes exec unshare --mount bash scripts/huge-pages.sh "$@"
}

# Hides the programs and libraries of the toolchain behind copies in memory.
copy_toolchain() {
    local toolchain memory folder
    toolchain=$(rustc --print sysroot) || return 1
    memory=$(mktemp -d) || return 1
    mount -t tmpfs -o huge=always,size=2g,mode=0755 tmpfs "$memory" || return 1
    for folder in bin lib; do
        cp --archive "$toolchain/$folder" "$memory/" || return 1
    done
    for folder in bin lib; do
        mount --bind --options ro "$memory/$folder" "$toolchain/$folder" || return 1
    done
    # The copies stay mounted over the toolchain.
    umount "$memory" && rmdir "$memory"
}

say() {
    echo "huge-pages: $*"
}

fail() {
    echo "huge-pages: $*" >&2
    exit 2
}

main "$@"
