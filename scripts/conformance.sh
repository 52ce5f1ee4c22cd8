#!/usr/bin/env bash
# Runs the Gateway API conformance suite as `make test` does, and says what passed: profiles, tests, features. The exit
# code is the suite's, and tells too whether every feature that Portico promises was tested.
#
# Building the suite and the control plane takes about ten minutes, once.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# Left out on purpose is not passed.
unset E2E

if [ -n "${PORTICO_E2E_KUBECONFIG:-}" ]; then
    echo "conformance: not run: PORTICO_E2E_KUBECONFIG names a cluster, and the suite's Pods need a node of our own" >&2
    exit 2
fi

main() {
    local code=0 name
    rm -rf target/conformance
    cargo build --locked --workspace --bins
    target/debug/portico-e2e build
    cargo test --locked --workspace --test conformance -- --nocapture || code=$?
    for name in experimental standard; do
        printf '\n'
        if [ -e "target/conformance/$name-report.yaml" ]; then
            target/debug/portico-e2e report "target/conformance/$name-report.yaml"
        else
            echo "$name: there is no report"
        fi
    done
    if [ "$code" != 0 ]; then
        echo "conformance: failed; what the suite said is in target/conformance, what Portico said in target/e2e" >&2
        exit "$code"
    fi
    echo "conformance: passed; reports are in target/conformance"
}

main "$@"
