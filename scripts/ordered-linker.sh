#!/usr/bin/env bash
# Links the program of a release in less memory. Everything else, such as build scripts, is linked as usual.
#
# The kernel maps the code of a program in parts of 64 KiB. A process at rest has run a fifth of the code, but in nearly
# all of these parts. So the functions of scripts/function-order.txt, which were run, are placed next to each other.
# The compiler adds a hash to the name of each function, which changes with the version of the crate: if no function has
# a recorded hash, all with its name are placed there.
#
# Relocations are written in the packed form (DT_RELR), because the program reads all of them when it starts.
set -euo pipefail

list=${BASH_SOURCE[0]%/*}/function-order.txt

main() {
    local output=""
    output=$(output_of "$@")
    [[ $output == */deps/portico-* ]] || exec cc "$@"

    function_names "$@" | order >"$output.order"
    local options=("-Wl,--symbol-ordering-file=$output.order" -Wl,--no-warn-symbol-ordering)
    if reads_packed_relocations; then options+=(-Wl,-z,pack-relative-relocs); fi
    cc "$@" "${options[@]}"
    rm "$output.order"
}

# Prints the value of the option -o.
output_of() {
    while [ $# -gt 1 ]; do
        if [ "$1" = -o ]; then echo "$2" && return; fi
        shift
    done
}

# Prints the names of the functions in all object files.
function_names() {
    local file
    for file in "$@"; do
        case "$file" in *.o | *.rlib) nm --defined-only --format=posix --quiet "$file" ;; esac
    done | awk '$2 ~ /^[tTwW]$/ { print $1 }'
}

# Prints those of the names on standard input that the list has, in the order of the list.
order() {
    awk '
        # The name without its hash; `hash` is the beginning of the hash.
        function without_hash(name, length_) {
            sub(/\.llvm\.[0-9]+$/, "", name)
            length_ = length(name)
            hash = ""
            if (substr(name, length_ - 19, 3) != "17h" || substr(name, length_) != "E") return name
            hash = substr(name, length_ - 16, 8)
            return substr(name, 1, length_ - 20)
        }
        NR == FNR {
            names[++count] = $1
            is_listed[$1] = 1
            for (field = 2; field <= NF; field++) has_hash[$1 " " $field] = 1
            next
        }
        {
            name = without_hash($1)
            if (!(name in is_listed)) next
            if (hash == "" || (name " " hash) in has_hash) exact[name] = exact[name] $1 "\n"
            else similar[name] = similar[name] $1 "\n"
        }
        END {
            for (number = 1; number <= count; number++) {
                name = names[number]
                printf "%s", (name in exact) ? exact[name] : similar[name]
            }
        }
    ' "$list" -
}

# Whether the C library applies packed relocations to a static program: glibc from 2.36 on.
reads_packed_relocations() {
    local version
    version=$(getconf GNU_LIBC_VERSION) || return 1
    [ "$(printf '%s\n' 2.36 "${version#glibc }" | sort --version-sort | head -n 1)" = 2.36 ]
}

main "$@"
