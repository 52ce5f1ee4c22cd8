#!/usr/bin/env bash
# Runs a pinned version of cargo-deny with the given arguments.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

deny=$(bash scripts/cargo-tool.sh cargo-deny 0.20.2)
exec "$deny" --locked "$@" </dev/null
