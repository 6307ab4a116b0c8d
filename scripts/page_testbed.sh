#!/usr/bin/env bash
# What tests of the HTML report need beside Python: Chromium (a Debian package, root) and axe-core (npm), which finds
# what people with disabilities stumble over. Installs what is missing; axe-core goes to $PAGE_TESTBED, by default in
# the user's cache.
set -euo pipefail

VERSION=4.14.1
SHA256=e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745  # of axe-core-$VERSION.tgz
FOLDER=${PAGE_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/domainbed-sage}

say() { echo "page_testbed: $*" >&2; }

debian() { # packages...
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install --yes --no-install-recommends "$@" >&2
}

command -v chromium >/dev/null || debian chromium fonts-noto-core
[ -e "$FOLDER/axe-core-$VERSION.js" ] && exit
command -v npm >/dev/null || debian npm
say "fetching axe-core $VERSION"
mkdir -p "$FOLDER"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "axe-core@$VERSION" >/dev/null)
echo "$SHA256  $work/axe-core-$VERSION.tgz" | sha256sum --check --quiet
tar -xzOf "$work/axe-core-$VERSION.tgz" package/axe.min.js > "$work/axe.js"
mv "$work/axe.js" "$FOLDER/axe-core-$VERSION.js"
