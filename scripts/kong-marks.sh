#!/usr/bin/env bash
# Lists the rows of docs/kong-compatibility.md without a test: those of the first table as topics, those of the second,
# with numbers from 7.1, as surprises. A test of row 3.4 has the mark `// docs/kong-compatibility.md, 3.4` on a line of
# its own, after `#` in YAML. Rows that begin with "not here" need no test.
set -euo pipefail
cd "$(dirname "$0")/.."

# A line with other words, such as a doc comment, cites a row but is no mark.
mark_line='^ *(//|#) docs/kong-compatibility\.md, [0-9]+\.[0-9]+(, [0-9]+\.[0-9]+)*$'
marks=$(grep -rhE "$mark_line" --include="*.rs" --include="*.in.yaml" crates src tests e2e |
    grep -oE "[0-9]+\.[0-9]+" | sort -u)
row_line='^\| [0-9]+\.[0-9]+(, [0-9]+\.[0-9]+)* \|'
topics=0 surprises=0 not_here=0
# A row may have several numbers, each of which needs a test.
while IFS='|' read -r _ numbers topic in_portico _; do
    row=
    for number in ${numbers//,/}; do
        grep -qFx "$number" <<<"$marks" || row=$number
    done
    [[ -n $row ]] || continue
    if [[ $in_portico == " not here"* ]]; then
        not_here=$((not_here + 1))
        continue
    fi
    echo "$row:${topic% }"
    if [[ $row == 7.* ]]; then surprises=$((surprises + 1)); else topics=$((topics + 1)); fi
done < <(grep -E "$row_line" docs/kong-compatibility.md)
for mark in $marks; do
    grep -qE "^\| ([0-9.]+, )*${mark//./\\.}(, [0-9.]+)* \|" docs/kong-compatibility.md ||
        echo "$mark: a mark names this row, which does not exist"
done
echo "kong-marks: without a test: $topics topics, $surprises surprises; not here according to the page: $not_here"
