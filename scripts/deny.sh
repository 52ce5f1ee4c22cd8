#!/usr/bin/env bash
# Runs cargo-deny with the given arguments, in the version named here. It is built once, into a cache outside of the
# checkout, so that a fresh clone does not build it again.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

version=0.20.2
tools="${XDG_CACHE_HOME:-$HOME/.cache}/portico/tools/cargo-deny-$version"

if [ ! -x "$tools/bin/cargo-deny" ]; then
    echo "deny: building cargo-deny $version into $tools, once"
    # --debug: half a minute instead of several, for a tool that runs for a second.
    cargo install --locked --debug --config profile.dev.debug=false --version "$version" --root "$tools" --quiet \
        cargo-deny </dev/null
fi
exec "$tools/bin/cargo-deny" --locked "$@" </dev/null
