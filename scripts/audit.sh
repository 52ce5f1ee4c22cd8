#!/usr/bin/env bash
# Compares the locked dependencies with the advisory database, and checks deny.toml with the tool it is written for.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# Compiling it takes minutes, so it lives outside the checkout and `make check` does without: tests/tidy enforces the
# bans, licenses, sources and duplicates of deny.toml by itself.
version=0.20.2
tools="${XDG_CACHE_HOME:-$HOME/.cache}/portico/tools/cargo-deny-$version"

if [ ! -x "$tools/bin/cargo-deny" ]; then
    echo "audit: building cargo-deny $version into $tools, once; this takes some minutes"
    cargo install --locked --version "$version" --root "$tools" cargo-deny </dev/null
fi

"$tools/bin/cargo-deny" --locked check bans licenses sources </dev/null
if ! "$tools/bin/cargo-deny" fetch db </dev/null; then
    echo "audit: the advisory database cannot be reached from here, so the dependencies were NOT compared with it" >&2
    exit 1
fi
"$tools/bin/cargo-deny" --locked check --disable-fetch advisories </dev/null
