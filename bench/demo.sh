#!/bin/sh
# Imports a release, mounts it, builds and runs a program with it, unmounts:
# demo.sh DIR
set -eu
dir=${1:?usage: demo.sh DIR}
release=1.23.3
if [ ! -e /dev/fuse ]; then
	echo "demo: no /dev/fuse (modprobe fuse; in a container, pass --device /dev/fuse)" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
	sudo=$(command -v sudo || true)
	${sudo:?demo: fusermount3 is missing: install the package fuse3} apt-get install -y fuse3
fi
mkdir -p "$dir/program"
export GOFS_STORE="$dir/store"

echo "+ gofs import $release"
./gofs import "$release"
echo "+ gofs mount $dir/mnt"
./gofs mount "$dir/mnt"
trap './gofs umount "$dir/mnt"' EXIT
cat >"$dir/program/go.mod" <<'MOD'
module hello

go 1.23
MOD
cat >"$dir/program/main.go" <<'GO'
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
)

func main() {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from a program built by %s", runtime.Version())
	}))
	defer s.Close()
	r, err := http.Get(s.URL)
	if err != nil {
		panic(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(b))
}
GO
echo "+ GOROOT=$dir/mnt/$release $dir/mnt/$release/bin/go build"
(cd "$dir/program" && env GOROOT="$dir/mnt/$release" GOTOOLCHAIN=local "$dir/mnt/$release/bin/go" build -o hello . && ./hello)
