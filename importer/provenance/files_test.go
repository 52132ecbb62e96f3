package provenance

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/dirhash"
)

// gather adds files given as path and content.
func gather(files map[string]string) *Files {
	f := &Files{}
	for name, data := range files {
		f.Add(name, sha256.Sum256([]byte(data)))
	}
	return f
}

// The h1 is that of the module zip as the go command computes it.
func TestH1(t *testing.T) {
	f := gather(map[string]string{
		"VERSION": "go1.23.3\n", "bin/go": "go", "src/go.mod": "module std", "src/a b/c.go": "package c", "go.mod": "module top",
		"src/cmd/go.mod": "module cmd", "src/x.go.mod": "no module", "src/api/x": "a package", "apix": "file", "doc": "a file of that name",
		"api/go1.txt": "left out", "doc/x/_go.mod": "left out", "misc/go.mod": "left out", "test/a.go": "left out",
	})
	f.AddLink("misc/link")
	got, err := f.H1("1.23.3", "linux-amd64")
	if err != nil {
		t.Fatal(err)
	}
	const top = "golang.org/toolchain@v0.0.1-go1.23.3.linux-amd64/"
	file := filepath.Join(t.TempDir(), "module.zip")
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, data := range map[string]string{
		"VERSION": "go1.23.3\n", "bin/go": "go", "src/_go.mod": "module std", "src/a b/c.go": "package c", "_go.mod": "module top",
		"src/cmd/_go.mod": "module cmd", "src/x.go.mod": "no module", "src/api/x": "a package", "apix": "file", "doc": "a file of that name",
	} {
		e, err := w.Create(top + name)
		if err == nil {
			_, err = io.WriteString(e, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(file, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	want, err := dirhash.HashZip(file, dirhash.Hash1)
	if err != nil || got != want {
		t.Errorf("%s, want %s, %v", got, want, err)
	}
	if other, err := f.H1("1.23.3", "linux-arm64"); err != nil || other == got {
		t.Errorf("the platform does not count: %s, %v", other, err)
	}
}

// Two trees never make one h1.
func TestForeign(t *testing.T) {
	for what, add := range map[string]func(*Files){
		"src/_go.mod":     func(f *Files) { f.Add("src/_go.mod", [32]byte{}) },
		"_go.mod":         func(f *Files) { f.Add("_go.mod", [32]byte{}) },
		"bin/gofmt":       func(f *Files) { f.AddLink("bin/gofmt") },
		`src/a\nb`:        func(f *Files) { f.Add("src/a\nb", [32]byte{}) },
		`src/a\nb/go.mod`: func(f *Files) { f.Add("src/a\nb/go.mod", [32]byte{}) },
	} {
		f := gather(map[string]string{"VERSION": "go1.23.3\n"})
		add(f)
		f.AddLink("src/second")
		h1, err := f.H1("1.23.3", "linux-amd64")
		if !errors.Is(err, ErrForeign) || h1 != "" || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %q, %v", what, h1, err)
		}
		checkLine(t, err)
	}
}

func TestRelease(t *testing.T) {
	for file, want := range map[string]string{
		"go1.23.3\ntime 2024-11-06T18:46:45Z\n":  "1.23.3",
		"go1.20":                                 "1.20",
		"go1.24rc1\n":                            "1.24rc1",
		"go1.23.3 X:rangefunc\n":                 "",
		"go1.23.3-corp\n":                        "1.23.3-corp", // which no database lists
		"go1.23.3 corp\n":                        "",
		"devel go1.24-abcdef Thu Jan 1 00:00:00": "",
		"":                                       "",
		"1.23.3":                                 "",
	} {
		if v, ok := Release([]byte(file)); ok != (want != "") || ok && v != want {
			t.Errorf("%q: %q, %v", file, v, ok)
		}
	}
}
