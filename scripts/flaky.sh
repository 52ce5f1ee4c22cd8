#!/usr/bin/env bash
# Runs suites repeatedly on a machine that pauses: both cores are busy with something else, and every few seconds, one
# process of the suite, or all of them, are stopped for 0.2 to 2 s. Prints which tests failed how often. A test that
# fails here, and nowhere else, depends on an unpaused machine.
#
#   scripts/flaky.sh ROUNDS SUITE…   scripts/test.sh list prints the names of all suites
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"

# shellcheck source=scripts/suites.sh
source scripts/suites.sh

# A log and a list of pauses for each round.
rounds_folder=target/flaky
background=()

main() {
    if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || [ $# -lt 2 ]; then
        echo "usage: scripts/flaky.sh ROUNDS SUITE…" >&2
        exit 2
    fi
    local rounds=$1 suite round core failed=0
    shift
    rm -rf "$rounds_folder"
    mkdir -p "$rounds_folder"
    build_tests || exit 1
    case " $* " in *" e2e-"*) target/debug/portico-e2e build && bash scripts/image-root.sh --for-tests || exit 1 ;; esac
    trap end_background EXIT
    trap 'exit 130' INT TERM
    for core in $(seq "$(nproc)"); do
        echo "keeping core $core busy"
        (while :; do :; done) &
        background+=($!)
    done
    for suite in "$@"; do
        for round in $(seq "$rounds"); do
            run_round "$suite" "$round" || failed=$((failed + 1))
        done
    done
    summary
    echo "$failed of $((rounds * $#)) rounds failed"
    [ "$failed" = 0 ]
}

run_round() {
    local suite=$1 round=$2 started=$SECONDS code=0 outcome=passed tested pauser
    local log=$rounds_folder/$1-$2.log pauses=$rounds_folder/$1-$2.pauses
    suite_command "$suite" >"$log" 2>&1 </dev/null &
    tested=$!
    pause_at_random "$tested" >"$pauses" &
    pauser=$!
    background+=("$tested" "$pauser")
    wait "$tested" || code=$?
    kill "$pauser" 2>/dev/null
    wait "$pauser" 2>/dev/null
    [ "$code" = 0 ] || [ "$code" = "$not_run" ] || outcome=FAILED
    echo "$suite, round $round: $outcome after $((SECONDS - started)) s with $(wc -l <"$pauses") pauses"
    [ "$outcome" = passed ]
}

# Stops processes below this one until it has ended: half of the times one of them, half of the times all.
pause_at_random() {
    local parent=$1 chosen="" process processes milliseconds
    # A process that stays stopped would hang the suite.
    # shellcheck disable=SC2086 # One word for each process.
    trap 'kill -CONT $chosen 2>/dev/null; exit' TERM
    while kill -0 "$parent" 2>/dev/null; do
        pause_for $((RANDOM % 3000))
        mapfile -t processes < <(descendants "$parent")
        [ "${#processes[@]}" -gt 0 ] || continue
        chosen=${processes[*]}
        [ $((RANDOM % 2)) = 0 ] || chosen=${processes[RANDOM % ${#processes[@]}]}
        milliseconds=$((RANDOM % 1800 + 200))
        # shellcheck disable=SC2086
        kill -STOP $chosen 2>/dev/null
        pause_for "$milliseconds"
        # shellcheck disable=SC2086
        kill -CONT $chosen 2>/dev/null
        echo "$milliseconds ms:" $(for process in $chosen; do cat "/proc/$process/comm" 2>/dev/null; done)
    done
}

# Waits for this number of milliseconds. Unlike a command in the foreground, `wait` lets a signal end it.
pause_for() {
    sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))" &
    wait $!
}

# Prints the IDs of the processes below this one.
descendants() {
    grep -H '^PPid:' /proc/[0-9]*/status 2>/dev/null | sed 's|^/proc/||; s|/status:PPid:||' | awk -v top="$1" '
        { parent[$1] = $2 }
        END {
            for (process in parent)
                for (above = parent[process]; above in parent; above = parent[above])
                    if (above == top) { print process; break }
        }'
}

# Prints the failed tests, with the number of rounds in which each failed.
summary() {
    local log
    for log in "$rounds_folder"/*.log; do failed_tests "$log"; done | sort | uniq -c | sort -rn
}

end_background() {
    local process
    for process in "${background[@]}"; do
        # shellcheck disable=SC2046 # One word for each process.
        kill "$process" $(descendants "$process") 2>/dev/null
    done
}

main "$@"
