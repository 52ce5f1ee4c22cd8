#!/usr/bin/env bash
# Writes target/sbom/portico-ARCH.cdx.json for amd64 and arm64: every crate in the image's binary, with version, license
# and checksum, as CycloneDX. The same lock file gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

cyclonedx=$(bash scripts/cargo-tool.sh cargo-cyclonedx 0.5.9)

mkdir -p target/sbom
# cargo-cyclonedx writes a file with this name next to each Cargo.toml of the workspace. Only that of the root is used.
name=portico-sbom-unfinished
trap 'find . -name target -prune -o -name "$name.json" -exec rm {} +' EXIT

write() {
    local architecture=$1 target=$2 file="target/sbom/portico-$1.cdx.json"
    SOURCE_DATE_EPOCH=0 "$cyclonedx" cyclonedx --format json --spec-version 1.5 --no-build-deps \
        --features alloc-jemalloc --target "$target" --override-filename "$name" --quiet
    # Replaces the path of the checkout, which differs between machines.
    sed "s|file://$PWD|file:///portico|g" "$name.json" >"$file"
    echo "sbom: $file lists $(grep -c '"purl": "pkg:cargo/' "$file") crates for $architecture"
}

write amd64 x86_64-unknown-linux-gnu
write arm64 aarch64-unknown-linux-gnu
