#!/usr/bin/env bash
# A minute of requests while everything is edited: tests/soak at full length. Ends with 1 if one answer was not right.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export SOAK_SECONDS=${SOAK_SECONDS:-60} SOAK_RATE=${SOAK_RATE:-2000} SOAK_EDITS=${SOAK_EDITS:-500}
ulimit -n "$(ulimit -H -n)"
# The same build as that of the bench, so that one serves both.
cargo build --locked --release --workspace --bins --features alloc-jemalloc
SOAK_PORTICO=$PWD/target/release/portico cargo test --locked --test soak -- --nocapture
