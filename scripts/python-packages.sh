#!/usr/bin/env bash
# Prints a folder with a Python environment, for tests with partners that are written in Python or come in its packages.
# They are installed into a cache the first time: run FOLDER/bin/python, and programs of packages as its modules.
#
#   scripts/python-packages.sh FILE   FILE lists packages with their versions, a line each, also those that others need
set -euo pipefail
cd "$(dirname "$0")/.."

script=python-packages.sh
# shellcheck source=scripts/python-package.sh
source scripts/python-package.sh

main() {
    [[ -n ${1:-} ]] || fail "usage: scripts/python-packages.sh FILE"
    local target
    # Packages of another Python would not be found. Without one, the installation fails and says so.
    target=$cache/python-packages-$({
        python3 --version 2>/dev/null || true
        cat scripts/python-packages.sh scripts/python-package.sh "$1"
    } | sha256sum | cut -c1-16)
    if [[ ! -d $target ]]; then
        enter_work_folder
        install_python_package --no-deps --requirement "$1" >/dev/null
        move_to_cache "$work/venv" "$target"
    fi
    echo "$target"
}

main "$@"
