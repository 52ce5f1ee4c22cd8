#!/usr/bin/env bash
# Prints the path of a cargo tool in the given version: scripts/cargo-tool.sh NAME VERSION [FLAG…]. The tool is built
# once, with these flags, into a cache outside of the checkout, so that a fresh clone does not build it again.
set -euo pipefail
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

name=$1 version=$2
shift 2
tools="${XDG_CACHE_HOME:-$HOME/.cache}/portico/tools/$name-$version"

if [ ! -x "$tools/bin/$name" ]; then
    echo "Building $name $version into $tools, once" >&2
    # A debug build takes at most half the time of a release build, and the tools run only for a second.
    cargo install --locked --debug --config profile.dev.debug=false --version "$version" --root "$tools" --quiet \
        "$@" "$name" </dev/null >&2
fi
echo "$tools/bin/$name"
