// Package hostile makes archives and stores as somebody would make them to do
// harm, for tests that give them to the whole program. Their checksums are
// right wherever the lie is not about a checksum, so that what lies behind
// them is reached.
//
// It writes the formats down a second time, from their descriptions in
// packages blobstore and index, because the packages' own writers refuse to
// lie. The corpus lies in testdata; go test ./internal/hostile -update makes it
// anew.
package hostile

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// Case is an archive or a store, and what is to come of it.
type Case struct {
	Name string
	// Want matches what gofs says of it: import of an archive, verify of a store.
	// "" is for what is odd and yet no reason to refuse it.
	Want string
	// Data is an archive; of a store it is a zip of its folder.
	Data []byte
	// Flags for the import of an archive.
	Flags []string
	// make makes Data of what is too large to be kept in testdata.
	make func() []byte
}

// Bytes is Data, made where it is not kept.
func (c *Case) Bytes() []byte {
	if c.make != nil {
		return c.make()
	}
	return c.Data
}

// Archives reads the archives of the corpus.
func Archives() ([]Case, error) {
	list, err := read("archives")
	return append(list, largeArchives()...), err
}

// Stores reads the stores of the corpus.
func Stores() ([]Case, error) {
	list, err := read("stores")
	return append(list, largeStores()...), err
}

// dir is the corpus, wherever the test runs.
func dir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "testdata")
}

// listFile has a line for each case of a kind: name, flags, and Want, between tabs.
func listFile(kind string) string { return filepath.Join(dir(), kind+".txt") }

func read(kind string) ([]Case, error) {
	b, err := os.ReadFile(listFile(kind))
	if err != nil {
		return nil, err
	}
	var list []Case
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 {
			return nil, fmt.Errorf("%s: line %q", listFile(kind), line)
		}
		if _, err := regexp.Compile(f[2]); err != nil {
			return nil, err
		}
		c := Case{Name: f[0], Flags: strings.Fields(f[1]), Want: f[2]}
		if c.Data, err = os.ReadFile(filepath.Join(dir(), kind, c.Name)); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// write makes the corpus of a kind anew.
func write(kind string, list []Case) error {
	folder := filepath.Join(dir(), kind)
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	var lines strings.Builder
	for _, c := range list {
		if err := os.WriteFile(filepath.Join(folder, c.Name), c.Data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s\t%s\t%s\n", c.Name, strings.Join(c.Flags, " "), c.Want)
	}
	return os.WriteFile(listFile(kind), []byte(lines.String()), 0o644)
}

// Unpack writes a store below a folder.
func (c *Case) Unpack(dir string) error {
	b := c.Bytes()
	zr, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	for _, f := range zr.File {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		w, err := os.Create(name)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		// A comment says how long the file is, with zeros at its end.
		var hole int64
		if fmt.Sscan(f.Comment, &hole); hole > 0 {
			if err := w.Truncate(hole); err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return nil
}

// zipOf is a zip of files, in the order of their names. Those of holes are as
// long as it says, with zeros at their end.
func zipOf(files map[string][]byte, holes map[string]int64) []byte {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, name := range names {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		if n := holes[name]; n > 0 {
			h.Comment = fmt.Sprint(n)
		}
		f, err := w.CreateHeader(h)
		must(err)
		_, err = f.Write(files[name])
		must(err)
	}
	must(w.Close())
	return out.Bytes()
}

// must is for what cannot fail but through a mistake in this package.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// value is must for what returns something too.
func value[T any](v T, err error) T {
	must(err)
	return v
}
