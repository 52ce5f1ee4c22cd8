#!/usr/bin/env bash
# Keeps the program of the image of the tests outside of the checkout, so that it is compiled once for the same sources:
# a change of tests, pages or the chart need not compile it again.
#
#   scripts/image-cache.sh restore PROGRAM   puts the program there; fails if it has to be compiled
#   scripts/image-cache.sh save PROGRAM      saves the program that was compiled after a call of `restore`
#
# A program that is missing or corrupt costs only the time to compile.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

folder="${XDG_CACHE_HOME:-$HOME/.cache}/portico/images"
# Number of programs that are kept.
kept=3
# All files from which the program is compiled, and what decides how.
inputs=(Cargo.lock Cargo.toml benches/load/Cargo.toml e2e/Cargo.toml .cargo/config.toml rust-toolchain.toml
    scripts/image-root.sh scripts/image-compiler.sh src)

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
    [ -e "$folder/$key" ] || return 1
    if ! (cd "$folder" && sha256sum --status --check "$key.sha256") 2>/dev/null; then
        echo "image-cache: $folder/$key is corrupt, so it is removed and the program is compiled" >&2
        rm -f "$folder/$key" "$folder/$key.sha256"
        return 1
    fi
    install -D -m 0755 "$folder/$key" "$1"
    echo "image-cache: using the program that this machine has compiled before from the same sources"
    # For the order in which programs are removed.
    touch "$folder/$key" 2>/dev/null || true
}

save() {
    local key work other name
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
    mkdir -p "$folder"
    # Leftovers of calls that were killed.
    find "$folder" -name '.saving.*' -mmin +60 -delete
    work=$(mktemp "$folder/.saving.XXXXXX")
    # shellcheck disable=SC2064 # The name of now.
    trap "rm -f '$work'" EXIT
    cp "$1" "$work"
    # The checksum comes first, because a program without one is taken for corrupt.
    echo "$(sha256sum "$work" | cut -d ' ' -f 1)  $key" >"$folder/$key.sha256"
    mv "$work" "$folder/$key"
    # Removes those that were not used for longest.
    find "$folder" -type f ! -name '*.sha256' ! -name '.*' -printf '%T@ %f\n' | sort -rn | tail -n +$((kept + 1)) |
        cut -d ' ' -f 2- | while IFS= read -r name; do rm -f "${folder:?}/$name" "$folder/$name.sha256"; done
}

# Prints a file that Cargo lists as a source of the program, and that the key does not contain.
other_inputs() {
    local file
    # A line of "PROGRAM: FILE FILE…".
    sed 's/^[^:]*: *//' "$1" | tr ' ' '\n' | while IFS= read -r file; do
        case "$file" in
            "" | "$PWD"/src/*) ;;
            *) echo "$file" && return ;;
        esac
    done
}

cache_key() {
    {
        find "${inputs[@]}" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        rustc --version --verbose
        cc --version
        echo "${RUSTFLAGS:-} ${CFLAGS:-} ${PORTICO_COMMIT:-}"
    } | sha256sum | cut -c -16
}

main "$@"
