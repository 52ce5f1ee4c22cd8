#!/usr/bin/env bash
# Runs tests/soak for a minute, during which routes, weights, endpoints and certificates are edited. Fails if a request
# fails or a response is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export SOAK_SECONDS=${SOAK_SECONDS:-60} SOAK_RATE=${SOAK_RATE:-2000} SOAK_EDITS=${SOAK_EDITS:-500}
ulimit -n "$(ulimit -H -n)"
# The same build as in scripts/bench.sh, so that both share it.
cargo build --locked --release -p portico -p portico-load --bins --features alloc-jemalloc
SOAK_PORTICO=$PWD/target/release/portico cargo test --locked --workspace --test soak -- --nocapture
