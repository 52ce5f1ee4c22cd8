#!/usr/bin/env bash
# Copies Keycloak, an OpenID provider in Java, into a folder, where it may change its files. Maven fetches it into a
# cache the first time.
#
#   scripts/keycloak.sh FOLDER   FOLDER/bin/kc.sh then starts it, with bash
set -euo pipefail
cd "$(dirname "$0")/.."

version=26.7.3
fetch=org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy

script=keycloak.sh
# shellcheck source=scripts/python-package.sh
source scripts/python-package.sh

main() {
    [[ -n ${1:-} ]] || fail "usage: scripts/keycloak.sh FOLDER"
    local target=$cache/keycloak-$version tool
    for tool in java:default-jre-headless mvn:maven unzip:unzip; do
        command -v "${tool%:*}" >/dev/null || fail "${tool%:*} is missing; install the Debian package ${tool#*:}"
    done
    if [[ ! -d $target ]]; then
        enter_work_folder
        mvn --batch-mode --quiet "$fetch" -Dartifact="org.keycloak:keycloak-quarkus-dist:$version:zip" \
            -DoutputDirectory="$work" >&2 || fail "Maven cannot fetch Keycloak $version"
        unzip -q "$work/keycloak-quarkus-dist-$version.zip" -d "$work"
        move_to_cache "$work/keycloak-$version" "$target"
    fi
    cp -r "$target/." "$1"
}

main "$@"
