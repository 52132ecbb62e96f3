package fs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"gofs/blobstore"
	"gofs/index"
)

func TestPrefetch(t *testing.T) {
	store := newStore(t)
	want := files{}
	for i := range 40 {
		want[fmt.Sprintf("src/p/f%02d.go", i)] = file{data: pseudo(i, 3000+i), mode: 0o644}
		want[fmt.Sprintf("src/p/f%02d_test.go", i)] = file{data: pseudo(100+i, 3000+i), mode: 0o644}
		want[fmt.Sprintf("src/q/g%02d.go", i)] = file{data: pseudo(200+i, 3000+i), mode: 0o644}
	}
	for i := range 5 {
		want[fmt.Sprintf("src/r/h%d.go", i)] = file{data: pseudo(300+i, 3000), mode: 0o644}
	}
	want["src/p/large.go"] = file{data: pseudo(999, 400_000), mode: 0o644}
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	read := func(path string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, "1.22.8", path)); err != nil || string(b) != want[path].data {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	stores := func(n uint64) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " stores"), func() bool { return s.Stats().Prefetch.Stores == n })
	}

	// A reader in the middle of a tree gets the folder's other small files but
	// not the next folder.
	names(t, filepath.Join(dir, "1.22.8/src/p"))
	s.now.Load().releases[0].tree.Load().ahead.Store(1 << 20)
	read("src/p/f07.go")
	stores(79)
	before := s.Stats()
	for i := range 40 {
		read(fmt.Sprintf("src/p/f%02d.go", i))
		read(fmt.Sprintf("src/p/f%02d_test.go", i))
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("after the prefetch: %v", got)
	}

	names(t, filepath.Join(dir, "1.22.8/src/q"))
	read("src/q/g00.go")
	stores(79 + 39)
	before = s.Stats()
	check(t, filepath.Join(dir, "1.22.8/src/q"), sub(want, "src/q/"))
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("after the prefetch: %v", got)
	}

	// Dropped pages are pushed again when the next READ shows it.
	for _, n := range s.now.Load().releases[0].tree.Load().inodes {
		if n != nil && n.cached.Load() != 0 {
			n.cached.Add(-2 * int64(lost))
		}
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1\n"), 0o200); err != nil {
		t.Fatal(err)
	}
	read("src/q/g20.go")
	stores(79 + 39 + 39)
	// What the kernel does not know is not pushed.
	read("src/r/h1.go")
	if st := s.Stats().Prefetch; st.Stores != 79+39+39 || st.Unknown+st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// sub is the part of a release that lies in a folder.
func sub(all files, prefix string) files {
	part := files{}
	for path, f := range all {
		if len(path) > len(prefix) && path[:len(prefix)] == prefix {
			part[path[len(prefix):]] = f
		}
	}
	return part
}

func TestSequentialPrefetchGoesOn(t *testing.T) {
	store := newStore(t)
	want := files{}
	for i := range 300 {
		want[fmt.Sprintf("src/p%02d/f%02d.go", i/10, i%10)] = file{data: pseudo(i, 3000+i), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	for i := range 30 {
		names(t, filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%02d", i)))
	}
	if _, err := os.ReadFile(filepath.Join(dir, "1.22.8/src/p00/f00.go")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "299 stores", func() bool { return s.Stats().Prefetch.Stores == 299 })
	check(t, filepath.Join(dir, "1.22.8"), want)
	if got := s.Stats().Requests["read"]; got != 1 {
		t.Errorf("%d READs for 30 folders", got)
	}
}

// TestPushWhole reads the beginning of a program that lies in one record. The
// kernel has the rest then.
func TestPushWhole(t *testing.T) {
	data := []byte(pseudo(1, 6<<20))
	store := newStore(t)
	l := newLoader(t, store)
	it := index.Item{Path: "bin/go", Kind: index.File, Mode: 0o755, Size: int64(len(data))}
	for chunk := range slices.Chunk(data, 100_000) {
		id := blobstore.Sum(chunk)
		it.Blobs = append(it.Blobs, index.Ref{ID: id, Length: uint32(len(chunk))})
		l.group.Blobs = append(l.group.Blobs, blobstore.Blob{ID: id, Data: chunk})
	}
	l.items = append(l.items, it)
	l.commit("1.22.8")
	s, mnt := mount(t, store)
	f, err := os.Open(filepath.Join(mnt, "1.22.8/bin/go"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is pushed", func() bool { return s.Stats().Prefetch.Stores == 1 })
	before := s.Stats()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(data))))
	if err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("asked again: %v", got)
	}
}

func TestHolds(t *testing.T) {
	member := func(id byte, offset, length uint32) blobstore.Member {
		return blobstore.Member{ID: blobstore.ID{id}, Offset: offset, Length: length}
	}
	refs := []index.Ref{{ID: blobstore.ID{1}, Length: 10}, {ID: blobstore.ID{2}, Length: 5}}
	for name, test := range map[string]struct {
		first int
		blobs []blobstore.Member
		want  bool
	}{
		"all":            {0, []blobstore.Member{member(1, 0, 10), member(2, 10, 5)}, true},
		"behind another": {1, []blobstore.Member{member(9, 0, 15), member(1, 0, 10), member(2, 10, 5)}, true},
		"cut off":        {0, []blobstore.Member{member(1, 0, 10)}, false},
		"before it":      {-1, []blobstore.Member{member(2, 0, 5), member(1, 5, 10)}, false},
		"other order":    {0, []blobstore.Member{member(2, 0, 5), member(1, 5, 10)}, false},
		"a gap":          {0, []blobstore.Member{member(1, 0, 10), member(2, 11, 5)}, false},
		"other length":   {0, []blobstore.Member{member(1, 0, 10), member(2, 10, 6)}, false},
		"damaged":        {0, []blobstore.Member{member(1, 0, 10), member(2, 10, 5), member(0, 15, 1)}, false},
	} {
		sound := func(i int) bool { return name != "damaged" || i != 1 }
		if got := holds(test.blobs, sound, test.first, refs); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
