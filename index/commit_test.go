package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gofs/blobstore"
)

// inodes are the nodes of a version by path.
func inodes(t *testing.T, s *Store, name string) map[string]Node {
	t.Helper()
	snap, view := open(t, s)
	v, ok := snap.Find(name)
	if !ok {
		t.Fatalf("no version %s", name)
	}
	tree, err := snap.Tree(t.Context(), view, v)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := snap.Nodes(v, tree)
	if err != nil {
		t.Fatal(err)
	}
	m, i := map[string]Node{}, 0
	_ = tree.Walk(func(path string, e *Entry) error {
		m[path] = nodes[i]
		i++
		return nil
	})
	return m
}

func TestInodes(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", content{"VERSION": "go1.22.0", "a": "same", "b": "same", "l": "-> a", "bin/go": "same", "d/f": "old", "e1": "", "e2": ""})
	first := inodes(t, s, "1.22.0")
	if first["a"] != first["b"] || first["e1"] != first["e2"] {
		t.Error("the same bytes are two inodes")
	}
	if first["a"] == first["bin/go"] || first["a"] == first["l"] {
		t.Error("another mode or kind is the same inode")
	}
	put(t, s, "1.22.1", content{"VERSION": "go1.22.1", "c": "same", "l2": "-> a", "d/f": "new"})
	second := inodes(t, s, "1.22.1")
	if second["c"] != first["a"] || second["l2"] != first["l"] {
		t.Error("the same file in another version is another inode, or has another mtime")
	}
	if second["d"] == first["d"] {
		t.Error("versions share a folder")
	}
	if second["d/f"].Number == first["d/f"].Number || second["d/f"].MTime != 1_700_000_001 || first["d/f"].MTime != 1_700_000_000 {
		t.Errorf("changed file: %v, %v", first["d/f"], second["d/f"])
	}

	used := map[uint64]bool{}
	for _, m := range []map[string]Node{first, second} {
		for _, n := range m {
			used[n.Number] = true
		}
	}
	remove(t, s, "1.22.0", "1.22.1")
	collect(t, s, GCOptions{})
	put(t, s, "1.23.0", content{"VERSION": "go1.23.0", "again": "same", "d/f": "brand new"})
	third := inodes(t, s, "1.23.0")
	if third["again"] != first["a"] {
		t.Errorf("the file that came back is %v and was %v", third["again"], first["a"])
	}
	for _, path := range []string{"VERSION", "d", "d/f"} {
		if used[third[path].Number] {
			t.Errorf("%s has an inode number that was used", path)
		}
	}
}

// snapshotOf is all that the index says.
func snapshotOf(t testing.TB, s *Store) string {
	t.Helper()
	snap, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	snap.store = nil
	return fmt.Sprint(*snap)
}

func TestFailedCommit(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(5, "x"))
	w := lock(t, s)
	good := addition(t, s, "1.22.1", goLike(5, "y"))
	missing := good
	missing.Packs = nil
	taken := good
	taken.Add = []Addition{good.Add[0]}
	taken.Add[0].Version.Name = "1.22.0"
	badName := good
	badName.Add = []Addition{good.Add[0]}
	badName.Add[0].Version.Name = "../x"
	before, list := snapshotOf(t, s), files(t, s)
	for name, test := range map[string]struct {
		change Change
		want   error
	}{
		"a blob is missing":  {missing, blobstore.ErrNotFound},
		"the name is taken":  {taken, ErrExists},
		"a bad name":         {badName, ErrName},
		"nothing to remove":  {Change{Remove: []string{"1.9"}}, ErrNoVersion},
		"remove, then fails": {Change{Remove: []string{"1.22.0", "1.22.0"}}, ErrNoVersion},
	} {
		if err := w.Commit(test.change); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
		if snapshotOf(t, s) != before {
			t.Errorf("%s: the index changed", name)
		}
		if now := files(t, s); !slices.Equal(now, list) {
			t.Errorf("%s: files %v, before %v", name, now, list)
		}
	}
	// No room for the generation.
	if err := os.Mkdir(s.GenerationFile()+newSuffix, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(good); err == nil {
		t.Error("committed")
	}
	if snapshotOf(t, s) != before {
		t.Error("the index changed though the commit failed")
	}
	if err := w.Discard(good.Packs); err != nil {
		t.Error(err)
	}
	w.Close()
	check(t, s, map[string]content{"1.22.0": goLike(5, "x")})
}

// A commit that is made, but cannot be announced, keeps its packs.
func TestUnannounced(t *testing.T) {
	s := newStore(t)
	w := lock(t, s)
	c := addition(t, s, "1.22.0", goLike(5, "x"))
	inTheWay := filepath.Join(s.GenerationFile(), "x")
	if err := errors.Join(os.Remove(s.GenerationFile()), os.MkdirAll(inTheWay, 0o755)); err != nil {
		t.Fatal(err)
	}
	err := w.Commit(c)
	if err == nil || !strings.Contains(err.Error(), "the change is made") {
		t.Errorf("error %v", err)
	}
	if err := w.Discard(c.Packs); err != nil {
		t.Error(err)
	}
	w.Close()
	if err := os.RemoveAll(s.GenerationFile()); err != nil {
		t.Fatal(err)
	}
	lock(t, s).Close()
	if n, err := s.Generation(); n != 2 || err != nil {
		t.Errorf("generation %d, %v", n, err)
	}
	check(t, s, map[string]content{"1.22.0": goLike(5, "x")})
}

func TestDiscard(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(5, "x"))
	w := lock(t, s)
	c := addition(t, s, "1.22.1", goLike(50, "y"))
	snap, _ := open(t, s)
	if err := w.Discard(append(c.Packs, blobstore.Pack{Name: snap.Packs[0].Name})); err != nil {
		t.Error(err)
	}
	w.Close()
	packs, _, err := blobstore.ListPacks(s.PackDir())
	if err != nil || !slices.Equal(packs, []string{snap.Packs[0].Name}) {
		t.Errorf("packs %v, %v", packs, err)
	}
	check(t, s, map[string]content{"1.22.0": goLike(5, "x")})
}

// A version can be described anew, but not become another one.
func TestDescribe(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.23.3", content{"VERSION": "go1.23.3"})
	list, err := s.Versions()
	if err != nil {
		t.Fatal(err)
	}
	proved := list[0]
	proved.H1, proved.Provenance = "h1:AAAA", "sumdb example"
	describe := func(v Version) error {
		w := lock(t, s)
		defer w.Close()
		return w.Commit(Change{Describe: []Version{v}})
	}
	for what, change := range map[string]func(*Version){
		"name": func(v *Version) { v.Name = "1.23.4" },
		"tree": func(v *Version) { v.Tree[0] ^= 1 },
		"root": func(v *Version) { v.RootNode++ },
		"time": func(v *Version) { v.Time++ },
	} {
		v := proved
		change(&v)
		if err := describe(v); !errors.Is(err, ErrExists) && !errors.Is(err, ErrNoVersion) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	before, _ := s.Generation()
	if err := describe(proved); err != nil {
		t.Fatal(err)
	}
	if list, err = s.Versions(); err != nil || len(list) != 1 || list[0] != proved {
		t.Errorf("%+v, %v", list, err)
	}
	if after, _ := s.Generation(); after != before+1 {
		t.Errorf("generation %d, before %d", after, before)
	}
}
