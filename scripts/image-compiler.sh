#!/usr/bin/env bash
# Compiles a crate of the workspace for a static program: RUSTC_WORKSPACE_WRAPPER of scripts/image-root.sh --for-tests.
# Cargo calls it with the compiler and its arguments, for crates of the workspace only, so that dependencies need not be
# compiled again. Only the linker's input depends on the target feature.
set -euo pipefail

exec "$@" -C target-feature=+crt-static
