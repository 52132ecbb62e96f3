#!/bin/sh
# Imports releases, those of one platform after the other, compacts and
# verifies the store, and compares every release with its archive:
# roundtrip.sh ARCHIVE... It says how much larger each platform made the store.
# LEVEL and MAXDEPTH are those of gofs compact. STORE is a store to go on with,
# which is kept.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 ARCHIVE..." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/gofs" ./cmd/gofs
export GOFS_STORE="${STORE:-$work/store}"
size() { du -sb "$GOFS_STORE" 2>/dev/null | cut -f1 || true; }
for archive; do
	line=$("$work/gofs" fingerprint --go "$archive")
	echo "$line" >>"$work/unsorted"
	echo "$archive" >>"$work/archives.$(echo "$line" | cut -d' ' -f2)"
done
sort -u "$work/unsorted" >"$work/want"
own=$(go env GOOS)-$(go env GOARCH)
for list in "$work/archives.$own" $(ls "$work"/archives.* | grep -v "/archives.$own\$"); do
	[ -f "$list" ] || continue
	before=$(size)
	xargs -d '\n' -a "$list" "$work/gofs" import --quiet --verify=off
	imported=$(size)
	"$work/gofs" compact --level "${LEVEL:-2}" --max-depth "${MAXDEPTH:-4}"
	awk -v name="${list##*archives.}" -v n="$(wc -l <"$list")" -v before="${before:-0}" -v imported="$imported" -v after="$(size)" \
		'BEGIN { printf "%s: %d releases, %.1f MB more as imported, %.1f MB more compacted, %.1f MB in all\n", name, n, (imported - before) / 1e6, (after - before) / 1e6, after / 1e6 }'
done
"$work/gofs" verify
"$work/gofs" fingerprint $("$work/gofs" ls | awk 'NR > 1 { print $1 }') | sort -u >"$work/have"
comm -23 "$work/want" "$work/have" >"$work/missing"
if [ -s "$work/missing" ]; then
	echo "not as in their archives:" >&2
	cat "$work/missing" >&2
	exit 1
fi
echo "$# releases: all as in their archives"
