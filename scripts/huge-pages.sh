#!/usr/bin/env bash
# Runs a command whose compilers and servers are in huge pages: scripts/huge-pages.sh [--target] COMMAND…
#
# On virtual machines without nested page tables in hardware, a TLB miss costs microseconds instead of nanoseconds, and
# the first use of a page tens of them. The code and the heap of rustc and of the API server are hundreds of megabytes,
# so in pages of 4 KiB they do little but wait there. On such a machine, the crate regex-syntax took 93 s to compile,
# 49 s with the heap in huge pages, and 20 s with the code in them too; a test with an API server took 513 s with the
# heap in huge pages, and 225 s with the code in them too.
#
# During the command, the kernel uses huge pages for the memory of all programs. The toolchains and the programs of the
# control plane that are in the cache are copied into memory, in a mount namespace of its own, of which nothing is left
# after the command. The copies are read-only, because what a command installed there would be lost. This needs root and
# 4 GiB of available memory. Otherwise, only the heap of rustc is in huge pages.
#
#   --target  puts the folder `target` into memory too, if 16 GiB are available. It is empty when the command starts,
#             and what was written there is lost when the command ends.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# For rustc's allocator, which also keeps what it has freed, because new pages are slow too. Portico's own allocator
# reads a variable of another name.
export MALLOC_CONF="thp:always,metadata_thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"

setting=/sys/kernel/mm/transparent_hugepage/enabled

main() {
    local target=""
    if [ "${1:-}" = --target ]; then
        target=yes
        shift
    fi
    [ $# -gt 0 ] || fail "usage: scripts/huge-pages.sh [--target] COMMAND…"
    if [ "${PORTICO_IN_NAMESPACE:-}" = yes ]; then
        unset PORTICO_IN_NAMESPACE
        copy_programs || say "some programs stay in small pages"
        if [ -n "$target" ]; then mount_target; fi
        exec "$@"
    fi
    if [ "$(id -u)" != 0 ] || ! unshare --mount true 2>/dev/null; then
        say "only root can create a mount namespace, so the code of programs stays in small pages"
        exec "$@"
    fi
    if [ "$(available)" -lt 4 ]; then
        say "less than 4 GiB of memory are available, so the code of programs stays in small pages"
        exec "$@"
    fi
    use_huge_pages
    PORTICO_IN_NAMESPACE=yes unshare --mount bash scripts/huge-pages.sh ${target:+--target} "$@"
}

# Lets the kernel use huge pages for the memory of every program until this script ends.
use_huge_pages() {
    local before
    before=$(sed -n 's/.*\[\(.*\)\].*/\1/p' "$setting" 2>/dev/null) || return 0
    if [ -n "$before" ] && echo always 2>/dev/null >"$setting"; then
        # shellcheck disable=SC2064 # The setting of now.
        trap "echo $before >$setting" EXIT
    fi
}

# Hides the programs and libraries of the toolchains, and the programs of the control plane, behind copies in memory.
copy_programs() {
    local toolchain compiler cache memory folder folders=()
    toolchain=$(rustc --print sysroot) || return 1
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/portico/e2e
    folders=("$toolchain/bin" "$toolchain/lib")
    # For the C code of dependencies.
    compiler=$(cc -print-prog-name=cc1 2>/dev/null) || compiler=""
    [ ! -x "$compiler" ] || folders+=("$(dirname "$compiler")")
    for folder in "$cache"/{etcd,kubernetes,helm,conformance,echo-basic}-*; do
        [ ! -d "$folder" ] || folders+=("$folder")
    done
    memory=$(mktemp -d) || return 1
    mount -t tmpfs -o huge=always,size=3g,mode=0755 tmpfs "$memory" || return 1
    for folder in "${folders[@]}"; do
        mkdir -p "$memory$folder" && cp --archive "$folder/." "$memory$folder/" || return 1
    done
    for folder in "${folders[@]}"; do
        mount --bind --options ro "$memory$folder" "$folder" || return 1
    done
    # The copies stay mounted over the originals.
    umount "$memory" && rmdir "$memory"
}

mount_target() {
    if [ "$(available)" -lt 16 ]; then
        say "less than 16 GiB of memory are available, so target stays on the disk"
        return
    fi
    mkdir -p target
    # With huge=always, small files would take a huge page each.
    mount -t tmpfs -o huge=within_size,size=12g,mode=0755 tmpfs target || say "target stays on the disk"
}

# Prints the available memory in GiB.
available() {
    awk '/^MemAvailable:/ { print int($2 / 1024 / 1024) }' /proc/meminfo
}

say() {
    echo "huge-pages: $*"
}

fail() {
    echo "huge-pages: $*" >&2
    exit 2
}

main "$@"
