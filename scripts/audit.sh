#!/usr/bin/env bash
# Compares the locked dependencies with the advisory database, which has to be fetched first.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! bash scripts/deny.sh fetch db; then
    echo "audit: the advisory database cannot be reached from here, so the dependencies were NOT compared with it" >&2
    exit 1
fi
bash scripts/deny.sh check --disable-fetch advisories
