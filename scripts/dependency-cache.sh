#!/usr/bin/env bash
# Keeps the compiled dependencies of a debug build outside of the checkout, so that a fresh clone need not compile them
# again. A cache belongs to one lock file, toolchain, set of features and profile.
#
#   scripts/dependency-cache.sh restore   puts them into target/debug, if there is no build yet
#   scripts/dependency-cache.sh save      saves those in target/debug, if they are more than the cache has
#
# A cache that is missing, incomplete or corrupt costs only the time to compile. Cargo itself decides what it uses
# again: it compares what each crate was compiled with, and everything from a registry has the same path in each
# checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

script=dependency-cache
folder="${XDG_CACHE_HOME:-$HOME/.cache}/portico/dependencies"
# Those of the last changes of dependencies.
kept=2
# shellcheck source=scripts/cache-files.sh
source scripts/cache-files.sh
# The key with which target/debug began. A build folder that has seen other dependencies still has them, so it is not
# saved.
began=target/debug/.dependencies-key

main() {
    case "${1:-}" in
        restore) restore ;;
        save) save ;;
        *) echo "usage: scripts/dependency-cache.sh [restore|save]" >&2 && exit 2 ;;
    esac
}

restore() {
    [ ! -e target/debug/.fingerprint ] || return 0
    local key archive
    key=$(build_key)
    archive=$folder/$key.tar
    # What an interrupted call left is useless without fingerprints.
    rm -rf target/restored target/debug/deps target/debug/build
    mkdir -p target/debug
    echo "$key" >"$began"
    is_kept "$key.tar" "all dependencies are compiled" || return 0
    echo "dependency-cache: using the dependencies that this machine has compiled before"
    mkdir -p target/restored
    if ! tar --extract --file "$archive" --directory target/restored; then
        echo "dependency-cache: cannot extract $archive, so all dependencies are compiled" >&2
        rm -rf target/restored
        return 0
    fi
    # The fingerprints come last, because only with them Cargo reads the others.
    mv target/restored/deps target/restored/build target/debug/
    mv target/restored/.fingerprint target/debug/
    rm -rf target/restored
}

save() {
    local key archive own crates name excluded=() hash="" digit
    key=$(build_key)
    archive=$folder/$key.tar
    if [ "$(cat "$began" 2>/dev/null)" != "$key" ]; then return 0; fi
    # A run that ended early saved less than a later one has. A crate whose compilation has only begun has a folder
    # without a fingerprint.
    own="/($(workspace_names | paste -sd '|'))-[0-9a-f]{16}$"
    crates=$(find target/debug/.fingerprint -mindepth 2 -type f ! -name invoked.timestamp -printf '%h\n' |
        sort -u | sed -E "\\#$own#d" | wc -l)
    if [ -e "$archive" ] && [ "$crates" -le "$(cat "$archive.crates" 2>/dev/null || echo 0)" ]; then return 0; fi
    begin_keeping
    # Without what belongs to the workspace, which is compiled after each change. Names end with a hash.
    for digit in {1..16}; do hash+="[0-9a-f]"; done
    for name in $(workspace_names); do
        excluded+=("--exclude=deps/$name-$hash*" "--exclude=deps/lib$name-$hash*" "--exclude=build/$name-$hash"
            "--exclude=.fingerprint/$name-$hash")
    done
    tar --create --file "$work" --directory target/debug --anchored "${excluded[@]}" deps build .fingerprint
    keep "$key.tar"
    echo "$crates" >"$archive.crates"
}

main "$@"
