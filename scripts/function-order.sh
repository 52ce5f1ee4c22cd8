#!/usr/bin/env bash
# Records which functions the program runs, for scripts/ordered-linker.sh: until it serves the README's example, and for
# requests over HTTP/1 and HTTP/2. Run it after scripts/image-root.sh, when the memory of a process at rest has grown.
#
#   scripts/function-order.sh        writes scripts/function-order.txt; ports 8080 and 9000 must be free
#
# The list is committed and not recorded by each release: which functions run depends on the timing of threads, so two
# builds of one commit would differ (scripts/image-reproducible.sh), and an image is built where neither valgrind nor
# free ports exist. An outdated list costs memory only: docs/benchmarks.md has the figures.
#
# Each line has the name of a function without its hash, and the first eight digits of the hash of each function of this
# name that was run.
set -euo pipefail
cd "$(dirname "$0")/.."

program=target/image-root/usr/bin/portico
list=scripts/function-order.txt

folder=""
process=""

end() {
    [ -z "$process" ] || kill -KILL "$process"
    rm -rf "$folder"
}

main() {
    folder=$(mktemp -d)
    trap end EXIT
    valgrind --quiet --tool=callgrind --demangle=no --callgrind-out-file="$folder/counts" \
        "$program" run --manifests examples/quickstart --echo 127.0.0.1:9000 --workers 2 --admin-listen off \
        --status-listen 127.0.0.1:0 --access-log off >"$folder/output" 2>&1 &
    process=$!
    until curl --silent --fail --output /dev/null --max-time 5 localhost:8080/api/v1/users; do
        kill -0 "$process" || { cat "$folder/output" >&2 && exit 1; }
        sleep 1
    done
    send_requests
    kill -TERM "$process"
    wait "$process"
    process=""
    listed "$folder/counts" >"$list"
    echo "function-order: $(wc -l <"$list") names in $list"
}

send_requests() {
    local protocol
    for protocol in --http1.1 --http2-prior-knowledge; do
        curl --silent --fail --output /dev/null "$protocol" localhost:8080/api/v1/users
        curl --silent --fail --output /dev/null "$protocol" --data text localhost:8080/api/v1/users
    done
}

# Prints the list for a file of callgrind, in which each function that was run is defined as `fn=(number) name`.
listed() {
    sed -n "s/^c\?fn=([0-9]*) \([^ ']*\).*/\1/p" "$1" | sed 's/\.llvm\.[0-9]*$//' | grep -v '^0x\|^(below' |
        sed 's/17h\([0-9a-f]\{8\}\)[0-9a-f]\{8\}E$/ \1/' | LC_ALL=C sort -u |
        awk '
            $1 != name { if (name != "") print line; name = line = $1 }
            NF > 1 { line = line " " $2 }
            END { print line }
        '
}

main "$@"
