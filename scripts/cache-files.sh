# Compiled files that are kept outside of the checkout, each with its checksum. Sourced by the scripts of the caches,
# which set `script`, their own name, `folder`, and `kept`, the number of files to keep.
# shellcheck shell=bash

# is_kept NAME CONSEQUENCE: whether the file is there and whole. Removes a corrupt one, and prints what follows from it.
is_kept() {
    local name=$1 consequence=$2
    [ -e "$folder/$name" ] || return 1
    if ! (cd "$folder" && sha256sum --status --check "$name.sha256") 2>/dev/null; then
        echo "$script: $folder/$name is corrupt, so it is removed and $consequence" >&2
        rm -f "$folder/$name" "$folder/$name".*
        return 1
    fi
    # For the order in which files are removed. A cache that cannot be written is as usable as another one.
    touch "$folder/$name" || echo "$script: cannot write to $folder, so it is not known that it was used" >&2
}

# Creates a file in `work`, which disappears unless `keep` is called.
begin_keeping() {
    mkdir -p "$folder"
    # Leftovers of calls that were killed.
    find "$folder" -name '*.saving' -mmin +60 -delete
    work=$(mktemp --tmpdir="$folder" --suffix=.saving)
    # shellcheck disable=SC2064 # The name of now.
    trap "rm -f '$work'" EXIT
}

# keep NAME: keeps the file in `work` under this name, whose suffix is that of all files of the cache, and removes those
# that were not used for longest.
keep() {
    local name=$1 old
    # The checksum comes first, because a file without one is taken for corrupt.
    echo "$(sha256sum "$work" | cut -d ' ' -f 1)  $name" >"$folder/$name.sha256"
    mv "$work" "$folder/$name"
    find "$folder" -name "*.${name##*.}" -printf '%T@ %p\n' | sort -rn | tail -n +$((kept + 1)) | cut -d ' ' -f 2- |
        while IFS= read -r old; do rm -f "$old" "$old".*; done
}

# The names of the workspace's packages, programs, tests and benchmarks, also as Cargo writes them in file names.
workspace_names() {
    awk '
        /^\[/ { is_named = $0 ~ /^\[(package|lib|\[(bin|test|bench)\])\]$/ }
        is_named && $1 == "name" { gsub(/"/, "", $3); print $3; gsub(/-/, "_", $3); print $3 }' \
        Cargo.toml benches/load/Cargo.toml crates/*/Cargo.toml e2e/Cargo.toml | sort -u
}

# Changes with everything that decides how dependencies are compiled in a debug build.
build_key() {
    {
        cat Cargo.lock Cargo.toml benches/load/Cargo.toml crates/*/Cargo.toml e2e/Cargo.toml .cargo/config.toml \
            rust-toolchain.toml
        rustc --version --verbose
        cc --version
        echo "${RUSTFLAGS:-} ${CFLAGS:-} ${CARGO_HOME:-$HOME/.cargo}"
    } | sha256sum | cut -c -16
}
