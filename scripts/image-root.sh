#!/usr/bin/env bash
# Builds target/image-root: everything the container image holds, as a folder. A static binary needs no base image, so
# there is no shell, no package and no library in it that could be out of date.
#
#   scripts/image-root.sh                  for the machine's own architecture
#   scripts/image-root.sh amd64|arm64      for that one, by the names that images use; into target/image-root-arm64 where it
#                                          is not the machine's own
#
# The same sources, toolchain and CA roots give the same bytes in every folder: the last line is the checksum of all.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

user=65532 # The number that images without a distribution use for "nonroot".
roots=/etc/ssl/certs/ca-certificates.crt

main() {
    local own architecture target root binary tools=""
    own=$(architecture_of "$(rustc -vV | sed -n 's/^host: //p')")
    architecture=${1:-$own}
    target=$(target_of "$architecture")
    root=target/image-root
    if [ "$architecture" != "$own" ]; then
        root=target/image-root-$architecture
        tools=${target%%-*}-linux-gnu-
        prepare_cross "$architecture" "$target" "$tools"
    fi

    build "$target"
    binary="target/$target/release/portico"
    if readelf --program-headers "$binary" | grep -q INTERP; then
        fail "$binary asks for a dynamic loader, so it would not start in an empty image"
    fi
    fill "$root" "$binary" "${tools}strip"
    forbid_paths "$root/usr/bin/portico"

    echo "image-root: $root ($architecture) holds $(du -sh "$root" | cut -f1):"
    (cd "$root" && find . -type f | sort | sed 's|^\./|  /|')
    echo "image-root: sha256 $(checksum "$root")"
}

# Of a Rust target, or nothing that could go into an image.
architecture_of() {
    case "$1" in
        x86_64-unknown-linux-gnu) echo amd64 ;;
        aarch64-unknown-linux-gnu) echo arm64 ;;
        *) fail "an image needs a Linux binary, and this toolchain builds for $1" ;;
    esac
}

target_of() {
    case "$1" in
        amd64) echo x86_64-unknown-linux-gnu ;;
        arm64) echo aarch64-unknown-linux-gnu ;;
        *) fail "there are images for amd64 and arm64, and not for $1" ;;
    esac
}

# What building for another architecture takes: its part of the Rust toolchain, and a C compiler for it.
prepare_cross() {
    local architecture=$1 target=$2 tools=$3 variable
    if ! command -v "${tools}gcc" >/dev/null; then
        fail "building for $architecture needs ${tools}gcc: apt-get install gcc-${tools%-} libc6-dev-$architecture-cross"
    fi
    rustup target list --installed | grep -qx "$target" || rustup target add "$target" </dev/null
    variable=${target//-/_}
    export "CARGO_TARGET_${variable^^}_LINKER=${tools}gcc"
}

build() {
    local target=$1 cargo_home rust_home maps
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    rust_home=$(rustc --print sysroot)
    # Where things lie on this machine must not show in the program.
    maps=("$PWD=/portico" "$cargo_home=/cargo" "$rust_home=/rust")
    # With --target, the flags hold for the program and not for build scripts and macros, which cannot be static.
    RUSTFLAGS="-C target-feature=+crt-static ${maps[*]/#/--remap-path-prefix=}"
    export RUSTFLAGS
    export "CFLAGS_${target//-/_}=${maps[*]/#/-ffile-prefix-map=}"
    # What C code calls the time of its build.
    export SOURCE_DATE_EPOCH=0
    # Kernels for arm64 have pages of 4, 16 or 64 KiB; jemalloc works with those up to the size that it is built for.
    case "$target" in aarch64-*) export JEMALLOC_SYS_WITH_LG_PAGE=16 ;; esac
    cargo build --locked --release --bin portico --features alloc-jemalloc --target "$target"
}

fill() {
    local root=$1 binary=$2 strip=$3
    rm -rf "$root"
    install -d -m 0755 "$root" "$root/etc" "$root/etc/ssl" "$root/etc/ssl/certs" "$root/usr" "$root/usr/bin"
    install -d -m 1777 "$root/tmp"
    install -m 0755 "$binary" "$root/usr/bin/portico"
    # Three quarters of it are line numbers. Names of functions stay, for backtraces.
    "$strip" --strip-debug "$root/usr/bin/portico"
    install -m 0644 "$roots" "$root/etc/ssl/certs/ca-certificates.crt"
    install -m 0644 LICENSE "$root/LICENSE"
    echo "portico:x:$user:$user:portico:/:/sbin/nologin" >"$root/etc/passwd"
    echo "portico:x:$user:" >"$root/etc/group"
    chmod 0644 "$root/etc/passwd" "$root/etc/group"
}

# A path of this machine in the program makes it another program on the next machine.
forbid_paths() {
    local path pattern
    for path in "$PWD" "${CARGO_HOME:-$HOME/.cargo}"; do
        pattern=$(LC_ALL=C sed 's/[^[:alnum:]/_^-]/[&]/g; s/\^/\\^/g' <<<"$path")
        # A folder of one name, such as /app, is the beginning of innocent words, such as /apps. A longer one is not, and counts
        # whatever follows: strings of a program stand side by side.
        if [[ $path != /*/* ]]; then pattern+='([^[:alnum:]_.-]|$)'; fi
        if LC_ALL=C grep -aqE -e "$pattern" "$1"; then
            echo "image-root: $1 names $path, so that it would differ where it is built elsewhere; for example:" >&2
            LC_ALL=C strings -n 4 "$1" | LC_ALL=C grep -E -e "$pattern" | head -3 >&2
            exit 1
        fi
    done
}

# Of names, modes and contents, whenever and by whomever they were written.
checksum() {
    (cd "$1" && find . -print0 | LC_ALL=C sort -z |
        tar --null --no-recursion --files-from - --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 --create) |
        sha256sum | cut -d ' ' -f 1
}

fail() {
    echo "image-root: $*" >&2
    exit 1
}

main "$@"
