#!/usr/bin/env bash
# Keeps what a debug build, lints and documentation of the workspace's own crates have produced outside of the checkout,
# so that a fresh clone compiles only what has changed since. Works only in scripts/same-path.sh.
#
#   scripts/workspace-cache.sh restore   puts it into target, if there is no build yet
#   scripts/workspace-cache.sh save      saves it, if sources have changed since the last time
#
# Cargo itself decides what it uses again: it compares the times of all files from which a crate was compiled with the
# time of the compilation. `restore` gives an old time to the files whose contents are those of that compilation; all
# others have the time of the clone. A cache that is missing or corrupt costs only the time to compile.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

script=workspace-cache
folder="${XDG_CACHE_HOME:-$HOME/.cache}/portico/workspace"
kept=1
# shellcheck source=scripts/cache-files.sh
source scripts/cache-files.sh
# Checksums of the files of the checkout before anything was compiled. A file that has another checksum in the end may
# have been compiled before or after its change, so it is compiled again.
began=target/debug/.workspace-sources

main() {
    [ "${PORTICO_SAME_PATH:-}" = yes ] || return 0
    case "${1:-}" in
        restore) restore ;;
        save) save ;;
        *) echo "usage: scripts/workspace-cache.sh [restore|save]" >&2 && exit 2 ;;
    esac
}

restore() {
    [ ! -e "$began" ] || return 0
    local archive
    archive=$(archive_name)
    mkdir -p target/debug/deps target/debug/.fingerprint
    sources >"$began"
    if is_kept "$archive" "the whole workspace is compiled" && extract "$folder/$archive"; then
        echo "workspace-cache: using what this machine has compiled before"
        LC_ALL=C comm -12 "$began" target/restored/debug/.workspace-sources | give_old_time
        find target/restored/debug/deps -type f -exec mv -t target/debug/deps {} +
        mv target/restored/doc target/
        # The fingerprints come last, because only with them Cargo reads the others.
        find target/restored/debug/.fingerprint -mindepth 1 -maxdepth 1 -exec mv -t target/debug/.fingerprint {} +
    else
        # Nothing is compiled yet. For documentation, Cargo compares the time of the newest file, which must be the same
        # in the next clone.
        give_old_time <"$began"
    fi
    rm -rf target/restored
}

extract() {
    rm -rf target/restored
    mkdir -p target/restored
    tar --extract --file "$1" --directory target/restored && return 0
    echo "workspace-cache: cannot extract $1, so the whole workspace is compiled" >&2
    return 1
}

# Reads lines of `sources`.
give_old_time() {
    cut -c 67- | tr '\n' '\0' | xargs -0 --no-run-if-empty touch --no-create --date=2000-01-01
}

save() {
    local archive names unchanged
    archive=$(archive_name)
    [ -e "$began" ] && [ -e target/doc ] || return 0
    unchanged=$(mktemp)
    sources | LC_ALL=C comm -12 "$began" - >"$unchanged"
    if cmp --silent "$unchanged" "$folder/$archive.sources"; then
        rm "$unchanged"
        return 0
    fi
    mv "$unchanged" "$began"
    begin_keeping
    names=$(workspace_names | paste -sd '|')
    (cd target && {
        find debug/deps debug/.fingerprint -type f -regextype egrep \
            -regex "debug/(deps/(lib)?|\.fingerprint/)($names)-[0-9a-f]{16}([./].*)?" -print0
        printf 'debug/.workspace-sources\0doc\0'
    }) | tar --create --format=posix --file "$work" --directory target --null --files-from -
    keep "$archive"
    cp "$began" "$folder/$archive.sources"
}

archive_name() {
    echo "$({ build_key && echo "$PWD ${CARGO_INCREMENTAL:-}"; } | sha256sum | cut -c -16).tar"
}

# Prints the checksums of all files of the checkout.
sources() {
    find . -path ./target -prune -o -path ./.git -prune -o -type f -print0 | xargs -0 sha256sum | LC_ALL=C sort
}

main "$@"
