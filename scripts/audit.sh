#!/usr/bin/env bash
# Fetches the advisory database and checks the locked dependencies against it.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! bash scripts/deny.sh fetch db; then
    echo "audit: cannot fetch the advisory database, so the dependencies were NOT checked" >&2
    exit 1
fi
bash scripts/deny.sh check --disable-fetch advisories
