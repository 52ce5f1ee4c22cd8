#!/usr/bin/env bash
# Runs the test suites one after another and prints a table, then what failed. A failing suite does not stop the others,
# but the exit code reports it. The last line is "N passed, N failed", for programs.
#
#   scripts/test.sh check    static checks that every change must pass
#   scripts/test.sh all      static checks and all tests
#
# E2E=off skips tests that need network namespaces, for machines without root and user namespaces, and tests with a
# control plane, which need root. PORTICO_E2E_KUBECONFIG names an existing cluster to use instead of new ones where
# possible: see CONTRIBUTING.md. GATEWAY_CRDS=off skips tests that need the CRDs of the Gateway API release, for
# machines that cannot fetch them.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# Property tests generate the same values in every run, so that a change passes or fails because of the change. `make
# explore` generates new ones.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"

logs=target/test-logs
rows=()
passed=0
failed=0
# Number of tests that passed, failed or were ignored, without suites that count as one test.
ran=0

main() {
    rm -rf "$logs"
    mkdir -p "$logs"
    local started=$SECONDS
    case "${1:-all}" in
        check) check_suites ;;
        all)
            start_long_builds
            check_suites
            test_suites
            ;;
        *) echo "usage: scripts/test.sh [check|all]" >&2 && exit 2 ;;
    esac
    summary $((SECONDS - started))
    [ "$failed" = 0 ]
}

# On a new machine, the programs of the control plane and the image of Portico's Pods take longest to build. They are
# compiled at the lowest priority while everything else runs, because neither compilers nor tests keep both cores busy.
# The image has a profile and a target folder of its own, so its build does not block other commands of Cargo.
start_long_builds() {
    [ "${E2E:-on}" != off ] || return 0
    cargo build --locked --workspace --bin portico-e2e || return 0
    (
        nice -n 19 target/debug/portico-e2e build >"$logs/control-plane-build.log" 2>&1
        nice -n 19 bash scripts/image-root.sh --for-tests >"$logs/image-build.log" 2>&1
    ) </dev/null &
}

check_suites() {
    suite format cargo fmt --all --check
    suite lints cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
    RUSTDOCFLAGS="-D warnings" suite docs \
        cargo doc --locked --workspace --no-deps --document-private-items --quiet
    suite dependencies bash scripts/deny.sh check bans licenses sources
    suite tidy cargo test --locked --workspace --test tidy
}

test_suites() {
    # One build for all test programs, so that the times of the suites below do not include it. All commands build the
    # whole workspace: for a single package, crates would have other features and be built again.
    suite build cargo test --locked --workspace --all-targets --no-run
    suite unit cargo test --locked --workspace --lib --bins --no-fail-fast
    local name
    for name in $(programs Cargo.toml); do
        case "$name" in
            tidy) ;; # Part of the static checks.
            library | process) module_suites "$name" module_suite ;;
            *) suite "$name" cargo test --locked --workspace --test "$name" ;;
        esac
    done
    suite doctests cargo test --locked --workspace --doc
    suite check-examples check_examples
    cluster_suites
}

# Names of the test programs of a package.
programs() {
    awk '/^\[/ { inside = $0 == "[[test]]" } inside && $1 == "name" { print $3 }' "$1" | tr -d '"'
}

# module_suites PROGRAM FUNCTION: calls the function with the program and each top-level module, to run a suite for it.
# Counts a failure unless the suites together ran as many tests as the program lists.
module_suites() {
    local program=$1 run=$2 list="$logs/$1.list" module listed before=$ran
    if ! cargo test --locked --quiet --workspace --test "$program" -- --list --format terse </dev/null |
        sed -n 's/: test$//p' >"$list" || ! [ -s "$list" ]; then
        # Lists the tests once more as a suite, so that the error is shown and counted.
        suite "$program" cargo test --locked --workspace --test "$program" -- --list
        return
    fi
    for module in $(sed 's/::.*//' "$list" | sort -u); do
        "$run" "$program" "$module"
    done
    listed=$(wc -l <"$list")
    if [ $((ran - before)) != "$listed" ]; then
        rows+=("$program|0|1|0|$((ran - before)) of $listed tests ran")
        failed=$((failed + 1))
    fi
}

module_suite() {
    local program=$1 name=$2
    case "$name" in
        gateway_crds)
            if [ "${GATEWAY_CRDS:-on}" = off ]; then
                rows+=("$name|0|0|0|not run: GATEWAY_CRDS=off")
                ran=$((ran + $(grep -c "^$name::" "$logs/$program.list")))
            else
                suite "$name" gateway_crds
            fi
            ;;
        bad_input | make_run | pages | takeover)
            suite "$name" module_tests "$program" "$name"
            [ "${E2E:-on}" != off ] || rows[-1]+=" not run: tests that need a network namespace (E2E=off)"
            ;;
        *) suite "$name" module_tests "$program" "$name" ;;
    esac
}

# Runs the tests of a module by their full names, because libtest's filter `crds::` would also select those of
# `gateway_crds::`. Further arguments are for libtest.
module_tests() {
    local program=$1 names
    mapfile -t names < <(grep "^$2::" "$logs/$program.list")
    shift 2
    cargo test --locked --workspace --test "$program" -- "$@" --exact "${names[@]}"
}

# Tests with a control plane run last, because they take minutes. Its programs are built separately, so that the build
# does not look like a hanging test, and each test prints its progress.
cluster_suites() {
    local name
    if [ "${E2E:-on}" = off ]; then
        rows+=("e2e|0|0|0|not run: E2E=off")
        return
    fi
    # What the builds in the background have finished is not built again. If they failed, these suites show why.
    echo "Waiting for the builds of the control plane and the image: $logs/control-plane-build.log, image-build.log"
    wait
    suite e2e-programs target/debug/portico-e2e build
    suite image-root bash scripts/image-root.sh --for-tests
    suite baseline baseline
    for name in $(programs e2e/Cargo.toml); do
        module_suites "$name" cluster_suite
    done
}

# Compares the instructions per request of the program in the image with the baseline. The suite `allocations` compares
# the allocations.
baseline() {
    cargo build --locked --quiet --workspace --bin portico-load &&
        target/debug/portico-load baseline --portico target/image-root-test/usr/bin/portico
}

cluster_suite() {
    suite "e2e-$2" module_tests "$1" "$2" --nocapture
}

# Compares Portico's validation with the CRDs of the Gateway API release, which are fetched and not part of the
# repository.
gateway_crds() {
    local folder
    if ! folder=$(bash scripts/gateway-crds.sh); then
        echo "Cannot fetch the CRDs of the Gateway API release, so nothing was compared with them." >&2
        echo "On machines without access, skip this suite with GATEWAY_CRDS=off; the summary shows it." >&2
        return 1
    fi
    PORTICO_GATEWAY_CRDS=$folder module_tests library gateway_crds
}

# The examples must have no diagnostics, because new users run them first.
check_examples() {
    local folder strict
    for folder in examples/*/; do
        echo "portico check $folder"
        strict=(--warnings-as-errors)
        # The cors plugin of this example gets a warning, because Kong interprets it differently. tests/examples.rs
        # allows no other warning.
        if [ "$folder" = examples/kong/ ]; then strict=(); fi
        target/debug/portico check "${strict[@]}" "$folder" || return 1
    done
}

# Runs a suite, shows and logs its output, and counts the tests that it reports, or the suite as one test.
suite() {
    local name=$1 log="$logs/$1.log" started=$SECONDS code counts left_out note=""
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    "$@" </dev/null 2>&1 | tee "$log"
    code=${PIPESTATUS[0]}
    counts=$(awk '
        /^test result: / {
            seen = 1
            for (field = 2; field <= NF; field++) {
                if ($field == "passed;") passed += $(field - 1)
                if ($field == "failed;") failed += $(field - 1)
                if ($field == "ignored;") ignored += $(field - 1)
            }
        }
        END { print seen + 0, passed + 0, failed + 0, ignored + 0 }' "$log")
    # shellcheck disable=SC2086 # Four numbers.
    set -- $counts
    local good=$2 bad=$3
    ran=$((ran + $2 + $3 + $4))
    if [ "$1" = 0 ] && [ "$code" = 0 ]; then
        good=1
    elif [ "$code" != 0 ] && [ "$bad" = 0 ]; then
        # The failure is outside of any test: a compile error, or a crash.
        bad=1
    fi
    passed=$((passed + good))
    failed=$((failed + bad))
    [ "$4" = 0 ] || note="$4 not run: ignored"
    [ -z "${PORTICO_E2E_KUBECONFIG:-}" ] || left_out=$(grep -c 'not run: ' "$log")
    [ "${left_out:-0}" = 0 ] || note="$left_out not run, see $log"
    [ "$bad" = 0 ] || note="see $log"
    rows+=("$name|$good|$bad|$((SECONDS - started))|$note")
}

# Prints the tests of a suite that failed and what they reported, so that the end of a long log has what is needed to
# begin. A suite that failed outside of its tests is shown by its last lines.
failures() {
    local name=$1 log="$logs/$1.log" tests
    printf '==> %s failed\n' "$name"
    [ -e "$log" ] || return 0
    # Test programs end with the names of the failed tests, indented under "failures:".
    tests=$(awk '/^failures:$/ { listed = 1 } /^test result: / { listed = 0 } listed && /^    [a-z]/' "$log" | sort -u)
    if [ -n "$tests" ]; then
        printf '%s\n' "$tests"
        grep -A 12 ' panicked at ' "$log" | grep -v -e ' at /' -e '^ *[0-9]*: ' -e 'stack backtrace:' | head -n 60
    else
        tail -n 30 "$log"
    fi
    echo
}

summary() {
    local row name good bad seconds note
    printf '\n%-20s %8s %8s %8s\n' suite passed failed time
    printf -- '-----------------------------------------------\n'
    for row in "${rows[@]}"; do
        IFS='|' read -r name good bad seconds note <<<"$row"
        printf '%-20s %8d %8d %7ds  %s\n' "$name" "$good" "$bad" "$seconds" "$note"
    done
    printf -- '-----------------------------------------------\n'
    printf '%-20s %8d %8d %7ds\n\n' total "$passed" "$failed" "$1"
    for row in "${rows[@]}"; do
        IFS='|' read -r name good bad seconds note <<<"$row"
        [ "$bad" = 0 ] || failures "$name"
    done
    echo "$passed passed, $failed failed"
}

main "$@"
