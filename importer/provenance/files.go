package provenance

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"gofs/importer/source"
)

// ErrForeign is returned for a tree with something in it that no release of
// the Go project has, so that it makes no toolchain module.
var ErrForeign = errors.New("not a tree that the Go project releases")

// Files gathers the files of a release for the h1 of its toolchain module.
// The zero value has none.
type Files struct {
	lines   []line
	foreign error // the first thing that no release has
}

type line struct {
	name string // in the module
	sum  [sha256.Size]byte
}

// Add adds a file by its path below GOROOT and the SHA-256 of its content.
func (f *Files) Add(name string, sum [sha256.Size]byte) {
	if outside(name) {
		return
	}
	dir, base := path.Split(name)
	switch {
	case strings.Contains(name, "\n"):
		// One name could be the lines of two files.
		f.reject(name, "has a newline in its name")
		return
	case base == "go.mod":
		name = dir + "_go.mod"
	case base == "_go.mod":
		// The module has the file of another name at this one.
		f.reject(name, "is no name of a release's file")
		return
	}
	f.lines = append(f.lines, line{name, sum})
}

// AddLink adds a symbolic link. No module has one.
func (f *Files) AddLink(name string) {
	if !outside(name) {
		f.reject(name, "is a symbolic link")
	}
}

func (f *Files) reject(name, why string) {
	if f.foreign == nil {
		f.foreign = fmt.Errorf("%.120q %s: %w", name, why, ErrForeign)
	}
}

// outside tells whether a file is one of those that cmd/distpack leaves out
// of the module, though they are in the tarball.
func outside(name string) bool {
	top, _, below := strings.Cut(name, "/")
	return below && (top == "api" || top == "doc" || top == "misc" || top == "test")
}

// H1 is the hash of the module that cmd/distpack makes of these files for the
// release, as golang.org/x/mod/sumdb/dirhash defines it. The error is
// ErrForeign.
func (f *Files) H1(version, platform string) (string, error) {
	if f.foreign != nil {
		return "", f.foreign
	}
	slices.SortFunc(f.lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	m := source.Toolchain(version, platform)
	h := sha256.New()
	for _, l := range f.lines {
		fmt.Fprintf(h, "%x  %s@%s/%s\n", l.sum, m.Path, m.Version, l.name)
	}
	return "h1:" + base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

// Release reads a VERSION file of the Go project's: the release, without
// "go". Builds with experiments or of vendors, which have more words, and
// development versions are none.
func Release(file []byte) (version string, ok bool) {
	first, _, _ := strings.Cut(string(file), "\n")
	v, err := source.ParseVersion(file)
	return v, err == nil && strings.TrimSpace(first) == "go"+v
}
