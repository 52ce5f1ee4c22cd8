#!/usr/bin/env bash
# Runs the Gateway API conformance suite as `make test-full` does, and prints the passed profiles, tests and features.
# The exit code is that of the test, which also fails if a test was skipped, or if the results differ from
# e2e/conformance.json. With UPDATE=1, it writes that file and the table of the README.
#
# After a passed run, target/conformance has a folder with the reports as the Gateway API accepts them.
#
# Building the suite and the control plane takes about ten minutes, once.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# Without E2E=off, with which `make test` leaves out the suite.
unset E2E

if [ -n "${PORTICO_E2E_KUBECONFIG:-}" ]; then
    echo "conformance: not run: PORTICO_E2E_KUBECONFIG is set, but the suite needs a new cluster with a node" >&2
    exit 2
fi

main() {
    local code=0 name
    rm -rf target/conformance
    cargo build --locked --workspace --bins
    target/debug/portico-e2e build
    cargo test --locked --workspace --test e2e conformance:: -- --nocapture --include-ignored || code=$?
    if [ "$code" != 0 ]; then
        for name in experimental experimental-first experimental-two-replicas standard; do
            printf '\n'
            if [ -e "target/conformance/$name-report.yaml" ]; then
                target/debug/portico-e2e report "target/conformance/$name-report.yaml"
            else
                echo "$name: no report"
            fi
        done
        echo "conformance: failed; the suite's log is in target/conformance, Portico's log in target/e2e" >&2
        exit "$code"
    fi
    printf '\n'
    target/debug/portico-e2e submission target/conformance/{experimental,standard}-report.yaml
    echo "conformance: passed"
}

main "$@"
