# The suites of tests by name, and the command of each. Sourced by scripts/test.sh and scripts/flaky.sh.
# shellcheck shell=bash

# Where a run keeps the output of its suites, and what it knows of the test programs.
logs=target/test-logs
# Lines of "PROGRAM FILE FOLDER": the test programs that Cargo has built, and the folder in which each runs.
executables=$logs/executables
# The exit code of a suite that has a reason not to run, which it prints after "not run: ".
not_run=77

# Prints the names of all suites; the tests must be built. New modules and programs of tests are suites without a change
# here: each module of the programs `library`, `process` and `e2e` is one, and each other program.
all_suites() {
    local program
    printf '%s\n' format build unit
    while read -r program _; do
        case "$program" in
            unit | tidy | e2e) ;;
            library | process) modules_of "$program" ;;
            *) echo "$program" ;;
        esac
    done < <(sort -u "$executables") | sort -u
    printf '%s\n' check-examples image-root lints docs tidy dependencies doctests
    if [ "${E2E:-on}" = off ]; then
        echo e2e
        return
    fi
    printf '%s\n' baseline e2e-programs e2e-speed
    modules_of e2e | sed 's/^/e2e-/'
}

# Runs the commands of a suite. Its exit code is not 0 if one of them failed.
suite_command() {
    case "$1" in
        format) cargo fmt --all --check ;;
        lints) cargo clippy --locked --workspace --all-targets --quiet -- -D warnings ;;
        docs)
            RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
            ;;
        dependencies) bash scripts/deny.sh check bans licenses sources ;;
        # A static check too, for which the other tests need not be built.
        tidy)
            if [ -s "$executables" ]; then
                test_program tidy
            else
                repeat_with "cargo test --workspace --test tidy --" cargo test --locked --workspace --test tidy
            fi
            ;;
        build) build_tests ;;
        doctests) repeat_with "cargo test --workspace --doc --" cargo test --locked --workspace --doc ;;
        check-examples) check_examples ;;
        image-root) bash scripts/image-root.sh --for-tests ;;
        baseline) baseline ;;
        gateway_crds) gateway_crds ;;
        e2e) echo "not run: E2E=off" && return "$not_run" ;;
        e2e-programs) target/debug/portico-e2e build ;;
        e2e-speed) target/debug/portico-e2e speed ;;
        # Each test has a cluster of its own, and two lanes with one cluster each keep two cores busy.
        e2e-*) test_module e2e "${1#e2e-}" --nocapture --test-threads=1 ;;
        # Most of its tests wait for timeouts and compute little.
        proxy) test_program proxy --test-threads="$((3 * $(nproc)))" ;;
        *)
            if grep -q "^$1 " "$executables"; then
                test_program "$1"
            elif grep -q "^$1::" "$logs/library.list"; then
                test_module library "$1"
            elif grep -q "^$1::" "$logs/process.list"; then
                note_namespaces "$1"
                test_module process "$1"
            else
                echo "there is no suite $1; scripts/test.sh list prints the names of all" >&2
                return 2
            fi
            ;;
    esac
}

# One build for all test programs. All commands build the whole workspace: for a single package, crates would have other
# features and be built again. Benchmarks are no tests, and the lints compile them.
build_tests() {
    local program messages=$logs/build-messages
    mkdir -p "$logs"
    rm -f "$executables"
    CARGO_TERM_COLOR=never CARGO_TERM_QUIET=false \
        cargo test --locked --workspace --lib --bins --tests --no-run 2>&1 </dev/null | tee "$messages"
    [ "${PIPESTATUS[0]}" = 0 ] || return 1
    # Lines such as `Executable tests/proxy/main.rs (target/debug/deps/proxy-0123456789abcdef)`.
    sed -n 's/^ *Executable \(.*\) (\(.*\))$/\1 \2/p' "$messages" | while read -r words; do
        local file=${words##* } folder=.
        program=$(basename "${file%-*}")
        case "$program" in
            portico_e2e | e2e) folder=e2e ;;
            portico_load) folder=benches/load ;;
            portico_*) folder=crates/${program#portico_} ;;
        esac
        case "$words" in unittests*) program=unit ;; esac
        echo "$program $(realpath "$file") $folder"
    done >"$executables"
    for program in library process e2e; do
        if ! list_tests "$program" >"$logs/$program.list" || ! [ -s "$logs/$program.list" ]; then
            echo "the test program $program was not built, or lists no tests" >&2
            return 1
        fi
    done
}

list_tests() {
    local file folder
    read -r _ file folder < <(grep "^$1 " "$executables") || return 1
    tests_in "$file" "$folder"
}

tests_in() {
    (cd "$2" && "$1" --list --format terse </dev/null | sed -n 's/: test$//p')
}

# The top-level modules of a test program, each of which is a suite.
modules_of() {
    sed 's/::.*//' "$logs/$1.list" | sort -u
}

# Runs all tests of a program; "unit" has several. Further arguments are for libtest.
test_program() {
    local program=$1 lines line file folder code=0 selection="--test $1"
    shift
    if [ "$program" = unit ]; then selection="--lib --bins"; fi
    mapfile -t lines < <(grep "^$program " "$executables")
    [ "${#lines[@]}" -gt 0 ] || return 1
    for line in "${lines[@]}"; do
        read -r _ file folder <<<"$line"
        run_test_program "$selection" "$(tests_in "$file" "$folder" | wc -l)" "$file" "$folder" "$@" || code=1
    done
    return "$code"
}

# Runs the tests of a module by their full names, because libtest's filter `crds::` would also select those of
# `gateway_crds::`. Further arguments are for libtest.
test_module() {
    local program=$1 module=$2 names file folder
    shift 2
    mapfile -t names < <(grep "^$module::" "$logs/$program.list")
    if [ "${#names[@]}" = 0 ]; then
        echo "the program $program has no module $module; scripts/test.sh list prints the names of all suites" >&2
        return 2
    fi
    read -r _ file folder < <(grep "^$program " "$executables")
    run_test_program "--test $program" "${#names[@]}" "$file" "$folder" "$@" --exact "${names[@]}"
}

# run_test_program SELECTION COUNT FILE FOLDER ARGUMENT…: runs a test program as `cargo test` does. The selection is
# what selects it in `cargo test`, and the count that of its tests: the report requires that all of them ran.
run_test_program() {
    local selection=$1 count=$2 file=$3 folder=$4 full=""
    shift 4
    echo "expected tests: $count"
    # Tests that take minutes are marked as ignored, with the reason.
    [ -z "${test_full:-}" ] || full=" --include-ignored"
    # shellcheck disable=SC2086 # No word or one.
    (cd "$folder" && repeat_with "cargo test --workspace $selection --$full" "$file" $full "$@" </dev/null)
}

# repeat_with PREFIX COMMAND…: runs a command. In the report, the prefix and the name of a failed test repeat it.
repeat_with() {
    echo "repeat with: $1"
    shift
    "$@"
}

# Tests of these modules call `Network::new` of tests/harness, whose message is not shown if the test passes.
note_namespaces() {
    case "$1" in
        bad_input | make_run | pages | takeover)
            [ "${E2E:-on}" != off ] || echo "not run: tests that need a network namespace (E2E=off)"
            ;;
    esac
}

# Compares the instructions per request of the program in the image with the baseline. The suite `allocations` compares
# the allocations.
baseline() {
    cargo build --locked --quiet --workspace --bin portico-load &&
        target/debug/portico-load baseline --portico target/image-root-test/usr/bin/portico
}

# Compares Portico's validation with the CRDs of the Gateway API release, which are fetched and not part of the
# repository.
gateway_crds() {
    local folder
    if [ "${GATEWAY_CRDS:-on}" = off ]; then
        echo "not run: GATEWAY_CRDS=off"
        return "$not_run"
    fi
    if ! folder=$(bash scripts/gateway-crds.sh); then
        echo "Cannot fetch the CRDs of the Gateway API release, so nothing was compared with them." >&2
        echo "On machines without access, skip this suite with GATEWAY_CRDS=off; the summary shows it." >&2
        return 1
    fi
    PORTICO_GATEWAY_CRDS=$folder test_module library gateway_crds
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

# Prints "COMMAND --exact TEST" for each failed test in the log of a suite. Test programs list the failed tests after
# the last line `failures:` before their result, indented; after the first one comes what the tests printed.
failed_tests() {
    awk '
        sub(/^repeat with: /, "") { command = $0 }
        /^failures:$/ { split("", names); count = 0; listed = 1; next }
        listed && /^    [a-z_0-9:]+$/ { names[++count] = $1 }
        /^test result: / {
            for (number = 1; number <= count; number++) print command " --exact " names[number]
            listed = count = 0
        }' "$1" | sort -u
}
