#!/usr/bin/env bash
# Builds target/image-root: everything the container image holds, as a folder. A static binary needs no base image, so
# there is no shell, no package and no library in it that could be out of date.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

root=target/image-root
user=65532 # The number that images without a distribution use for "nonroot".
roots=/etc/ssl/certs/ca-certificates.crt
# The machine's own: cross building needs a toolchain of the other target.
target=$(rustc -vV | sed -n 's/^host: //p')

case "$target" in
    *-unknown-linux-gnu) ;;
    *) echo "image-root: an image needs a Linux binary, and this toolchain builds for $target" >&2 && exit 1 ;;
esac

# With --target, the flags hold for the program and not for build scripts and macros, which cannot be static.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --bin portico --features alloc-jemalloc --target "$target"
binary="target/$target/release/portico"
if readelf --program-headers "$binary" | grep -q INTERP; then
    echo "image-root: $binary asks for a dynamic loader, so it would not start in an empty image" >&2
    exit 1
fi

rm -rf "$root"
install -d -m 0755 "$root" "$root/etc" "$root/etc/ssl" "$root/etc/ssl/certs" "$root/usr" "$root/usr/bin"
install -d -m 1777 "$root/tmp"
install -m 0755 "$binary" "$root/usr/bin/portico"
# Three quarters of it are line numbers. Names of functions stay, for backtraces.
strip --strip-debug "$root/usr/bin/portico"
install -m 0644 "$roots" "$root/etc/ssl/certs/ca-certificates.crt"
install -m 0644 LICENSE "$root/LICENSE"
echo "portico:x:$user:$user:portico:/:/sbin/nologin" >"$root/etc/passwd"
echo "portico:x:$user:" >"$root/etc/group"
chmod 0644 "$root/etc/passwd" "$root/etc/group"

echo "image-root: $root holds $(du -sh "$root" | cut -f1):"
(cd "$root" && find . -type f | sort | sed 's|^\./|  /|')
