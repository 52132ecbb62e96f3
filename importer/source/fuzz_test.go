package source

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"gofs/internal/hostile"
)

// sane checks what Walk promises of every entry, whatever the archive.
func sane(t *testing.T, entries []Entry) {
	t.Helper()
	seen := make(map[string]bool)
	for _, e := range entries {
		if e.Path == "" || e.Path == "." || path.Clean(e.Path) != e.Path || path.IsAbs(e.Path) || strings.HasPrefix(e.Path, "../") ||
			e.Path == ".." || strings.ContainsAny(e.Path, "\x00\\") || seen[e.Path] || e.Mode > 0o777 || e.Size < 0 {
			t.Fatalf("bad entry %+v", e)
		}
		seen[e.Path] = true
	}
}

var fuzzLimits = Options{MaxSize: 1 << 20, MaxEntries: 1000}

// addHostile begins with the small archives of the corpus.
func addHostile(f *testing.F, zips bool) {
	f.Helper()
	list, err := hostile.Archives()
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range list {
		if b := c.Data; len(b) > 0 && len(b) < 8<<10 && isZip(b) == zips {
			f.Add(b)
		}
	}
}

func FuzzTar(f *testing.F) {
	whole := makeTar(f, true, versionHdr(), folderHdr("go/bin"), file("go/bin/go", 600), link("go/l", "bin/go"))
	f.Add(whole)
	f.Add(gz(whole))
	f.Add(zst(f, whole))
	f.Add(sparsePAX(f))
	f.Add(sparseGNU(f))
	addHostile(f, false)
	f.Fuzz(func(t *testing.T, data []byte) {
		if isZip(data) {
			return
		}
		entries, _ := readAll(t, data, fuzzLimits)
		sane(t, entries)
	})
}

func FuzzTarNames(f *testing.F) {
	f.Add("go/a", "go/b", "a")
	f.Add("go/a", "go/a/b", "..")
	f.Add("go/../x", "go//", "/etc")
	f.Fuzz(func(t *testing.T, a, b, target string) {
		one := func(flag byte, name, target string) []byte {
			return paxRecordsOf(t, flag, map[string]string{"path": name, "linkpath": target})
		}
		archive := bytes.Join([][]byte{one('0', a, ""), one('5', b, ""), one('2', "go/l", target), makeTar(t, true, versionHdr())}, nil)
		entries, err := readAll(t, archive, fuzzLimits)
		sane(t, entries)
		if err == nil && (strings.HasPrefix(target, "/") || strings.HasPrefix(target, "..")) {
			t.Errorf("link to %q was taken", target)
		}
	})
}

func FuzzZip(f *testing.F) {
	f.Add(makeZip(f, modVersion(), zfile{name: modTop + "bin/go", content: "x"}))
	f.Add(deflatedBomb(f, 1000, 1000))
	f.Add(overlapping(f))
	addHostile(f, true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if !isZip(data) {
			return
		}
		o := fuzzLimits
		o.TempDir = dir
		entries, _ := readAll(t, data, o)
		sane(t, entries)
	})
}

func FuzzVersionFile(f *testing.F) {
	for _, s := range []string{"go1.23.3\ntime 2024-11-06T18:46:45Z\n", "go1.20.14", "devel go1.24-abc", "go1.22.1 X:rangefunc", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		VersionTime(data)
		v, err := ParseVersion(data)
		if err == nil && (v == "" || strings.ContainsAny(v, "/\x00\n ") || filepath.Base(v) != v) {
			t.Errorf("version %q of %q", v, data)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("error of several lines: %q", err)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"a/b", "../a", "/a", "a//b", "a/./b", "a\x00", "\xff", "a\\b", "..."} {
		f.Add(s)
	}
	root, err := os.OpenRoot(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if checkPath(name) == "" && (!filepath.IsLocal(name) || path.Clean(name) != name) {
			t.Errorf("%q passed", name)
		}
		if _, err := root.Stat(name); checkPath(name) == "" && err != nil && strings.Contains(err.Error(), "escapes") {
			t.Errorf("%q leads out", name)
		}
	})
}
