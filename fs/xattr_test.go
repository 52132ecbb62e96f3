package fs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gofs/index"
)

func getxattr(path, attr string) (string, error) {
	b := make([]byte, 256)
	n, err := unix.Lgetxattr(path, attr, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// The folder of a version says what proved the version, also when that is
// found out while it is mounted; nothing else has attributes.
func TestProvenanceAttr(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	add(t, store, "1.23.3", sample())
	s, dir := mount(t, store)
	want := func(name, value string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if got, err := getxattr(path, ProvenanceAttr); err != nil || got != value {
			t.Errorf("%s: %q, %v, want %q", name, got, err, value)
		}
		if n, err := unix.Lgetxattr(path, ProvenanceAttr, nil); err != nil || n != len(value) {
			t.Errorf("%s: length %d, %v", name, n, err)
		}
		if _, err := unix.Lgetxattr(path, ProvenanceAttr, make([]byte, 3)); !errors.Is(err, unix.ERANGE) {
			t.Errorf("%s into three bytes: %v", name, err)
		}
	}
	want("1.22.8", unverified)
	want("1.22.8/.", unverified)
	list, err := store.Versions()
	if err != nil {
		t.Fatal(err)
	}
	list[0].Provenance = "sumdb example"
	change(t, store, index.Change{Describe: list[:1]})
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("1.22.8", "sumdb example")
	want("1.23.3", unverified)
	for _, path := range []string{"", "bin", "1.22", "1.22.8/bin", "1.22.8/bin/go", "1.22.8/link", "1.22.8/VERSION"} {
		if got, err := getxattr(filepath.Join(dir, path), ProvenanceAttr); !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if got, err := getxattr(filepath.Join(dir, "1.22.8"), "user.other"); !errors.Is(err, unix.ENODATA) {
		t.Errorf("another attribute: %q, %v", got, err)
	}
	if err := unix.Setxattr(filepath.Join(dir, "1.22.8"), ProvenanceAttr, []byte("x"), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("set: %v", err)
	}
	if _, err := unix.Llistxattr(filepath.Join(dir, "1.22.8/VERSION"), make([]byte, 256)); !errors.Is(err, unix.ENOTSUP) {
		t.Errorf("list: %v", err)
	}
	remove(t, store, "1.23.3")
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.prune(time.Now().Add(2 * removedFor))
	want("1.22.8", "sumdb example")
}

// Reading files and running programs asks for no attribute.
func TestNoAttrRequests(t *testing.T) {
	store := newStore(t)
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	content := sample()
	content["bin/true"] = file{data: string(program), mode: 0o755}
	add(t, store, "1.22.8", content)
	s, dir := mount(t, store)
	check(t, filepath.Join(dir, "1.22.8"), content)
	if err := mountCommand(filepath.Join(dir, "1.22.8/bin/true")).Run(); err != nil {
		t.Error(err)
	}
	f, err := os.Open(filepath.Join(dir, "1.22.8/VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, f); err != nil {
		t.Error(err)
	}
	f.Close()
	if r := s.Stats().Requests; r["getxattr"] != 0 || r["listxattr"] != 0 {
		t.Errorf("requests: %v", r)
	}
}
