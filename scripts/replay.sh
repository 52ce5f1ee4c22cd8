#!/usr/bin/env bash
# Replays the reports in tests/replay/reports against the program, and runs the tests of other suites that they name.
#
#   scripts/replay.sh
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"

main() {
    local failed="" program names
    cargo test --locked --workspace --test process replay:: -- --nocapture || failed=yes
    for program in lib proxy library process; do
        mapfile -t names < <(named_tests | while IFS= read -r test; do
            if [ "$(program_of "$test")" = "$program" ]; then echo "${test##*::}"; fi
        done)
        [ "${#names[@]}" -gt 0 ] || continue
        case "$program" in
            lib) cargo test --locked --workspace --lib -- "${names[@]}" || failed=yes ;;
            *) cargo test --locked --workspace --test "$program" -- "${names[@]}" || failed=yes ;;
        esac
    done
    [ -z "$failed" ]
}

# Prints the tests that reports name, as FILE::FUNCTION.
named_tests() {
    grep -rhoE '\b(crates/[a-z0-9_]+/src|src|tests)/[a-z0-9_/]+\.rs::[a-z0-9_]+' tests/replay/reports | sort -u
}

# program_of FILE::FUNCTION: prints the test program that has the test.
program_of() {
    local module=${1#tests/} program
    module=${module%%[./]*}
    case "$1" in
        crates/* | src/*) echo lib ;;
        tests/proxy/*) echo proxy ;;
        *)
            for program in library process; do
                if grep -q "^mod $module;" "tests/$program.rs"; then echo "$program"; fi
            done
            ;;
    esac
}

main
