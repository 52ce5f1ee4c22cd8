#!/usr/bin/env bash
# Runs test suites, several side by side, and prints a table, then what failed and how to repeat it. A failing suite
# does not stop the others, but the exit code reports it. The last line is "N passed, N failed", for programs.
#
#   scripts/test.sh check        static checks that every change must pass
#   scripts/test.sh all          static checks, and all tests except those that are marked `only in make test-full`
#   scripts/test.sh full         static checks and all tests
#   scripts/test.sh list         the names of all suites
#   scripts/test.sh run SUITE…   these suites, one after another
#   scripts/test.sh changed [BASE]   what changed files can reach: see docs/development/tests.md
#   scripts/test.sh timings      the times of the last run as a table for docs/development/tests.md
#
# E2E=off skips tests that need network namespaces, for machines without root and user namespaces, and tests with a
# control plane, which need root. E2E=on runs them all, also on a machine that is too slow for some.
# PORTICO_E2E_KUBECONFIG names an existing cluster to use instead of new ones where possible: see docs/development/tests.md.
# GATEWAY_CRDS=off skips tests that need the CRDs of the Gateway API release, for machines that cannot fetch them.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# Property tests generate the same values in every run, so that a change passes or fails because of the change. `make
# explore` generates new ones.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"

# shellcheck source=scripts/suites.sh
source scripts/suites.sh
# shellcheck source=scripts/suite-report.sh
source scripts/suite-report.sh
# shellcheck source=scripts/changed.sh
source scripts/changed.sh
# The suites with a control plane that have not begun.
queue=$logs/cluster-queue

main() {
    case "${1:-all}" in
        check)
            # `tidy` is compiled from the sources as they are now.
            rm -f "$executables"
            start_run
            run_suites format lints docs dependencies tidy
            ;;
        all) start_run && run_all ;;
        full) start_run && test_full=on && run_all ;;
        list)
            build_tests >&2 && all_suites
            exit
            ;;
        run)
            shift
            [ $# -gt 0 ] || usage
            start_run
            run_suites build
            if passed build; then run_suites "$@"; fi
            ;;
        changed)
            shift
            [ $# -le 1 ] || usage
            plan_changed "$@"
            start_run
            run_changed
            ;;
        timings)
            timings
            exit
            ;;
        *) usage ;;
    esac
    finish_run
}

usage() {
    sed -n '/^#   scripts/s/^#   //p' scripts/test.sh >&2
    exit 2
}

# The suites that run in a lane, in this order. Lanes run side by side, so that what waits, such as tests with a control
# plane, leaves the cores to what computes. A suite that is not named here is in the lane `local`, or `cluster` if it has
# a control plane.
lane_of() {
    case "$1" in
        # What all others need. Nothing is tested if it does not compile.
        format | build) echo first ;;
        # What compiles or calls Cargo for this checkout, which waits for other commands of Cargo; and the counting of
        # instructions, which needs the program of the image.
        image-root | lints | docs | tidy | dependencies | doctests | make_run | baseline) echo cargo ;;
        # Its tests have no control plane.
        e2e-netns) echo local ;;
        e2e-*) echo cluster ;;
        *) echo local ;;
    esac
}

# Prints the suites of a lane, in the order of all suites.
suites_of() {
    local name
    for name in $(all_suites); do
        if [ "$(lane_of "$name")" = "$1" ]; then echo "$name"; fi
    done
}

run_all() {
    local lanes=() local_lane
    start_control_plane_build
    run_suites format build
    if ! passed build; then
        end_control_plane_build
        run_suites lints docs dependencies tidy
        return
    fi
    all_suites >"$planned"
    # shellcheck disable=SC2046 # One word for each suite, here and below.
    {
        run_after_others 5 $(suites_of local) &
        local_lane=$!
        lanes+=("$local_lane")
        # Tests with a control plane need the image.
        run_suites image-root
        run_cargo_lane &
        lanes+=($!)
        run_cluster_suites "$local_lane"
    }
    wait "${lanes[@]}"
}

run_cargo_lane() {
    run_after_others 10 $(suites_of cargo | grep -vx image-root)
    if passed image-root && passed lints && passed docs; then
        bash scripts/dependency-cache.sh save || say "the compiled dependencies were not saved for other checkouts"
        bash scripts/workspace-cache.sh save || say "what was compiled of the workspace was not saved for other clones"
    fi
}

# run_after_others NICENESS SUITE…: runs suites with the time that others leave. Clients of a control plane give up
# after seconds, so it must not wait for a compiler.
run_after_others() {
    renice -n "$1" -p "$BASHPID" >/dev/null
    shift
    run_suites "$@"
}

# On a new machine, the programs of the control plane take longest to build, so they are built during everything else.
start_control_plane_build() {
    control_plane_build=""
    [ "${E2E:-on}" != off ] || return 0
    say "Compiling the harness of the control plane, and what it needs: $logs/harness-build.log"
    cargo build --locked --workspace --bin portico-e2e >"$logs/harness-build.log" 2>&1 </dev/null || return 0
    target/debug/portico-e2e build >"$logs/control-plane-build.log" 2>&1 </dev/null &
    control_plane_build=$!
}

end_control_plane_build() {
    [ -z "$control_plane_build" ] || kill "$control_plane_build" 2>/dev/null
}

# run_cluster_suites LANE: runs the tests with a control plane. LANE is the process of the local lane, for whose end
# they wait on a slow machine.
run_cluster_suites() {
    local suites other
    [ "${E2E:-}" != off ] || return 0
    if [ -n "$control_plane_build" ] && kill -0 "$control_plane_build" 2>/dev/null; then
        say "Waiting for the programs of the control plane: $logs/control-plane-build.log"
        wait "$control_plane_build"
    fi
    # What the build in the background has finished is not built again. If it failed, this suite shows why.
    run_suites e2e-programs e2e-speed
    suites=$(suites_of cluster | grep -vx -e e2e-programs -e e2e-speed | long_first)
    if grep -q '^slow: ' "$logs/e2e-speed.log"; then
        [ "${E2E:-}" = on ] || [ -n "${test_full:-}" ] || export E2E_SLOW_MACHINE=yes
        say "$(grep '^slow: ' "$logs/e2e-speed.log"). Tests with a control plane wait for the local suites, and run" \
            "one after another${E2E_SLOW_MACHINE:+, without those that depend on timeouts: E2E=on runs them too}."
        wait "$1"
        # shellcheck disable=SC2086 # One word for each suite, here and below.
        run_suites $suites
    elif [ -n "${PORTICO_E2E_KUBECONFIG:-}" ]; then
        # Tests share the existing cluster, so they run one after another.
        # shellcheck disable=SC2086
        run_suites $suites
    else
        echo "$suites" >"$queue"
        run_from_queue &
        other=$!
        run_from_queue
        wait "$other"
    fi
}

# Sorts the names of suites so that those that take minutes come first: what begins last should end soon.
long_first() {
    local long="e2e-scenarios e2e-helm e2e-conformance e2e-guide" all name
    all=$(cat)
    for name in $long; do grep -x "$name" <<<"$all"; done
    grep -vxF "${long// /$'\n'}" <<<"$all"
}

# Runs the suites of the queue until none is left. Several calls share the queue, so that none is idle before the end.
run_from_queue() {
    local name
    while name=$(take_from_queue) && [ -n "$name" ]; do
        run_suites "$name"
    done
}

take_from_queue() (
    exec {lock}>"$queue.lock"
    flock "$lock"
    head -n 1 "$queue"
    sed -i 1d "$queue"
)

main "$@"
