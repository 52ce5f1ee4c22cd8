#!/usr/bin/env bash
# Compiles a crate of the workspace for a static program: RUSTC_WORKSPACE_WRAPPER of scripts/image-root.sh --for-tests.
# Cargo calls it with the compiler and its arguments, for crates of the workspace only, so that dependencies need not be
# compiled again.
set -euo pipefail

# Cargo asks about the target without the flags below: with static linking, a target supports no procedural macros.
for argument in "$@"; do
    case "$argument" in --print*) exec "$@" ;; esac
done
# The target feature makes the linker produce a static program. Link-time optimization takes longer than it is worth.
exec "$@" -C target-feature=+crt-static -C lto=off
