#!/usr/bin/env bash
# Measures what a change costs: how long Cargo takes after another value of one constant, in modules on which few and
# many others depend. Prints a table for docs/development/tests.md. Nothing else may run on the machine.
#
#   scripts/build-times.sh [--runs N] [--only MODULE]   N runs for each module; 3 if it is not given
#   scripts/build-times.sh places                       the constants: MODULE FILE CONSTANT
#
# Before each command of Cargo, the constant gets a value that it never had, so that code that uses it is generated
# again. The first run of a module is not counted, because it also compiles what the module before it has left. The
# files have their contents back in the end, also after Ctrl-C. If one of them has changes that are not committed, the
# script does not begin.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# MODULE FILE CONSTANT: the end of the path of a file in `src` or `crates/*/src`, and a private constant of an integer
# type, on one line, that is used when requests are served or objects are read.
constants='
proxy proxy/http/exchange/request_body.rs SMALL_FRAME
compile compile/routes/shadowed_routes.rs MAX_NOTES
upstream upstream/http2.rs MAX_RESETS
snapshot snapshot/router/mod.rs MAX_COMPARED
plugin_api plugin_api/trace/inject.rs MAX_TRACE_STATES
key_auth plugins/key_auth.rs MAX_BODY_BYTES
store store/reduced_route.rs MAX_HOST_NAMES
app app/control.rs MAX_NAMED_OBJECTS
'
# Measurements, a file for each module with a line for each run; the output of Cargo; and the linker.
folder=$PWD/target/build-times
report=target/cargo-timings/cargo-timing.html
runs=3
only=""
# The file that has another content now, and the number of contents that files had so far.
edited=""
edits=0

main() {
    read_options "$@"
    local measured module file constant run
    measured=$(places)
    [ -z "$only" ] || measured=$(grep "^$only " <<<"$measured") || fail "there is no module $only: $(module_names)"
    require_committed "$measured"
    rm -rf "$folder"
    mkdir -p "$folder/bin"
    write_linker
    trap restore EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # The terminal's input is not for Cargo, so the lines are read from another file descriptor.
    while read -r module file constant <&3; do
        begin_edits "$file"
        say "$module: a run that is not counted"
        measure "$module" "$file" "$constant"
        for run in $(seq "$runs"); do
            measure "$module" "$file" "$constant"
            echo "$split $total $check $own_tests $all_tests" >>"$folder/$module"
            say "$module, run $run of $runs: build $total s, check $check s, unit tests of the crate $own_tests s"
        done
        restore
    done 3<<<"$measured"
    table "$measured"
}

read_options() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --runs) runs=${2:-} && shift ;;
            --only) only=${2:-} && shift ;;
            places) places && exit ;;
            *) usage ;;
        esac
        shift || usage
    done
    [[ $runs =~ ^[1-9][0-9]*$ ]] || usage
}

usage() {
    sed -n '/^#   scripts/s/^#   //p' scripts/build-times.sh >&2
    exit 2
}

# Prints MODULE FILE CONSTANT with the paths of the files, whichever crates they are in.
places() {
    local module file constant found
    while read -r module file constant; do
        [ -n "$module" ] || continue
        mapfile -t found < <(find src crates/*/src -path "*/$file")
        if [ "${#found[@]}" != 1 ] || [ "$(grep -cE "^const $constant: [a-z0-9]+ = .*;$" "${found[0]}")" != 1 ]; then
            fail "one line of one file */$file must declare $constant: name another one in the list of the script"
        fi
        echo "$module ${found[0]} $constant"
    done <<<"$constants"
}

module_names() {
    awk 'NF { printf "%s%s", separator, $1; separator = ", " }' <<<"$constants"
}

require_committed() {
    local files
    mapfile -t files < <(cut -d ' ' -f 2 <<<"$1")
    git diff --quiet HEAD -- "${files[@]}" ||
        fail "commit or undo the changes of $(git diff --name-only HEAD -- "${files[@]}" | paste -sd ' ') first"
}

# Cargo does not report how long a program was linked. The compiler links with the first `cc` in PATH.
write_linker() {
    cat >"$folder/bin/cc" <<END
#!/usr/bin/env bash
began=\$EPOCHREALTIME
code=0
"$(command -v cc)" "\$@" || code=\$?
echo "\$began \$EPOCHREALTIME" >>"$folder/links"
exit "\$code"
END
    chmod +x "$folder/bin/cc"
}

begin_edits() {
    cp "$1" "$folder/original"
    edited=$1
}

edit() {
    edits=$((edits + 1))
    sed -E "s/^(const $2: [a-z0-9]+ = )(.*);$/\1(\2) + $edits;/" "$folder/original" >"$1"
}

# Cargo compiles a file again that is newer than what it has compiled, so the file must not get its old time.
restore() {
    [ -n "$edited" ] || return 0
    cat "$folder/original" >"$edited"
    edited=""
}

# measure MODULE FILE CONSTANT: sets `total`, `split`, `check`, `own_tests` and `all_tests`.
measure() {
    local crate=${2%src/*}
    # All commands are for the workspace: for a single package, dependencies have other features. The selection of the
    # first one is that of `make run`.
    edit "$2" "$3"
    timed "$1" cargo build --locked --workspace --bin portico --timings
    total=$seconds
    split=$(units | split_build "$(link_seconds)")
    edit "$2" "$3"
    timed "$1" cargo check --locked --workspace
    check=$seconds
    # Cargo has no selection for the unit tests of one crate with the features of all, so they are ready before it ends.
    edit "$2" "$3"
    timed "$1" cargo test --locked --workspace --lib --no-run --timings
    all_tests=$seconds
    own_tests=$(units | ready_tests "$(package_name "${crate}Cargo.toml")")
    [ -n "$own_tests" ] || fail "$report has no unit tests of $2"
}

# timed MODULE COMMAND…: runs a command and sets `seconds`.
timed() {
    local module=$1 began log
    log=$folder/$module.log
    shift
    rm -f "$folder/links" "$report"
    began=$EPOCHREALTIME
    if ! PATH="$folder/bin:$PATH" "$@" >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        fail "$*: failed, see $log"
    fi
    seconds=$(elapsed <<<"$began $EPOCHREALTIME")
}

# The sum of lines of two times, of which some languages write the decimals after a comma.
elapsed() {
    tr , . | awk '{ sum += $2 - $1 } END { printf "%.1f", sum }'
}

link_seconds() {
    if [ -e "$folder/links" ]; then elapsed <"$folder/links"; else echo 0; fi
}

package_name() {
    awk '/^\[/ { inside = $0 == "[package]" } inside && $1 == "name" { gsub(/"/, "", $3); print $3 }' "$1"
}

# Prints PACKAGE|TARGET|START|SECONDS|FRONT END|CODE GENERATION for what the last command has compiled. The last two are
# empty for programs. The report has these lines as JSON with one value in a line.
units() {
    awk '
        function value(text) {
            sub(/^[^:]*: */, "", text)
            sub(/,$/, "", text)
            gsub(/[\\"]/, "", text)
            return text
        }
        /^const UNIT_DATA = \[$/ { inside = 1; next }
        /^\];?$/ { inside = 0 }
        !inside { next }
        /^  \{$/ { section = front = code = "" }
        /^    "name": / { name = value($0) }
        /^    "target": / { target = value($0) }
        /^    "start": / { start = value($0) }
        /^    "duration": / { duration = value($0) }
        /^        "[a-z]+",$/ { section = $1 }
        /^          "start": / { section_start = value($0) }
        section ~ /frontend/ && /^          "end": / { front = value($0) - section_start }
        section ~ /codegen/ && /^          "end": / { code = value($0) - section_start }
        /^  \},?$/ { print name "|" target "|" start "|" duration "|" front "|" code }' "$report"
}

# split_build LINKING: prints the number of crates, and the seconds of front ends, code generation and linking. Crates
# are compiled side by side, so the sum can be more than the time of the build.
split_build() {
    awk -F '|' -v linking="$1" '
        { front += $5; code += $5 == "" ? $4 : $6 }
        !($1 in seen) { seen[$1] = 1; crates++ }
        END { printf "%d %.1f %.1f %.1f", crates, front, (code > linking ? code - linking : 0), linking }'
}

# ready_tests PACKAGE: prints when the program of the unit tests of a library was there.
ready_tests() {
    awk -F '|' -v package="$1" '$1 == package && $2 ~ / lib.*\(test\)/ { printf "%.1f", $3 + $4 }'
}

table() {
    local module column
    printf '\nrustc %s, %d cores, CARGO_INCREMENTAL=%s, seconds as minimum / median of %d runs:\n\n' \
        "$(rustc --version | cut -d ' ' -f 2)" "$(nproc)" "${CARGO_INCREMENTAL:-}" "$runs"
    echo "| a change in | crates | build | front ends | code generation | linking | \`cargo check\` |" \
        "unit tests of the crate | unit tests of all crates |"
    echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    while read -r module _; do
        printf '| %s | %s |' "\`$module\`" "$(cut -d ' ' -f 1 "$folder/$module" | sort -n | tail -n 1)"
        for column in 5 2 3 4 6 7 8; do
            printf ' %s |' "$(cut -d ' ' -f "$column" "$folder/$module" | minimum_and_median)"
        done
        echo
    done <<<"$1"
}

minimum_and_median() {
    sort -n | awk '
        { values[NR] = $1 }
        END { printf "%.1f / %.1f", values[1], (values[int((NR + 1) / 2)] + values[int((NR + 2) / 2)]) / 2 }'
}

# Prints a message with the time since the beginning.
say() {
    printf '[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

fail() {
    echo "build-times: $*" >&2
    exit 1
}

main "$@"
