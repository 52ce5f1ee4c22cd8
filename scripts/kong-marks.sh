#!/usr/bin/env bash
# Lists the topics of docs/kong-compatibility.md that no test is marked with.
set -euo pipefail
cd "$(dirname "$0")/.."

marks=$(grep -rhoE "kong-compat §[0-9]+\.[0-9]+" --include="*.rs" --include="*.in.yaml" src tests e2e | sed 's/.*§//' | sort -u)
missing=0
while IFS='|' read -r _ section topic _; do
    section=${section// /}
    if ! grep -qx "$section" <<<"$marks"; then
        echo "§$section:${topic% }"
        missing=$((missing + 1))
    fi
done < <(grep -E '^\| [0-9]+\.[0-9]+ \|' docs/kong-compatibility.md)
echo "kong-marks: $missing topics without a marked test"
