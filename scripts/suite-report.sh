# Runs suites, and reports what they do, how long that took last time, and what failed. Sourced by scripts/test.sh. A
# message about what runs is one line, because suites run side by side; their output is in their logs.
# shellcheck shell=bash

# A file for each suite in these folders: what runs, and the results, as "name|passed|failed|ignored|seconds|
# seconds of CPU time|note".
running=$logs/running
results=$logs/results
# The names of the suites that must have a result at the end of a complete run.
planned=$logs/planned
# The seconds that each suite took last time, outside of the checkout, so that a fresh clone has them.
last_times="${XDG_CACHE_HOME:-$HOME/.cache}/portico/test-times"
# How often a message says what runs.
progress_interval=60

start_run() {
    rm -rf "$running" "$results" "$planned" "$logs"/*.log
    mkdir -p "$running" "$results" "$last_times"
    run_started=$SECONDS
    report_progress &
    progress_reporter=$!
    trap 'kill "$progress_reporter" 2>/dev/null' EXIT
    # Suites in the background would ignore Ctrl-C.
    trap 'trap - INT TERM; kill -TERM 0' INT TERM
}

# Runs these suites one after another.
run_suites() {
    local name
    for name in "$@"; do
        run_suite "$name"
    done
}

# Runs a suite, logs its output, and counts the tests that it reports, or the suite as one test.
run_suite() {
    local name=$1 log="$logs/$1.log" started=$SECONDS code=0 counts note="" seconds cpu TIMEFORMAT='%U %S'
    say "$name: started$(last_time "$name")"
    echo "$started" >"$running/$name"
    cpu=$({ time { (suite_command "$name") >"$log" 2>&1 </dev/null; }; } 2>&1) || code=$?
    rm "$running/$name"
    seconds=$((SECONDS - started))
    cpu=$(awk '{ printf "%.0f", $1 + $2 }' <<<"$cpu")
    counts=$(count_tests "$log")
    # shellcheck disable=SC2086 # Five numbers.
    set -- $counts
    local has_results=$1 good=$2 bad=$3 ignored=$4 expected=$5
    if [ "$code" = "$not_run" ]; then
        good=0
    elif [ "$code" != 0 ] && [ "$bad" = 0 ]; then
        # The failure is outside of any test: a compile error, or a crash.
        bad=1
    elif [ "$expected" != 0 ] && [ "$expected" != $((good + bad + ignored)) ]; then
        echo "$((good + bad + ignored)) of $expected tests ran" >>"$log"
        bad=$((bad + 1))
    elif [ "$has_results" = 0 ]; then
        good=1
    fi
    [ "$ignored" = 0 ] || note="$ignored only in make test-full"
    # A suite none of whose tests ran has not passed.
    if [ "$ignored" != 0 ] && [ "$good" = 0 ] && [ "$bad" = 0 ]; then
        note="not run: make test-full"
        code=$not_run
    fi
    note_not_run "$log"
    [ "$bad" = 0 ] || note="see $log"
    add_row "$name" "$good" "$bad" "$ignored" "$seconds" "$cpu" "$note"
    if [ "$bad" != 0 ]; then
        say "$name: $bad FAILED, $good passed in $seconds s"
        # In one call, so that lines of other suites do not mix with it.
        printf '%s\n' "$(failures "$name")"
    elif [ "$code" = "$not_run" ]; then
        say "$name: $note"
    else
        echo "$seconds" >"$last_times/$name"
        say "$name: $good passed in $seconds s"
    fi
}

# Sets `note` if the log has lines of tests that did not run, and subtracts those of single tests from `good`, because
# libtest counts them as passed.
note_not_run() {
    local lines single
    lines=$(grep -E '^(test [^ ]+ \.\.\. )?not run: ' "$1")
    [ -n "$lines" ] || return 0
    single=$(grep -c '^test ' <<<"$lines")
    good=$((good - single))
    note=$(head -n 1 <<<"$lines" | sed -E 's/^test [^ ]+ \.\.\. //')
    [ "$single" -le 1 ] || note="not run: $single tests: ${note#not run: *: }"
}

# Prints whether a log has results of tests, the numbers of those that passed, failed and were ignored, and how many
# were expected.
count_tests() {
    awk '
        /^expected tests: / { expected += $3 }
        /^test result: / {
            seen = 1
            for (field = 2; field <= NF; field++) {
                if ($field == "passed;") passed += $(field - 1)
                if ($field == "failed;") failed += $(field - 1)
                if ($field == "ignored;") ignored += $(field - 1)
            }
        }
        END { print seen + 0, passed + 0, failed + 0, ignored + 0, expected + 0 }' "$1"
}

add_row() {
    local IFS='|'
    echo "$*" >"$results/$1"
}

# Whether a suite has run and passed.
passed() {
    [ -e "$results/$1" ] && [ "$(cut -d '|' -f 3 "$results/$1")" = 0 ]
}

# Prints a message with the time since the start of the run.
say() {
    local seconds=$((SECONDS - run_started))
    printf '[%2d:%02d] %s\n' $((seconds / 60)) $((seconds % 60)) "$*"
}

# Prints how long a suite took last time, in parentheses.
last_time() {
    if [ -s "$last_times/$1" ]; then echo " (last time: $(cat "$last_times/$1") s)"; fi
}

report_progress() {
    local path text since
    # Without the output of the run: the last sleep would keep it open when the run has ended.
    while sleep "$progress_interval" >/dev/null 2>&1 </dev/null; do
        text=""
        for path in "$running"/*; do
            # The suite may end now.
            since=$(cat "$path" 2>/dev/null)
            [ -z "$since" ] || text+=", ${path##*/} for $((SECONDS - since)) s$(last_time "${path##*/}")"
        done
        [ -z "$text" ] || say "running: ${text#, }"
    done
}

# Prints the failed tests of a suite with the commands that repeat them, and what they reported. A suite that failed
# outside of its tests is shown by its last lines.
failures() {
    local name=$1 log="$logs/$1.log" commands
    printf '==> %s failed\n' "$name"
    [ -e "$log" ] || return 0
    commands=$(failed_tests "$log")
    if [ -n "$commands" ]; then
        printf '%s\n' "$commands" | sed 's/^/    /'
        grep -A 12 ' panicked at ' "$log" | grep -v -e ' at /' -e '^ *[0-9]*: ' -e 'stack backtrace:' | head -n 60
    else
        printf '    scripts/test.sh run %s\n' "$name"
        tail -n 30 "$log"
    fi
    echo
}

# Ends a run: prints the table and what failed. Fails if a suite failed or did not run.
finish_run() {
    local name good bad seconds cpu note total_good=0 total_bad=0 total_cpu=0 total=$((SECONDS - run_started))
    kill "$progress_reporter" 2>/dev/null
    if [ -e "$planned" ]; then
        while read -r name; do
            [ -e "$results/$name" ] || add_row "$name" 0 1 0 0 0 "did not run"
        done <"$planned"
    fi
    # A suite that waits has little CPU time, and a suite that takes longer than last time with the same CPU time waited
    # for others.
    printf '\n%-20s %8s %8s %8s %8s\n' suite passed failed time CPU
    printf -- '--------------------------------------------------------\n'
    while IFS='|' read -r name good bad _ seconds cpu note; do
        printf '%-20s %8d %8d %7ds %7ds  %s\n' "$name" "$good" "$bad" "$seconds" "$cpu" "$note"
        total_cpu=$((total_cpu + cpu))
        total_good=$((total_good + good))
        total_bad=$((total_bad + bad))
    done < <(cat "$results"/*)
    printf -- '--------------------------------------------------------\n'
    printf '%-20s %8d %8d %7ds %7ds\n\n' total "$total_good" "$total_bad" "$total" "$total_cpu"
    for name in "$results"/*; do
        passed "${name##*/}" || failures "${name##*/}"
    done
    echo "$total_good passed, $total_bad failed"
    [ "$total_bad" = 0 ] && [ "$total_good" != 0 ]
}

# Prints the results of the last run as a Markdown table, the longest suite first.
timings() {
    echo "| suite | tests | seconds | seconds of CPU time |"
    echo "| --- | --- | --- | --- |"
    cat "$results"/* | sort -t '|' -k 5,5nr | awk -F '|' '{ print "| `" $1 "` | " $2 + $3 " | " $5 " | " $6 " |" }'
}
