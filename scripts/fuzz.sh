#!/usr/bin/env bash
# Fuzzes each target for some time and prints a table: scripts/fuzz.sh SECONDS [TARGET…]. Fails if an input breaks a
# property, takes longer than ten seconds, or needs too much memory.
#
# Inputs that reach new code are kept in target/fuzz/corpus, where the next run continues. The committed inputs in
# fuzz/corpus are read only.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

version=0.13.2
build=target/fuzz
programs=$build/$(rustc -vV | sed -n 's/^host: //p')/release
# As in cargo-fuzz. Leaks are found by libFuzzer's limit of memory.
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_odr_violation=0"

main() {
    local duration=${1:?usage: scripts/fuzz.sh SECONDS [TARGET…]} known targets target
    shift
    known=$(find fuzz/fuzz_targets -name '*.rs' -printf '%f\n' | sed 's/\.rs$//' | sort)
    targets=${*:-$known}
    for target in $targets; do
        grep -qx "$target" <<<"$known" || fail "no target is named $target; choose one of: $(tr '\n' ' ' <<<"$known")"
    done
    [[ "$duration" =~ ^[1-9][0-9]*$ ]] || fail "SECONDS=$duration is not a number of seconds; write for example SECONDS=60"
    compile ${*:+"$@"}
    local rows=() failed=0 row
    for target in $targets; do
        echo "Fuzzing $target for $duration seconds"
        row=$(fuzz "$target" "$duration") || failed=$((failed + 1))
        rows+=("$row")
    done
    echo
    printf '%s\n' "TARGET|EXECUTIONS|NEW INPUTS|RESULT" "${rows[@]}" | column -t -s '|'
    [ "$failed" = 0 ] || reproduction "$failed"
    [ "$failed" = 0 ]
}

# Builds all targets, or only one.
compile() {
    local tool
    tool=$(bash scripts/cargo-tool.sh cargo-fuzz "$version")
    cp Cargo.lock fuzz/Cargo.lock
    local target
    for target in "${@:-}"; do
        # One codegen unit for each crate, as cargo-fuzz has it, would leave most cores idle.
        RUSTUP_TOOLCHAIN=nightly "$tool" build --target-dir "$build" --codegen-units 16 ${target:+"$target"} </dev/null
    done
}

# Runs a target and prints its row of the table. Fails if an input fails.
fuzz() {
    local target=$1 duration=$2 corpus=$build/corpus/$1 failures=$build/failures/$1 log=$build/$1.log result=passed
    mkdir -p "$corpus" "$failures"
    "$programs/$target" -max_total_time="$duration" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$failures/" "$corpus" "fuzz/corpus/$target" </dev/null >"$log" 2>&1 || result=failed
    if [ "$result" = failed ]; then
        # libFuzzer names the file after the kind of failure.
        result="failed: $(sed -n 's/.*Test unit written to //p' "$log" | tail -1)"
        grep -A 3 "panicked at" "$log" >&2 || tail -20 "$log" >&2
    fi
    local executions new
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    new=$(sed -n 's/^stat::new_units_added: *//p' "$log")
    echo "$target|${executions:-?}|${new:-?}|$result"
    [ "$result" = passed ]
}

reproduction() {
    cat <<END

$1 failed. The file in the last column is the input; $build/TARGET.log has the whole message. To reproduce a failure:
  $programs/TARGET FILE
When it is fixed, keep the input, so that \`make test\` runs it:
  cp FILE fuzz/corpus/TARGET/what-failed
END
}

fail() {
    echo "fuzz: $*" >&2
    exit 1
}

main "$@"
