#!/usr/bin/env bash
# Runs cargo-deny with the given arguments, in the version named here.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

deny=$(bash scripts/cargo-tool.sh cargo-deny 0.20.2)
exec "$deny" --locked "$@" </dev/null
