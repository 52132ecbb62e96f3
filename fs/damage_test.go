package fs

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gofs/blobstore"
	"gofs/index"
	"gofs/index/compact"
)

// What verify calls unreadable is what a mount cannot read, whatever of a pack
// is damaged.
func TestVerifyNamesWhatAMountCannotRead(t *testing.T) {
	for name, compacted := range map[string]bool{"imported": false, "compacted": true} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			for v, name := range []string{"1.22.0", "1.22.1"} {
				add(t, store, name, damageable(v))
			}
			if compacted {
				if _, err := compact.Run(t.Context(), store, compact.Options{Effort: 1}); err != nil {
					t.Fatal(err)
				}
			}
			snap, err := store.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			cases := 0
			for _, ref := range snap.Packs {
				cases += damagePack(t, store, snap, ref)
			}
			t.Logf("%d damages", cases)
		})
	}
}

// damageable is a release of several records, most of which differ little from
// those of another one.
func damageable(version int) files {
	f := files{"VERSION": {data: fmt.Sprint("go", version), mode: 0o644}, "link": {target: "VERSION"}}
	for i := range 6 {
		data := pseudo(i, 130_000)
		f[fmt.Sprintf("pkg/tool/%d", i)] = file{data: data + fmt.Sprint(version), mode: 0o755}
		f[fmt.Sprintf("src/p%d/a.go", i)] = file{data: data[:20_000] + fmt.Sprint(version), mode: 0o644}
		f[fmt.Sprintf("src/p%d/same.go", i)] = file{data: pseudo(i+10, 3000), mode: 0o644}
	}
	return f
}

// damagePack damages one pack in every way, compares, and says how often.
func damagePack(t *testing.T, store *index.Store, snap *index.Snapshot, ref blobstore.PackRef) (cases int) {
	t.Helper()
	name := filepath.Join(store.PackDir(), ref.Name+blobstore.Suffix)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	places := map[int64]bool{ref.Size - 24: true} // of records, and the trailer
	snap.EachBlob(func(_ blobstore.ID, loc blobstore.Location) {
		if loc.Pack == ref.Number {
			places[loc.Record] = true
		}
	})
	at := slices.Sorted(maps.Keys(places))
	flips := map[string][]int64{"the pack's head": {3}, "the trailer": {ref.Size - 3}, "nothing": nil}
	for i, off := range at[:len(at)-1] {
		flips[fmt.Sprintf("magic of the record at %d", off)] = []int64{off + 1}
		flips[fmt.Sprintf("stored length of the record at %d", off)] = []int64{off + 13}
		flips[fmt.Sprintf("tables of the record at %d", off)] = []int64{off + 40}
		flips[fmt.Sprintf("bytes of the record at %d", off)] = []int64{at[i+1] - 5}
		flips[fmt.Sprintf("head of the record at %d and bytes of the next", off)] = []int64{off, at[min(i+2, len(at)-1)] - 5}
	}
	for i, what := range slices.Sorted(maps.Keys(flips)) {
		if testing.Short() && i%4 != 0 {
			continue
		}
		bad := bytes.Clone(good)
		for _, off := range flips[what] {
			bad[off] ^= 0x10
		}
		compareDamage(t, store, what, name, bad)
		cases++
	}
	compareDamage(t, store, "the end", name, good[:len(good)-1])
	compareDamage(t, store, "all", name, nil)
	if err := os.WriteFile(name, good, 0o644); err != nil {
		t.Fatal(err)
	}
	return cases + 2
}

func compareDamage(t *testing.T, store *index.Store, what, pack string, content []byte) {
	t.Helper()
	if err := os.WriteFile(pack, content, 0o644); err != nil {
		t.Fatal(err)
	}
	unreadable := unreadable(t, store)
	for _, versions := range [][]string{nil, {"1.22.0", "1.22.1"}} {
		r, err := store.Verify(t.Context(), index.VerifyOptions{Versions: versions})
		if err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{}
		for _, f := range r.Files {
			named[filepath.Join(f.Version, f.Path)] = true
		}
		if !maps.Equal(named, unreadable) {
			t.Errorf("%s of %.8s damaged: %v are named, %v cannot be read", what, filepath.Base(pack), slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(unreadable)))
		}
		if sound := what == "nothing"; sound != (len(r.Damage) == 0) && versions == nil || len(r.Damage) == 0 && len(r.Files) > 0 {
			t.Errorf("%s damaged: %+v", what, r)
		}
	}
}

// unreadable lists what cannot be read in a mount: files, and versions of which
// nothing can.
func unreadable(t *testing.T, store *index.Store) map[string]bool {
	t.Helper()
	s, dir := mount(t, store)
	bad := map[string]bool{}
	for _, version := range []string{"1.22.0", "1.22.1"} {
		if _, err := os.ReadDir(filepath.Join(dir, version)); err != nil {
			bad[version] = true
			continue
		}
		err := filepath.WalkDir(filepath.Join(dir, version), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			s.cache.Clear() // what is in memory can be read for as long as it is there
			if _, err := os.ReadFile(path); err != nil {
				bad[strings.TrimPrefix(path, dir+"/")] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	return bad
}

// TestEndedMeanwhile pushes a program when the mount has ended: nothing is
// damaged.
func TestEndedMeanwhile(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", files{"bin/go": {data: pseudo(1, 900_000), mode: 0o755}})
	var log logBuffer
	s, err := newServer(store, Options{Log: log.logger()}, past{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.load(s.now.Load().named("1.22.8"))
	if err != nil {
		t.Fatal(err)
	}
	s.closeViews()
	i, _ := g.find("bin", "go")
	s.pushProgram(g.inodes[i])
	if st := s.Stats(); st.Damaged != 0 || st.Failures != 0 || log.String() != "" {
		t.Errorf("%+v: %s", st, log.String())
	}
}
