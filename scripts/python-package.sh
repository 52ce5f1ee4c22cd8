# Installs programs from Python packages. Sourced by scripts that print the path of a program; each has its name in
# `script`, its cache in `cache` and, after `enter_work_folder`, a folder for what is temporary in `work`.
# shellcheck shell=bash

cache=${XDG_CACHE_HOME:-$HOME/.cache}/portico

# Creates a folder that is removed at the end of the script. It is in the cache, so that a complete installation can be
# moved to its place at once.
enter_work_folder() {
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.$script.XXXXXX")
    trap 'rm -rf "$work"' EXIT
}

# install_python_package PACKAGE: installs a package, or several with other arguments of pip, and prints the folder of the
# environment's modules.
install_python_package() {
    command -v python3 >/dev/null || fail "python3 is missing; install the Debian package python3-venv"
    python3 -m venv "$work/venv" >&2 || fail "python3 has no venv; install the Debian package python3-venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "$@" >&2 ||
        fail "cannot install the Python package $*"
    echo "$work"/venv/lib/python3*/site-packages
}

# move_to_cache FOLDER TARGET: another process may have moved its own there already.
move_to_cache() {
    [[ -d $2 ]] || mv -T "$1" "$2" 2>/dev/null || [[ -d $2 ]]
}

fail() {
    echo "$script: $*" >&2
    exit 1
}
