#!/usr/bin/env bash
# Compiles a crate of the workspace for a static program: RUSTC_WORKSPACE_WRAPPER of scripts/image-root.sh --for-tests.
# Cargo calls it with the compiler and its arguments, for crates of the workspace only, so that dependencies need not be
# compiled again.
set -euo pipefail

# The target feature makes the linker produce a static program. Link-time optimization takes longer than it is worth.
exec "$@" -C target-feature=+crt-static -C lto=off
