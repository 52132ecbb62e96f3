package index

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gofs/blobstore"
)

// content is a release: path to bytes. "-> target" is a symbolic link, and a
// path with a slash at its end a folder.
type content map[string]string

func (c content) items() []Item {
	var items []Item
	for _, path := range slices.Sorted(maps.Keys(c)) {
		data := c[path]
		it := Item{Path: strings.TrimSuffix(path, "/"), Mode: 0o644}
		if target, ok := strings.CutPrefix(data, "-> "); ok {
			it.Kind, it.Target, it.Mode = Symlink, target, 0o777
		} else if strings.HasSuffix(path, "/") {
			it.Kind, it.Mode = Folder, 0o755
		} else if it.Size = int64(len(data)); len(data) > 0 {
			it.Blobs = []Ref{{blobstore.Sum([]byte(data)), uint32(len(data))}}
		}
		if strings.HasPrefix(path, "bin/") {
			it.Mode = 0o755
		}
		items = append(items, it)
	}
	return items
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Create(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lock(t testing.TB, s *Store) *Writer {
	t.Helper()
	w, err := s.Lock(t.Context(), LockOptions{Verb: "test", NoWait: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// addition writes the packs of a release: its small files in groups of ten,
// each large one on its own, and the tree, with the last one as base.
func addition(t testing.TB, s *Store, name string, c content) Change {
	t.Helper()
	snap, view := open(t, s)
	w, err := blobstore.NewWriter(s.PackDir(), blobstore.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	add := func(g blobstore.Group) {
		if len(g.Blobs) == 0 {
			return
		}
		if err := w.Add(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	items := c.items()
	v := Version{Name: name, Release: name, Platform: HostPlatform(), Time: 1_700_000_000 + int64(len(snap.Versions)), Imported: time.Unix(1_800_000_000, 0).UTC(), Generation: snap.Generation + 1, Source: "test"}
	var small blobstore.Group
	mine := map[blobstore.ID]bool{}
	for i, it := range items {
		data := c[slices.Sorted(maps.Keys(c))[i]]
		v.Bytes += it.Size
		if it.Kind == Folder {
			continue
		}
		if v.Files++; len(it.Blobs) == 0 || mine[it.Blobs[0].ID] {
			continue
		}
		id := it.Blobs[0].ID
		if _, ok := snap.Locate(id); ok {
			continue
		}
		mine[id] = true
		b := blobstore.Blob{ID: id, Data: []byte(data)}
		if len(data) > 4000 {
			add(blobstore.Group{Blobs: []blobstore.Blob{b}})
			continue
		}
		if small.Blobs = append(small.Blobs, b); len(small.Blobs) == 10 {
			add(small)
			small = blobstore.Group{}
		}
	}
	add(small)
	encoded, err := EncodeTree(items)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := DecodeTree(encoded)
	if err != nil {
		t.Fatal(err)
	}
	v.Folders, v.Tree = len(tree.Folders), blobstore.Sum(encoded)
	g := blobstore.Group{Kind: blobstore.Tree, Blobs: []blobstore.Blob{{ID: v.Tree, Data: encoded}}}
	if n := len(snap.Versions); n > 0 {
		base := snap.Versions[n-1].Tree
		data, err := view.Blob(t.Context(), base)
		if err == nil {
			g.Depth, err = view.Depth(t.Context(), base)
		}
		if err != nil {
			t.Fatal(err)
		}
		g.Bases = []blobstore.Blob{{ID: base, Data: data}}
	}
	if _, ok := snap.Locate(v.Tree); !ok {
		add(g)
	}
	record, err := VersionRecord(&v)
	if err != nil {
		t.Fatal(err)
	}
	add(blobstore.Group{Kind: blobstore.Version, Blobs: []blobstore.Blob{{ID: blobstore.Sum(record), Data: record}}})
	packs, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return Change{Packs: packs, Add: []Addition{{Version: v, Tree: tree}}}
}

// put imports a release.
func put(t testing.TB, s *Store, name string, c content) {
	t.Helper()
	w := lock(t, s)
	defer w.Close()
	if err := w.Commit(addition(t, s, name, c)); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, s *Store, names ...string) {
	t.Helper()
	w := lock(t, s)
	defer w.Close()
	if err := w.Commit(Change{Remove: names}); err != nil {
		t.Fatal(err)
	}
}

func collect(t testing.TB, s *Store, o GCOptions) *GCResult {
	t.Helper()
	w := lock(t, s)
	defer w.Close()
	r, err := w.GC(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t testing.TB, s *Store) (*Snapshot, *blobstore.View) {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(1 << 20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(view.Close)
	return snap, view
}

// read reads a version whole.
func read(ctx context.Context, snap *Snapshot, view *blobstore.View, name string) (content, error) {
	v, ok := snap.Find(name)
	if !ok {
		return nil, ErrNoVersion
	}
	tree, err := snap.Tree(ctx, view, v)
	if err != nil {
		return nil, err
	}
	if _, err := snap.Nodes(v, tree); err != nil {
		return nil, err
	}
	c := content{}
	err = tree.Walk(func(path string, e *Entry) error {
		switch e.Kind {
		case Folder:
			if tree.Folders[e.Folder].N == 0 {
				c[path+"/"] = ""
			}
		case Symlink:
			c[path] = "-> " + e.Target
		default:
			c[path] = ""
		}
		for _, r := range tree.Blobs(e) {
			b, err := view.Blob(ctx, r.ID)
			if err != nil {
				return err
			}
			c[path] += string(b)
		}
		return nil
	})
	return c, err
}

// check compares the store with what ought to be in it.
func check(t testing.TB, s *Store, want map[string]content) {
	t.Helper()
	snap, view := open(t, s)
	defer view.Close()
	if len(snap.Versions) != len(want) {
		t.Errorf("%d versions, want %d", len(snap.Versions), len(want))
	}
	for name, c := range want {
		got, err := read(t.Context(), snap, view, name)
		if err != nil || !maps.Equal(got, c) {
			t.Errorf("version %s is another: %v", name, err)
		}
	}
	r, err := s.Verify(t.Context(), VerifyOptions{})
	if err != nil || !r.OK() {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

// files lists what is in the store with sizes, but not the lock's text.
func files(t testing.TB, s *Store) []string {
	t.Helper()
	var list []string
	err := filepath.Walk(s.Dir(), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Name() != lockFile {
			list = append(list, fmt.Sprintf("%s %d", strings.TrimPrefix(path, s.Dir()), info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// goLike is a release of about n files that shares all but some with others.
func goLike(n int, seed string) content {
	c := content{"VERSION": "go" + seed, "bin/go": strings.Repeat("go "+seed, 3000), "empty": "", "pkg/": "", "link": "-> VERSION"}
	for i := range n {
		data := fmt.Sprintf("package p%d\n", i)
		if i%7 == 0 {
			data += seed
		}
		c[fmt.Sprintf("src/p%d/f%d.go", i%20, i)] = data
	}
	return c
}
