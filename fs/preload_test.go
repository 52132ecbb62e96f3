package fs

import (
	"os"
	"path/filepath"
	"testing"

	"gofs/blobstore"
	"gofs/index"
)

// TestPreload mounts after somebody has looked into one of two releases.
func TestPreload(t *testing.T) {
	store, want := newStore(t), sample()
	add(t, store, "1.22.8", want)
	want["VERSION"] = file{data: "go1.23.3\n", mode: 0o644}
	add(t, store, "1.23.3", want)
	o := Options{Notes: filepath.Join(t.TempDir(), "notes")}
	s, mnt := mountWith(t, store, o)
	if _, err := os.Lstat(filepath.Join(mnt, "1.22.8")); err != nil { // not into it
		t.Fatal(err)
	}
	names(t, filepath.Join(mnt, "1.23.3"))
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	s, _ = mountWith(t, store, o)
	e := s.now.Load()
	eventually(t, "the tree is read", func() bool { return e.named("1.23.3").tree.Load() != nil })
	if e.named("1.22.8").tree.Load() != nil {
		t.Error("the other was read, too")
	}
	// That was not somebody who looked into it.
	fresh := notes{}
	if s.readNow(fresh); len(fresh) != 0 {
		t.Errorf("noted: %v", fresh)
	}
}

func TestLastUsed(t *testing.T) {
	var all []*release
	n := notes{}
	for i, r := range []struct {
		name string
		day  uint32
	}{{"1.9", 5}, {"1.21.0", 0}, {"1.22.0", 4}, {"1.22.1", 5}, {"1.23.0", 3}, {"1.24.0", 4}} {
		all = append(all, &release{version: index.Version{Release: r.name, Tree: blobstore.ID{byte(i + 1)}}})
		if r.day != 0 {
			n[treeKey(all[i])] = r.day
		}
	}
	got := lastUsed(all, n)
	want := []string{"1.22.1", "1.9", "1.24.0", "1.22.0"}
	if len(got) != len(want) {
		t.Fatalf("%d releases", len(got))
	}
	for i, r := range got {
		if r.version.Release != want[i] {
			t.Errorf("%d: %s, want %s", i, r.version.Release, want[i])
		}
	}
}
