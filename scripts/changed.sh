# What a change can reach: the crates whose unit tests it affects, and the suites that a table has for its files.
# Sourced by scripts/test.sh, after the other files of this kind.
# shellcheck shell=bash

# The page with the table, and the first row of the table.
suites_page=docs/development/tests.md
suites_header="| a change in | suites |"

# Prints the commit to compare with: the given one, or else the one at which the branch left origin/main, or else the
# last commit.
base_commit() {
    if [ -n "${1:-}" ]; then
        git rev-parse --verify --quiet "$1^{commit}"
    else
        git merge-base HEAD origin/main 2>/dev/null || git rev-parse --verify --quiet HEAD
    fi
}

# changed_files COMMIT: prints the files that have changed since then, also those that are deleted or not committed. A
# file that was moved has changed in both places.
changed_files() {
    {
        git -c core.quotePath=off diff --name-only --no-renames "$1" --
        git -c core.quotePath=off ls-files --others --exclude-standard
    } | LC_ALL=C sort -u
}

# Prints "crate FOLDER PACKAGE" for each crate of the workspace, and "needs FOLDER PACKAGE" for each dependency of one.
crate_graph() {
    awk '
        FNR == 1 { folder = FILENAME; if (!sub(/\/Cargo\.toml$/, "", folder)) folder = "."; section = "" }
        /^\[/ {
            section = $0
            if (section ~ /dependencies\.[a-z0-9_-]+\]$/) {
                gsub(/^.*\.|\]$/, "", section)
                print "needs", folder, section
            }
            next
        }
        section == "[package]" && $1 == "name" { gsub(/"/, "", $3); print "crate", folder, $3 }
        section ~ /dependencies\]$/ && section !~ /workspace/ && /^[a-z]/ {
            sub(/[.=].*/, "", $1)
            print "needs", folder, $1
        }' Cargo.toml benches/load/Cargo.toml crates/*/Cargo.toml e2e/Cargo.toml
}

# Prints "reads FOLDER FILE" for each file that a crate may include or read, by its path in the sources.
files_in_sources() {
    grep -roE --include='*.rs' '"/?(\.\./)*[a-z][^" ]*\.[a-z]+"' src benches/load/src crates/*/src e2e/src |
        sed -nE 's#^((benches/load|crates/[^/]+|e2e)/)?src/[^:]*:"/?(\.\./)*([^"]+)"$#reads \2 \4#p' |
        sed 's/^reads  /reads . /' | LC_ALL=C sort -u
}

# Reads changed files, and prints FOLDER|PACKAGE|REASON for each crate whose unit tests they can reach.
reached_crates() {
    {
        crate_graph
        files_in_sources
        sed 's/^/file /'
    } | awk '
        function reach(folder, why) {
            if (folder in package && !(folder in reason)) reason[folder] = why
        }
        # The crate that is compiled from a file, or whose unit tests read it.
        function owner(path, folder, inside) {
            for (folder in package) {
                inside = path
                if (folder == "." || sub("^" folder "/", "", inside))
                    if (inside ~ /^(src|proptest-regressions)\// || inside == "Cargo.toml") return folder
            }
            return ""
        }
        $1 == "crate" { package[$2] = $3; folder_of[$3] = $2; next }
        $1 == "needs" { from[++edges] = $2; to[edges] = $3; next }
        $1 == "reads" { readers[$3] = readers[$3] " " $2; next }
        {
            path = substr($0, 6)
            # Unit tests run the fuzz targets, which fuzz/ lists, on the corpus.
            if (path ~ /^(Cargo\.toml|Cargo\.lock|rust-toolchain\.toml|\.cargo\/.*|fuzz\/.*)$/)
                for (folder in package) reach(folder, path)
            reach(owner(path), path)
            count = split(readers[path], words, " ")
            for (word = 1; word <= count; word++) reach(words[word], path)
        }
        END {
            do {
                added = 0
                for (edge = 1; edge <= edges; edge++)
                    if (to[edge] in folder_of && folder_of[to[edge]] in reason && !(from[edge] in reason)) {
                        reason[from[edge]] = "depends on " to[edge]
                        added = 1
                    }
            } while (added)
            for (folder in reason) print folder "|" package[folder] "|" reason[folder]
        }' | LC_ALL=C sort
}

# Prints PATTERN|SUITE… for each path and module in the table.
suite_rows() {
    awk -v header="$suites_header" '
        $0 == header { inside = 1; next }
        !/^\|/ { inside = 0 }
        !inside || /^\| --- / { next }
        {
            split($0, cells, "|")
            suites = cells[3]
            gsub(/[`,]/, "", suites)
            gsub(/^ +| +$/, "", suites)
            count = split(cells[2], parts, "`")
            for (part = 2; part <= count; part += 2) print parts[part] "|" suites
        }' "$suites_page"
}

# Prints the names of all suites of tests, which are in the sources of the test programs.
suites_of_tests() {
    {
        sed -n 's/^mod \(.*\);$/\1/p' tests/library.rs tests/process.rs |
            grep -vx -e fake_api_server -e golden -e harness
        sed -n 's/^mod \(.*\);$/e2e-\1/p' e2e/tests/e2e.rs
        awk '
            /^\[/ { inside = $0 == "[[test]]" }
            inside && $1 == "name" { gsub(/"/, "", $3); print $3 }' Cargo.toml | grep -vx -e library -e process
        printf '%s\n' baseline check-examples dependencies doctests
    } | LC_ALL=C sort -u
}

# Reads changed files, and prints SUITE|FILE for each suite that they can reach, and "|FILE" for each file of which
# neither the table nor the names of suites have a part of the path.
reached_suites() {
    {
        suites_of_tests | sed 's/^/suite|/'
        suite_rows | sed 's/^/row|/'
        sed 's/^/file|/'
    } | awk -F '|' '
        # A pattern that ends in "::" is a module, in the `src` of any crate. Others are files and folders.
        # What each crate has in its folder counts as that of the root.
        function matches(pattern, path) {
            if (path ~ /^(crates|benches)\/[^\/]+\/(Cargo\.toml$|proptest-regressions\/)/)
                sub(/^[^\/]+\/[^\/]+\//, "", path)
            if (pattern !~ /::$/) return path == pattern || index(path, pattern "/") == 1
            if (!sub(/^(crates\/[^\/]+\/)?src\//, "", path)) return 0
            gsub(/::/, "/", pattern)
            return index(path, pattern) == 1 || path "/" == substr(pattern, 1, length(pattern) - 1) ".rs/"
        }
        function reach(suite, path) {
            if (!(suite in reached)) { reached[suite] = 1; print suite "|" path }
        }
        $1 == "suite" { known[$2] = 1; next }
        $1 == "row" { pattern[++rows] = $2; suites[rows] = $3; next }
        {
            path = $2
            is_known = 0
            # tests/NAME.rs and tests/NAME/ are the suite NAME.
            name = path
            if (sub(/^tests\//, "", name)) prefix = ""
            else if (sub(/^e2e\/tests\//, "", name)) prefix = "e2e-"
            else name = ""
            sub(/[.\/].*/, "", name)
            if (name != "" && prefix name in known) { is_known = 1; reach(prefix name, path) }
            for (row = 1; row <= rows; row++) {
                if (!matches(pattern[row], path)) continue
                is_known = 1
                count = split(suites[row], words, " ")
                for (word = 1; word <= count; word++) reach(words[word], path)
            }
            if (!is_known) print "|" path
        }' | LC_ALL=C sort
}

# plan_changed [BASE]: prints what the run consists of and why, and what it leaves out; ends the script if nothing has
# changed. Sets `unit_folders`, the folders of the crates whose unit tests run, and `chosen`, the suites.
plan_changed() {
    local base files crates suites name others="" unknown
    unit_folders="" chosen=""
    base=$(base_commit "${1:-}") || { echo "there is no commit ${1:-HEAD}" >&2 && exit 2; }
    files=$(changed_files "$base")
    if [ -z "$files" ]; then
        echo "Nothing has changed since $(described "$base")."
        exit
    fi
    crates=$(reached_crates <<<"$files")
    suites=$(reached_suites <<<"$files")
    unknown=$(sed -n 's/^|//p' <<<"$suites")
    suites=$(grep -v -e '^|' -e '^tidy|' <<<"$suites")
    unit_folders=$(cut -d '|' -f 1 <<<"$crates")
    # Tests with a control plane take minutes, and so does the image that they and `baseline` need.
    for name in $(cut -d '|' -f 1 <<<"$suites"); do
        if [ "$name" = baseline ] || [ "$(lane_of "$name")" = cluster ]; then
            others+=$name$'\n'
        else
            chosen+=$name$'\n'
        fi
    done
    others=${others%$'\n'} chosen=${chosen%$'\n'}
    suites=$(awk -F '|' 'NR == FNR { kept[$1] = 1; next } $1 in kept' <(echo "$chosen") <(echo "$suites"))
    echo "Files that have changed since $(described "$base"): $(wc -l <<<"$files")"
    echo
    echo "Runs format and tidy, and:"
    [ -z "$crates" ] || awk -F '|' '{ printf "  %-36s %s\n", "unit tests of " $2, $3 }' <<<"$crates"
    [ -z "$suites" ] || awk -F '|' '{ printf "  %-36s %s\n", $1, $2 }' <<<"$suites"
    echo
    echo "Leaves out:"
    [ -z "$others" ] || printf '  suites that need the image or a control plane: %s\n' "$(command_for_others "$others")"
    [ -z "$unknown" ] || awk '{ print "  suites for " $0 ", for which the table has no row" }' <<<"$unknown"
    echo "  lints and the documentation of the code: make check"
    printf '  suites for other files, by the table in %s: %s\n' "$suites_page" \
        "$(suites_of_tests | grep -vxF -e tidy -e "$chosen" -e "${others:-none}" | paste -sd ' ')"
    echo
}

# Prints the abbreviated name and the title of a commit.
described() {
    git log -1 --format='%h, "%s"' "$1"
}

# Prints the command that runs these suites, after what they need.
command_for_others() {
    echo "scripts/test.sh run image-root$(grep -q '^e2e-' <<<"$1" && echo " e2e-programs") $(paste -sd ' ' <<<"$1")"
}

run_changed() {
    if [ -z "$unit_folders$chosen" ]; then
        # `tidy` is compiled from the sources as they are now.
        rm -f "$executables"
        run_suites format tidy
        return
    fi
    run_suites format build
    if ! passed build; then return; fi
    keep_unit_tests "$unit_folders"
    # shellcheck disable=SC2086 # One word for each suite.
    run_suites tidy ${unit_folders:+unit} $chosen
}

# keep_unit_tests FOLDERS: removes the unit tests of other crates from the list of test programs. The next build writes
# the whole list again.
keep_unit_tests() {
    local programs
    programs=$(awk 'NR == FNR { kept[$1] = 1; next } $1 != "unit" || $3 in kept' <(echo "$1") "$executables")
    echo "$programs" >"$executables"
}
