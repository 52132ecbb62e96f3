#!/bin/sh
# Imports releases into a store of its own, compacts and verifies it, and
# compares every release with its archive: roundtrip.sh ARCHIVE...
# LEVEL and MAXDEPTH are those of gofs compact.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 ARCHIVE..." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/gofs" ./cmd/gofs
export GOFS_STORE="$work/store"
"$work/gofs" import --quiet --verify=off "$@"
for archive; do "$work/gofs" fingerprint --go "$archive"; done | sort >"$work/want"
"$work/gofs" compact --level "${LEVEL:-2}" --max-depth "${MAXDEPTH:-4}"
"$work/gofs" verify
"$work/gofs" fingerprint $("$work/gofs" ls | awk 'NR > 1 { print $1 }') | sort >"$work/got"
cmp "$work/want" "$work/got"
echo "$# releases: all as in their archives"
