#!/usr/bin/env bash
# Builds target/image-root, the root folder of the container image. The binary is static and needs no base image, so the
# image has no shell, package or library that could be outdated.
#
#   scripts/image-root.sh                  for the machine's architecture
#   scripts/image-root.sh amd64|arm64      for this architecture; into target/image-root-ARCH if it is not the machine's
#   scripts/image-root.sh --for-tests      for the machine's architecture, with the dependencies of a debug build and
#                                          little optimization; into target/image-root-test
#
# The same sources, toolchain and CA roots give the same bytes in every folder, except for tests. The last line of the
# output is the checksum of all files.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

user=65532 # The user ID of "nonroot" in distroless images.
roots=/etc/ssl/certs/ca-certificates.crt

main() {
    local own architecture target root binary tools=""
    own=$(architecture_of "$(rustc -vV | sed -n 's/^host: //p')")
    if [ "${1:-}" = --for-tests ]; then
        architecture=$own
        root=target/image-root-test
        binary=target/image-test/debug/portico
        if ! bash scripts/image-cache.sh restore "$binary"; then
            build_for_tests
            bash scripts/image-cache.sh save "$binary" || echo "image-root: the program is not kept for other checkouts"
        fi
    else
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
    fi
    if readelf --program-headers "$binary" | grep -q INTERP; then
        fail "$binary needs a dynamic loader, so it would not start in an empty image"
    fi
    fill "$root" "$binary" "${tools}strip"
    [ "${1:-}" = --for-tests ] || forbid_paths "$root/usr/bin/portico"

    echo "image-root: $root ($architecture) holds $(du -sh "$root" | cut -f1):"
    (cd "$root" && find . -type f | sort | sed 's|^\./|  /|')
    echo "image-root: sha256 $(checksum "$root")"
}

# Prints the image architecture of a Rust target. Fails if images are not built for the target.
architecture_of() {
    case "$1" in
        x86_64-unknown-linux-gnu) echo amd64 ;;
        aarch64-unknown-linux-gnu) echo arm64 ;;
        *) fail "images need a Linux binary for amd64 or arm64, but this toolchain builds for $1" ;;
    esac
}

target_of() {
    case "$1" in
        amd64) echo x86_64-unknown-linux-gnu ;;
        arm64) echo aarch64-unknown-linux-gnu ;;
        *) fail "unknown architecture $1: images are built for amd64 and arm64" ;;
    esac
}

# Prepares a build for another architecture: its Rust target, and a C cross compiler.
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
    local target=$1 cargo_home rust_home maps host
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    rust_home=$(rustc --print sysroot)
    # Paths of this machine must not be in the program.
    maps=("$PWD=/portico" "$cargo_home=/cargo" "$rust_home=/rust")
    # With --target, the flags apply to the program, but not to build scripts and macros, which cannot be static.
    RUSTFLAGS="-C target-feature=+crt-static ${maps[*]/#/--remap-path-prefix=}"
    export RUSTFLAGS
    export "CFLAGS_${target//-/_}=${maps[*]/#/-ffile-prefix-map=}"
    # C code that contains its build time contains 1970-01-01 instead.
    export SOURCE_DATE_EPOCH=0
    # Kernels for arm64 have pages of 4, 16 or 64 KiB; jemalloc supports pages up to the size that it is built for.
    case "$target" in aarch64-*) export JEMALLOC_SYS_WITH_LG_PAGE=16 ;; esac
    # Only LLVM's linker, which the compiler uses on x86-64, can place functions in a given order.
    host=$(rustc -vV | sed -n 's/^host: //p')
    if [ "$target" = x86_64-unknown-linux-gnu ] && [ "$host" = "$target" ]; then
        export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=$PWD/scripts/ordered-linker.sh
    fi
    cargo build --locked --release --bin portico --features alloc-jemalloc --target "$target"
}

# Builds the program with the allocator and the linking of a release. Only the workspace's crates are compiled for it:
# dependencies are those of a debug build, which are in the same build folder, and contain paths of this machine. The
# program has a target folder of its own, so that it does not replace the one of a debug build.
build_for_tests() {
    local manifest name settings=()
    for manifest in Cargo.toml crates/*/Cargo.toml; do
        name=$(sed -n '/^name = /{s/^name = "\(.*\)"$/\1/p;q}' "$manifest")
        settings+=(
            --config "profile.dev.package.$name.opt-level=1"
            --config "profile.dev.package.$name.debug=false"
            --config "profile.dev.package.$name.debug-assertions=false"
            --config "profile.dev.package.$name.overflow-checks=false"
        )
    done
    RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/image-compiler.sh CARGO_BUILD_BUILD_DIR=target CARGO_INCREMENTAL=0 \
        cargo build --locked --workspace --bin portico --features portico/alloc-jemalloc \
        --target-dir target/image-test "${settings[@]}"
}

fill() {
    local root=$1 binary=$2 strip=$3
    rm -rf "$root"
    install -d -m 0755 "$root" "$root/etc" "$root/etc/ssl" "$root/etc/ssl/certs" "$root/usr" "$root/usr/bin"
    install -d -m 1777 "$root/tmp"
    install -m 0755 "$binary" "$root/usr/bin/portico"
    # Removes the line numbers of the standard library, of C code and of builds for tests, but keeps the names of
    # functions for backtraces.
    "$strip" --strip-debug "$root/usr/bin/portico"
    install -m 0644 "$roots" "$root/etc/ssl/certs/ca-certificates.crt"
    install -m 0644 LICENSE "$root/LICENSE"
    echo "portico:x:$user:$user:portico:/:/sbin/nologin" >"$root/etc/passwd"
    echo "portico:x:$user:" >"$root/etc/group"
    chmod 0644 "$root/etc/passwd" "$root/etc/group"
}

# Fails if the program contains a path of this machine, because then builds on other machines differ.
forbid_paths() {
    local path pattern
    for path in "$PWD" "${CARGO_HOME:-$HOME/.cargo}"; do
        pattern=$(LC_ALL=C sed 's/[^[:alnum:]/_^-]/[&]/g; s/\^/\\^/g' <<<"$path")
        # A path with one component, such as /app, may be a prefix of unrelated strings, such as /apps. Longer paths are
        # not, and match with any suffix, because strings in a program are adjacent.
        if [[ $path != /*/* ]]; then pattern+='([^[:alnum:]_.-]|$)'; fi
        if LC_ALL=C grep -aqE -e "$pattern" "$1"; then
            echo "image-root: $1 contains the path $path, so builds on other machines would differ; for example:" >&2
            LC_ALL=C strings -n 4 "$1" | LC_ALL=C grep -E -e "$pattern" | head -3 >&2
            exit 1
        fi
    done
}

# Prints the checksum of names, modes and contents. Times and owners do not affect it.
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
