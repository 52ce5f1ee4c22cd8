#!/usr/bin/env bash
# Lists the topics and traps of docs/kong-compatibility.md that no test is marked with. What is not here needs none, but its
# row has to say so.
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
# A mark that no row knows is a slip of the pen.
for mark in $marks; do
    grep -qE "^\| ${mark//./\\.} \|" docs/kong-compatibility.md || echo "§$mark: a test has this mark, and the page has no such row"
done
echo "kong-marks: without a marked test: $topics topics, $traps traps; not here, as the page says: $elsewhere"
