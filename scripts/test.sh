#!/usr/bin/env bash
# Runs the suites one after another and ends with a table. A suite that fails does not stop the others, but the exit
# code tells. The last line is "N passed, N failed", alone, for programs.
#
#   scripts/test.sh check    what a change must pass first
#   scripts/test.sh all      that, and every test
#
# E2E=off leaves out what needs a network namespace, where neither root nor user namespaces can be had, and what needs
# a control plane, which takes root.
# PORTICO_E2E_KUBECONFIG names a cluster to use in place of one of our own, as far as that goes: CONTRIBUTING.md.
# GATEWAY_CRDS=off leaves out what needs the CRDs of the Gateway API release, where they cannot be fetched.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

logs=target/test-logs
rows=()
passed=0
failed=0

main() {
    rm -rf "$logs"
    mkdir -p "$logs"
    local started=$SECONDS
    case "${1:-all}" in
        check) check_suites ;;
        all)
            check_suites
            test_suites
            ;;
        *) echo "usage: scripts/test.sh [check|all]" >&2 && exit 2 ;;
    esac
    summary $((SECONDS - started))
    [ "$failed" = 0 ]
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
    # One build for all test programs, so that the time of each suite below is the time of its tests. All are of the whole
    # workspace: for one package alone, crates would have other features and be built once more.
    suite build cargo test --locked --workspace --all-targets --no-run
    suite unit cargo test --locked --workspace --lib --bins --no-fail-fast
    local file name
    for file in tests/*.rs tests/*/main.rs; do
        name=${file#tests/}
        name=${name%/main.rs}
        name=${name%.rs}
        case "$name" in
            tidy) ;; # Ran with the checks.
            gateway_crds)
                if [ "${GATEWAY_CRDS:-on}" = off ]; then
                    rows+=("$name|0|0|0|not run: GATEWAY_CRDS=off")
                else
                    suite "$name" gateway_crds
                fi
                ;;
            bad_input | make_run | pages | takeover)
                suite "$name" cargo test --locked --workspace --test "$name"
                [ "${E2E:-on}" != off ] || rows[-1]+=" not run: what needs a network namespace (E2E=off)"
                ;;
            *) suite "$name" cargo test --locked --workspace --test "$name" ;;
        esac
    done
    suite doctests cargo test --locked --workspace --doc
    suite check-examples check_examples
    cluster_suites
}

# What needs a control plane, last, because it takes minutes. Its programs come first, so that nobody takes building them
# for a test that hangs, and each test says what it is doing.
cluster_suites() {
    local file name
    if [ "${E2E:-on}" = off ]; then
        rows+=("e2e|0|0|0|not run: E2E=off")
        return
    fi
    suite e2e-programs target/debug/portico-e2e build
    # What Portico's own Pods consist of. Built again only where something has changed.
    suite image-root bash scripts/image-root.sh
    for file in e2e/tests/*.rs; do
        name=$(basename "$file" .rs)
        suite "e2e-$name" cargo test --locked --workspace --test "$name" -- --nocapture
    done
}

# Our reading of the Gateway API against the CRDs of its release, which are fetched and not kept in the tree.
gateway_crds() {
    local folder
    if ! folder=$(bash scripts/gateway-crds.sh); then
        echo "The CRDs of the Gateway API release could not be fetched, so nothing was compared with them." >&2
        echo "Where that cannot be helped, GATEWAY_CRDS=off leaves this out, and the summary says so." >&2
        return 1
    fi
    PORTICO_GATEWAY_CRDS=$folder cargo test --locked --workspace --test gateway_crds
}

# What a newcomer runs first has to be free of remarks.
check_examples() {
    local folder strict
    for folder in examples/*/; do
        echo "portico check $folder"
        strict=(--warnings-as-errors)
        # Its cors is read otherwise by Kong, which is remarked on purpose; tests/examples.rs knows that remark and no other.
        if [ "$folder" = examples/kong/ ]; then strict=(); fi
        target/debug/portico check "${strict[@]}" "$folder" || return 1
    done
}

# Runs one suite under a name, shows its output, keeps it, and counts: the tests it reports, else the suite as one.
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
    if [ "$1" = 0 ] && [ "$code" = 0 ]; then
        good=1
    elif [ "$code" != 0 ] && [ "$bad" = 0 ]; then
        # It failed outside of any test: it did not compile, or a process died.
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
    echo "$passed passed, $failed failed"
}

main "$@"
