#!/usr/bin/env bash
# Builds the book of docs/ into target/docs and prints the path of its first page. Its table of contents is
# docs/SUMMARY.md.
#
# mdBook reads pages from one folder only, but pages link files of the whole repository. Those files are copied next to
# the pages, so that all links of the repository work in the book; tests/book.rs checks them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

version=0.5.4
source=target/docs-source
book=target/docs

main() {
    local mdbook
    # Search and server of mdBook are left out, because they take longer to build than everything else.
    mdbook=$(bash scripts/cargo-tool.sh mdbook "$version" --no-default-features)
    rm -rf "$source" "$book"
    mkdir -p "$source" "$book"
    cp docs/book.toml "$source"
    contents >"$source/SUMMARY.md"
    local page
    pages | while read -r page; do
        [ -f "$page" ] || fail "docs/SUMMARY.md lists $page, which does not exist"
        mkdir -p "$source/$(dirname "$page")"
        # mdBook turns README.md into index.html, but does not rewrite links to it.
        sed 's#\(](\([^):]*/\)\{0,1\}\)README\.md#\1index.md#g' "$page" >"$source/$page"
        linked "$page" | while read -r file; do
            if [ -d "$file" ]; then
                [ -f "$file/README.md" ] || folder "$file"
            elif [ -f "$file" ] && [ "${file##*.}" != md ]; then
                # Only files that are no pages, because the outer loop copies all pages.
                cp --parents "$file" "$source"
            fi
        done
    done
    MDBOOK_LOG=warn "$mdbook" build --dest-dir "$PWD/$book" "$source"
    rm -rf "$source"
    echo "$book/index.html"
}

# Prints docs/SUMMARY.md with paths relative to the root, and adds the other pages of a folder below its README.md.
contents() {
    local line page name
    sed -e 's#](\.\./#](/#' -e 's#](\([^/]\)#](docs/\1#' -e 's#](/#](#' docs/SUMMARY.md | while IFS= read -r line; do
        echo "$line"
        case "$line" in
            *"](docs/README.md)" | *"](docs/"*"/README.md)") ;;
            *) continue ;;
        esac
        name=${line##*](}
        name=${name%/README.md)}
        [ "$name" != docs ] || continue
        for page in "$name"/*.md; do
            [ "$page" = "$name/README.md" ] || echo "  - [$(title "$page")]($page)"
        done
    done
}

title() {
    sed -n 's/^# //p' "$1" | head -1
}

pages() {
    sed -n 's/^.*](\(.*\))$/\1/p' "$source/SUMMARY.md"
}

# Prints the files that a page links, as paths relative to the root.
linked() {
    local folder link
    folder=$(dirname "$1")
    { grep -o ']([^)#:]*[)#]' "$1" || true; } | sed 's/^](//; s/[)#]$//' | sort -u | while read -r link; do
        [ -z "$link" ] || realpath --no-symlinks --canonicalize-missing --relative-to=. "$folder/$link"
    done
}

# Copies a folder's files and writes an index page of them.
folder() {
    local file name
    mkdir -p "$source/$1"
    {
        echo "<!doctype html><meta charset=utf-8><title>$1</title><h1>$1</h1><ul>"
        for file in "$1"/*; do
            [ -f "$file" ] && [ "${file##*.}" != md ] || continue
            cp "$file" "$source/$1"
            name=${file##*/}
            echo "<li><a href=\"$name\">$name</a></li>"
        done
        echo "</ul>"
    } >"$source/$1/index.html"
}

fail() {
    echo "docs: $1" >&2
    exit 1
}

main "$@"
