package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"gofs/blobstore"
)

func TestGC(t *testing.T) {
	s := newStore(t)
	old := goLike(100, "x")
	old["only/here"] = strings.Repeat("a large file of the old version", 1000)
	put(t, s, "1.22.0", old)
	put(t, s, "1.22.1", goLike(100, "y"))
	before, err := folderSize(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if r := collect(t, s, GCOptions{}); *r != (GCResult{}) {
		t.Errorf("nothing to do: %+v", r)
	}
	_, reader := open(t, s)
	oldSnap, _ := open(t, s)
	remove(t, s, "1.22.0")

	list := files(t, s)
	dry := collect(t, s, GCOptions{DryRun: true})
	if !slices.Equal(files(t, s), list) {
		t.Error("the dry run changed something")
	}
	var steps []int64
	r := collect(t, s, GCOptions{Progress: func(done, total int64) { steps = append(steps, done, total) }})
	if r.Rewritten != 1 || r.Removed != 0 || r.Garbage != 0 || r.Unused != 0 || r.Freed <= 0 {
		t.Errorf("%+v", r)
	}
	if dry.Rewritten != r.Rewritten || dry.Removed != r.Removed || dry.Garbage != r.Garbage || dry.Freed <= 0 {
		t.Errorf("dry run %+v, then %+v", dry, r)
	}
	if len(steps) != 2 || steps[0] != steps[1] {
		t.Errorf("progress %v", steps)
	}
	after, err := folderSize(s.Dir())
	if err != nil || before-after < r.Freed-8192 {
		t.Errorf("%d bytes, before %d, freed %d: %v", after, before, r.Freed, err)
	}
	check(t, s, map[string]content{"1.22.1": goLike(100, "y")})
	// Who reads the old generation goes on doing so.
	if c, err := read(t.Context(), oldSnap, reader, "1.22.0"); err != nil || !maps.Equal(c, old) {
		t.Errorf("a reader from before: %v", err)
	}
	if r := collect(t, s, GCOptions{}); *r != (GCResult{}) {
		t.Errorf("again: %+v", r)
	}
	remove(t, s, "1.22.1")
	if r := collect(t, s, GCOptions{}); r.Removed != 2 || r.Rewritten != 0 || r.Garbage != 0 {
		t.Errorf("all removed: %+v", r)
	}
	if packs := files(t, s); slices.ContainsFunc(packs, func(f string) bool { return strings.Contains(f, blobstore.Suffix) }) {
		t.Errorf("left: %v", packs)
	}
	check(t, s, nil)
}

// A blob may be so small a part of its record that its share is no byte.
func TestGCKeepsTinyBlobs(t *testing.T) {
	s := newStore(t)
	c := content{"tiny": "x"}
	for i := range 9 {
		c[fmt.Sprint("zeros", i)] = strings.Repeat(fmt.Sprint(i), 4000)
	}
	put(t, s, "1.22.0", c)
	put(t, s, "1.22.1", content{"tiny": "x"})
	remove(t, s, "1.22.0")
	collect(t, s, GCOptions{})
	check(t, s, map[string]content{"1.22.1": {"tiny": "x"}})
}

func TestGCKeepsBases(t *testing.T) {
	s := newStore(t)
	names := []string{"1.22.0", "1.22.1", "1.22.2", "1.22.3"}
	for _, name := range names {
		put(t, s, name, goLike(60, name))
	}
	st, err := s.Stats(t.Context())
	if err != nil || len(st.Chains) != 4 {
		t.Fatalf("chains %v, %v", st.Chains, err)
	}
	for _, name := range names[:3] {
		remove(t, s, name)
		collect(t, s, GCOptions{})
	}
	check(t, s, map[string]content{"1.22.3": goLike(60, "1.22.3")})
	st, err = s.Stats(t.Context())
	if err != nil || st.Unused != 0 || len(st.Chains) != 4 {
		t.Errorf("unused %d, chains %v, %v", st.Unused, st.Chains, err)
	}
}

func TestGCGarbage(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(10, "x"))
	w := lock(t, s)
	addition(t, s, "1.22.1", goLike(10, "y")) // killed before the commit
	w.Close()
	for _, name := range []string{filepath.Join(packFolder, blobstore.TempPrefix+"123"), databaseFile + newSuffix, filepath.Join(packFolder, "0123.pack")} {
		if err := os.WriteFile(filepath.Join(s.Dir(), name), make([]byte, 1000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := files(t, s)
	dry := collect(t, s, GCOptions{DryRun: true})
	if !slices.Equal(files(t, s), list) {
		t.Error("the dry run removed something")
	}
	r := collect(t, s, GCOptions{})
	if r.Garbage != 4 || r.Freed < 3000 || *dry != *r {
		t.Errorf("%+v, the dry run said %+v", r, dry)
	}
	if got := files(t, s); len(got) != len(list)-4 {
		t.Errorf("left: %v", got)
	}
	check(t, s, map[string]content{"1.22.0": goLike(10, "x")})
}

func TestGCLeavesLittle(t *testing.T) {
	s := newStore(t)
	c := goLike(100, "x")
	put(t, s, "1.22.0", c)
	put(t, s, "1.22.1", goLike(100, "y"))
	remove(t, s, "1.22.0")
	list := files(t, s)
	r := collect(t, s, GCOptions{MaxUnused: 0.99})
	st, err := s.Stats(t.Context())
	if err != nil || r.Unused == 0 || r.Unused != st.Unused || r.Rewritten+r.Removed != 0 || !slices.Equal(files(t, s), list) {
		t.Errorf("%+v, stats say %d unused, %v", r, st.Unused, err)
	}
}

func TestGCRefusesDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *Store, tree blobstore.Location, pack string) error{
		"missing pack": func(t *testing.T, s *Store, _ blobstore.Location, pack string) error { return os.Remove(pack) },
		"short pack":   func(t *testing.T, s *Store, _ blobstore.Location, pack string) error { return os.Truncate(pack, 500) },
		"damaged tree": func(t *testing.T, s *Store, tree blobstore.Location, pack string) error {
			return flip(pack, tree.Record+32+36+5)
		},
		"damaged header": func(t *testing.T, s *Store, tree blobstore.Location, pack string) error { return flip(pack, 16+20) },
	} {
		s := newStore(t)
		put(t, s, "1.22.0", goLike(50, "x"))
		put(t, s, "1.22.1", goLike(50, "y"))
		snap, _ := open(t, s)
		loc, _ := snap.Locate(snap.Versions[0].Tree)
		remove(t, s, "1.22.1")
		if err := damage(t, s, loc, filepath.Join(s.PackDir(), snap.Packs[0].Name+blobstore.Suffix)); err != nil {
			t.Fatal(err)
		}
		list := files(t, s)
		w := lock(t, s)
		if _, err := w.GC(t.Context(), GCOptions{}); !errors.Is(err, blobstore.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		w.Close()
		if now := files(t, s); !slices.Equal(now, list) {
			t.Errorf("%s: files %v, before %v", name, now, list)
		}
	}
}

// flip changes a byte of a file.
func flip(file string, at int64) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 0x40
	_, werr := f.WriteAt(b[:], at)
	return errors.Join(err, werr, f.Close())
}

func TestGCCancelled(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(50, "x"))
	put(t, s, "1.22.1", goLike(50, "y"))
	remove(t, s, "1.22.0")
	list := files(t, s)
	w := lock(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.GC(ctx, GCOptions{Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	w.Close()
	if now := files(t, s); !slices.Equal(now, list) {
		t.Errorf("files %v, before %v", now, list)
	}
	check(t, s, map[string]content{"1.22.1": goLike(50, "y")})
}

func TestDatabaseIsCompacted(t *testing.T) {
	for name, change := range map[string]func(*Store){
		"gc": func(s *Store) {
			if r := collect(t, s, GCOptions{}); r.Freed < 2<<20 {
				t.Errorf("%+v", r)
			}
		},
		"commit": func(s *Store) { put(t, s, "1.22.2", goLike(10, "z")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			put(t, s, "1.22.0", goLike(50, "x"))
			leaveFreePages(t, s)
			change(s)
			st, err := os.Stat(filepath.Join(s.Dir(), databaseFile))
			if err != nil || st.Size() > 1<<20 {
				t.Errorf("%d bytes, %v", st.Size(), err)
			}
			put(t, s, "1.22.1", goLike(50, "y"))
			want := map[string]content{"1.22.0": goLike(50, "x"), "1.22.1": goLike(50, "y")}
			if name == "commit" {
				want["1.22.2"] = goLike(10, "z")
			}
			check(t, s, want)
		})
	}
}

// leaveFreePages makes the database grow by 3 MB of free pages.
func leaveFreePages(t *testing.T, s *Store) {
	t.Helper()
	err := s.update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("junk"))
		for i := range 600 {
			err = errors.Join(err, b.Put(fmt.Appendf(nil, "%06d", i), bytes.Repeat([]byte{1}, 5000)))
		}
		return err
	})
	if err == nil {
		err = s.update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("junk")) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever comes in which order, the store has what it should have.
func TestRandomWork(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	s := newStore(t)
	want := map[string]content{}
	for i := range 40 {
		have := slices.Sorted(maps.Keys(want))
		switch what := r.IntN(10); {
		case what < 5 || len(have) == 0:
			name := fmt.Sprintf("1.%d.%d", 20+r.IntN(3), i)
			want[name] = goLike(r.IntN(60), fmt.Sprint(r.IntN(6)))
			put(t, s, name, want[name])
		case what < 8:
			name := have[r.IntN(len(have))]
			delete(want, name)
			remove(t, s, name)
		default:
			collect(t, s, GCOptions{MaxUnused: float64(r.IntN(2)) * r.Float64()})
		}
		check(t, s, want)
	}
}

// Whatever was under way when a process was killed is gone after a gc.
func TestGCTemporaries(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(10, "x"))
	list := files(t, s)
	for _, name := range []string{databaseFile, generationFile, formatFile} {
		if err := os.WriteFile(filepath.Join(s.Dir(), name+newSuffix), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	collect(t, s, GCOptions{})
	if now := files(t, s); !slices.Equal(now, list) {
		t.Errorf("files %v, before %v", now, list)
	}
}

// A verification that began before a gc calls nothing damaged that gc removes.
func TestVerifyWhileCollecting(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(50, "x"))
	put(t, s, "1.22.1", goLike(50, "y"))
	r, err := s.Verify(t.Context(), VerifyOptions{Total: func(int64) {
		w := lock(t, s)
		defer w.Close()
		if err := w.Commit(Change{Remove: []string{"1.22.0"}}); err != nil {
			t.Error(err)
		}
		if r, err := w.GC(t.Context(), GCOptions{}); err != nil || r.Rewritten != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	}})
	if err != nil || !r.OK() || r.Packs != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Where there is no room for all that is to be written, packs are rewritten a few at a
// time, those without a use removed before.
func TestGCInLittleRoom(t *testing.T) {
	with := func(name string, files ...string) content {
		c := goLike(10, "same")
		for _, f := range files {
			c["src/"+f] = strings.Repeat(f, 1000)
		}
		return c
	}
	s := newStore(t)
	for i, files := range [][]string{{"a", "b"}, {"c", "d"}, {"e", "f"}, {"b", "d", "f"}, {"only"}} {
		name := fmt.Sprintf("1.22.%d", i)
		put(t, s, name, with(name, files...))
	}
	for _, i := range []int{0, 1, 2, 4} {
		remove(t, s, fmt.Sprintf("1.22.%d", i))
	}
	var passes []int64
	r := collect(t, s, GCOptions{room: 1, Progress: func(done, total int64) {
		if done == total {
			passes = append(passes, total)
		}
	}})
	if r.Rewritten != 3 || r.Removed != 1 || r.Unused != 0 || r.Freed <= 0 || len(passes) != 3 {
		t.Errorf("%+v, rewritten were %v", r, passes)
	}
	check(t, s, map[string]content{"1.22.3": with("1.22.3", "b", "d", "f")})
	if again := collect(t, s, GCOptions{}); *again != (GCResult{}) {
		t.Errorf("then %+v", again)
	}
}
