#!/usr/bin/env bash
# Lists the rows of docs/kong-compatibility.md without a test: traps in section 7, topics in the others. A comment
# `kong-compat §N.N` in a test refers to row N.N of that page. Rows that say "not here" need no test.
set -euo pipefail
cd "$(dirname "$0")/.."

marks=$(grep -rhE "kong-compat §[0-9]+\.[0-9]+" --include="*.rs" --include="*.in.yaml" src tests e2e |
    grep -oE "§[0-9]+\.[0-9]+" | tr -d § | sort -u)
topics=0 traps=0 elsewhere=0
while IFS='|' read -r _ section topic here _; do
    section=${section// /}
    grep -qx "$section" <<<"$marks" && continue
    if [[ $here == " not here"* ]]; then
        elsewhere=$((elsewhere + 1))
        continue
    fi
    echo "§$section:${topic% }"
    if [[ $section == 7.* ]]; then traps=$((traps + 1)); else topics=$((topics + 1)); fi
done < <(grep -E '^\| [0-9]+\.[0-9]+ \|' docs/kong-compatibility.md)
# Every comment must refer to an existing row.
for mark in $marks; do
    grep -qE "^\| ${mark//./\\.} \|" docs/kong-compatibility.md || echo "§$mark: a test refers to a row that does not exist"
done
echo "kong-marks: without a test: $topics topics, $traps traps; not here, according to the page: $elsewhere"
