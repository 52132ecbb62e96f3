#!/bin/sh
# Installs those of the Debian packages that are missing: packages.sh NAME...
set -eu
missing=
for name; do
	dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q ' installed$' || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "packages: the tests need$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # one argument for each
apt-get install -yq --no-install-recommends $missing
