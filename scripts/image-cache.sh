#!/usr/bin/env bash
# Keeps the program of the image of the tests outside of the checkout, so that it is compiled once for the same sources:
# a change of tests, also of unit tests, of pages or of the chart need not compile it again.
#
#   scripts/image-cache.sh restore PROGRAM   puts the program there; fails if it has to be compiled
#   scripts/image-cache.sh save PROGRAM      saves the program that was compiled after a call of `restore`
#
# A program that is missing or corrupt costs only the time to compile.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

script=image-cache
folder="${XDG_CACHE_HOME:-$HOME/.cache}/portico/images"
kept=3
# shellcheck source=scripts/cache-files.sh
source scripts/cache-files.sh
# Prints the names and the texts of files without their unit tests, which are not in the program. rustfmt leaves the
# brace that ends them alone in its line.
# shellcheck disable=SC2016 # Fields of awk.
without_unit_tests='
    FNR == 1 { print FILENAME; in_tests = 0; previous = "" }
    $0 == "mod tests {" && previous == "#[cfg(test)]" { in_tests = 1 }
    !in_tests { print }
    $0 == "}" { in_tests = 0 }
    { previous = $0 }'
# Folders with the sources of the program.
sources=(crates src)
# All files from which the program is compiled, and what decides how.
inputs=(Cargo.lock Cargo.toml benches/load/Cargo.toml e2e/Cargo.toml .cargo/config.toml rust-toolchain.toml
    scripts/image-root.sh scripts/image-compiler.sh "${sources[@]}")

main() {
    [ $# = 2 ] || usage
    case "$1" in
        restore) restore "$2" ;;
        save) save "$2" ;;
        *) usage ;;
    esac
}

usage() {
    echo "usage: scripts/image-cache.sh [restore|save] PROGRAM" >&2
    exit 2
}

restore() {
    local key
    key=$(cache_key)
    mkdir -p "$(dirname "$1")"
    echo "$key" >"$1.key"
    is_kept "$key.program" "the program is compiled" || return 1
    install -D -m 0755 "$folder/$key.program" "$1"
    echo "image-cache: using the program that this machine has compiled before from the same sources"
}

save() {
    local key other
    other=$(other_inputs "$1.d")
    if [ -n "$other" ]; then
        echo "image-cache: the program is not kept, because it is also compiled from $other, which is not listed in" \
            "scripts/image-cache.sh" >&2
        return 1
    fi
    key=$(cache_key)
    if [ "$(cat "$1.key")" != "$key" ]; then
        echo "image-cache: the program is not kept, because sources have changed while it was compiled" >&2
        return 1
    fi
    begin_keeping
    cp "$1" "$work"
    keep "$key.program"
}

# Prints a file that Cargo lists as a source of the program, and that the key does not contain.
other_inputs() {
    # A line of "PROGRAM: FILE FILE…".
    sed 's/^[^:]*: *//' "$1" | tr ' ' '\n' | awk -v folder="$PWD/" -v own="${sources[*]}" '
        BEGIN { count = split(own, folders, " ") }
        NF {
            for (number = 1; number <= count; number++) if (index($0, folder folders[number] "/") == 1) next
            if (!found++) print
        }'
}

cache_key() {
    {
        find "${inputs[@]}" -type f ! -name '*.rs' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        find "${sources[@]}" -type f -name '*.rs' -print0 | LC_ALL=C sort -z | xargs -0 awk "$without_unit_tests"
        rustc --version --verbose
        cc --version
        echo "${RUSTFLAGS:-} ${CFLAGS:-} ${PORTICO_COMMIT:-}"
    } | sha256sum | cut -c -16
}

main "$@"
