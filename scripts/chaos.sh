#!/usr/bin/env bash
# Runs `portico-e2e chaos` with a release build: two replicas of Portico serve a well-behaved client while one part of the
# site after another is killed, slowed or broken. Arguments are those of `portico-e2e chaos`. Exits with 1 if a promise
# was broken.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# Each request needs two sockets, and floods hold many.
ulimit -n "$(ulimit -H -n)"
# The same builds as in scripts/bench.sh, so that both share them.
cargo build --locked --release -p portico -p portico-load --bins --features alloc-jemalloc
cargo build --locked --release -p portico-e2e --bins
# The package portico-e2e enables other features of dependencies, so its build does not replace the program.
exec target/release/portico-e2e chaos "$@"
