package index

import (
	"errors"
	"fmt"
	"io/fs"
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

func rebuild(t testing.TB, s *Store) *RebuildReport {
	t.Helper()
	r, err := s.Rebuild(t.Context(), LockOptions{NoWait: true}, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// highest is the largest inode number that the store has given out, and the
// largest pack number.
func highest(t testing.TB, s *Store) (node, pack uint64) {
	t.Helper()
	err := s.view(func(tx *bolt.Tx) error {
		var err1, err2 error
		node, err1 = getNumber(tx, keyNode)
		pack, err2 = getNumber(tx, keyPack)
		return errors.Join(err1, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	return node - 1, pack - 1
}

// Without its database a store comes back as it was, whatever else is left;
// only without the generation file removed versions come back too.
func TestRebuild(t *testing.T) {
	for name, damage := range map[string]func(s *Store) error{
		"removed": func(s *Store) error { return os.Remove(filepath.Join(s.Dir(), databaseFile)) },
		"garbage": func(s *Store) error {
			return os.WriteFile(filepath.Join(s.Dir(), databaseFile), []byte("no database"), 0o644)
		},
		"a lost version": func(s *Store) error {
			return s.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketVersions).Delete([]byte("1.22.0")) })
		},
		"a lost inode": func(s *Store) error {
			return s.update(func(tx *bolt.Tx) error {
				k, _ := tx.Bucket(bucketFiles).Cursor().First()
				return tx.Bucket(bucketFiles).Delete(slices.Clone(k))
			})
		},
		"no generation": func(s *Store) error {
			return errors.Join(os.Remove(filepath.Join(s.Dir(), databaseFile)), os.Remove(s.GenerationFile()))
		},
		"half a generation": func(s *Store) error {
			return errors.Join(os.Remove(filepath.Join(s.Dir(), databaseFile)), os.Truncate(s.GenerationFile(), 30))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			want := map[string]content{}
			for _, v := range []string{"1.22.0", "1.22.1", "1.22.2", "1.23.0"} {
				want[v] = goLike(60, v)
				put(t, s, v, want[v])
			}
			gone := want["1.22.1"]
			remove(t, s, "1.22.1")
			delete(want, "1.22.1")
			node, pack := highest(t, s)
			before, err := s.Generation()
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(s); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, "generation") {
				want["1.22.1"] = gone
			}
			r := rebuild(t, s)
			if r.Sound || !r.OK() || !slices.Equal(slices.Sorted(slices.Values(r.Versions)), slices.Sorted(maps.Keys(want))) {
				t.Errorf("%+v", r)
			}
			check(t, s, want)
			snap, view := open(t, s)
			for i := range snap.Versions {
				v := &snap.Versions[i]
				tree, err := snap.Tree(t.Context(), view, v)
				if err != nil {
					t.Fatal(err)
				}
				nodes, err := snap.Nodes(v, tree)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range nodes {
					if n.Number <= node {
						t.Fatalf("inode number %d is given out again, up to %d were", n.Number, node)
					}
				}
			}
			for _, p := range snap.Packs {
				if uint64(p.Number) <= pack {
					t.Errorf("pack number %d is given out again", p.Number)
				}
			}
			if n, err := s.Generation(); n <= before || n != snap.Generation || err != nil {
				t.Errorf("generation %d, before %d, announced %d, %v", snap.Generation, before, n, err)
			}
			if r := rebuild(t, s); !r.Sound {
				t.Errorf("again: %+v", r)
			}
			// All that a store does works on it.
			put(t, s, "1.24.0", goLike(60, "1.24.0"))
			want["1.24.0"] = goLike(60, "1.24.0")
			remove(t, s, "1.22.0")
			delete(want, "1.22.0")
			collect(t, s, GCOptions{})
			check(t, s, want)
		})
	}
}

// An older database that was put back is no reason to lose what came after.
func TestRebuildOlder(t *testing.T) {
	s := newStore(t)
	want := map[string]content{"1.22.0": goLike(30, "x")}
	put(t, s, "1.22.0", want["1.22.0"])
	old, err := os.ReadFile(filepath.Join(s.Dir(), databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	want["1.22.1"] = goLike(30, "y")
	put(t, s, "1.22.1", want["1.22.1"])
	if err := os.WriteFile(filepath.Join(s.Dir(), databaseFile), old, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(t.Context(), LockOptions{}); !errors.Is(err, ErrIndex) || !strings.Contains(err.Error(), "repair --index") {
		t.Errorf("lock: %v", err)
	}
	if r := rebuild(t, s); !r.OK() || r.Sound {
		t.Errorf("%+v", r)
	}
	check(t, s, want)
}

// A version that was proved after its import keeps its proof.
func TestRebuildDescribed(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(30, "x"))
	list, err := s.Versions()
	if err != nil {
		t.Fatal(err)
	}
	v := list[0]
	// One of which the ID of the later record is the lesser.
	for i := 0; ; i++ {
		v.H1 = fmt.Sprint("h1:", i)
		var ids []string
		for _, proof := range []string{"unverified", "sumdb example"} {
			v.Provenance = proof
			record, err := VersionRecord(&v)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, blobID(string(record)).String())
		}
		if ids[0] > ids[1] {
			break
		}
	}
	for _, proof := range []string{"unverified", "sumdb example"} {
		v.Provenance = proof
		record, err := VersionRecord(&v)
		if err != nil {
			t.Fatal(err)
		}
		c := Change{Describe: []Version{v}, Packs: packOf(t, s, blobstore.Group{Kind: blobstore.Version}, string(record))}
		w := lock(t, s)
		if err := errors.Join(w.Commit(c), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, lost := range [][]string{{databaseFile}, {databaseFile, generationFile}} {
		for _, name := range lost {
			if err := os.Remove(filepath.Join(s.Dir(), name)); err != nil {
				t.Fatal(err)
			}
		}
		rebuild(t, s)
		if list, err = s.Versions(); err != nil || len(list) != 1 || list[0].Provenance != v.Provenance || list[0].H1 != v.H1 {
			t.Errorf("without %v: %+v, %v", lost, list, err)
		}
	}
}

// A crash may keep the last commits from being announced. What they brought is
// not taken for removed.
func TestRebuildNotAnnounced(t *testing.T) {
	s := newStore(t)
	want := map[string]content{"1.22.0": goLike(30, "x")}
	put(t, s, "1.22.0", want["1.22.0"])
	put(t, s, "1.22.1", goLike(30, "y"))
	remove(t, s, "1.22.1")
	old, err := os.ReadFile(s.GenerationFile())
	if err != nil {
		t.Fatal(err)
	}
	want["1.22.1"], want["1.22.2"] = goLike(30, "z"), goLike(30, "w")
	put(t, s, "1.22.1", want["1.22.1"]) // another one of this name
	put(t, s, "1.22.2", want["1.22.2"])
	if err := errors.Join(os.Remove(filepath.Join(s.Dir(), databaseFile)), os.WriteFile(s.GenerationFile(), old, 0o644)); err != nil {
		t.Fatal(err)
	}
	if r := rebuild(t, s); !r.OK() {
		t.Errorf("%+v", r)
	}
	check(t, s, want)
}

// packOf is a pack of one group, of one blob.
func packOf(t testing.TB, s *Store, g blobstore.Group, data string) []blobstore.Pack {
	t.Helper()
	w, err := blobstore.NewWriter(s.PackDir(), blobstore.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	g.Blobs = []blobstore.Blob{{ID: blobID(data), Data: []byte(data)}}
	if err := w.Add(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	packs, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return packs
}

// Of two places of a blob, both deltas and bases of others, that is taken with
// which all can be read.
func TestRebuildPlaces(t *testing.T) {
	s := newStore(t)
	noise := make([]byte, 50_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	x, y := string(noise)+"x", string(noise)+"y"
	want := map[string]content{"1.22.0": {"x": x}, "1.22.1": {"y": y}}
	put(t, s, "1.22.0", want["1.22.0"])
	put(t, s, "1.22.1", want["1.22.1"])
	packOf(t, s, blobstore.Group{Bases: []blobstore.Blob{{ID: blobID(x), Data: []byte(x)}}}, y)
	packs := packOf(t, s, blobstore.Group{Bases: []blobstore.Blob{{ID: blobID(y), Data: []byte(y)}}, Depth: 1}, x)
	if packs[0].Size > 10_000 {
		t.Fatalf("%d bytes are no delta", packs[0].Size)
	}
	if err := os.Remove(filepath.Join(s.Dir(), databaseFile)); err != nil {
		t.Fatal(err)
	}
	if r := rebuild(t, s); !r.OK() {
		t.Errorf("%+v, %+v", r, r.Verify)
	}
	check(t, s, want)
}

// The records behind one whose head is damaged are found.
func TestRebuildBehindDamage(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(100, "x"))
	packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	if err := errors.Join(flip(packs[0], 16+20), os.Remove(filepath.Join(s.Dir(), databaseFile))); err != nil {
		t.Fatal(err)
	}
	if r := rebuild(t, s); len(r.Versions) != 1 || r.OK() {
		t.Errorf("%+v", r)
	}
	snap, view := open(t, s)
	lost := 0
	for _, data := range goLike(100, "x") {
		if _, err := view.Blob(t.Context(), blobID(data)); err != nil {
			lost++
		}
	}
	if snap.Blobs() < 80 || lost == 0 || lost > 15 {
		t.Errorf("%d blobs are there, %d are lost", snap.Blobs(), lost)
	}
}

// What is wrong with a pack, a version record or a tree is never believed.
func TestRebuildHostile(t *testing.T) {
	s := newStore(t)
	want := map[string]content{"1.22.0": goLike(30, "x")}
	put(t, s, "1.22.0", want["1.22.0"])
	for _, record := range []string{
		"", "{}", "null", "[", `{"name":"../../etc"}`, `{"name":"bin"}`, `{"name":"1.9"}`, `{"name":"1.9","tree":"zz"}`,
		`{"name":"1.22.0","imported":"9999-01-01T00:00:00Z"}`, strings.Repeat(" ", maxRecord+1),
	} {
		packOf(t, s, blobstore.Group{Kind: blobstore.Version}, record+" ")
	}
	v := Version{Name: "1.23.0", Tree: blobID("no tree")}
	record, err := VersionRecord(&v)
	if err != nil {
		t.Fatal(err)
	}
	packOf(t, s, blobstore.Group{Kind: blobstore.Version}, string(record))
	packOf(t, s, blobstore.Group{Kind: blobstore.Tree}, "no tree")
	for name, text := range map[string]string{"x.pack": "x", strings.Repeat("0", 64) + ".pack": "", strings.Repeat("1", 64) + ".pack": strings.Repeat("GOFR", 5000)} {
		if err := os.WriteFile(filepath.Join(s.PackDir(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{databaseFile, generationFile} {
		if err := os.Remove(filepath.Join(s.Dir(), name)); err != nil {
			t.Fatal(err)
		}
	}
	r := rebuild(t, s)
	if !slices.Equal(r.Versions, []string{"1.22.0"}) || len(r.Lost) != 1 || r.Lost[0].Version != "1.23.0" || len(r.Verify.Files) != 0 || len(r.Verify.Damage) != 2 {
		t.Errorf("%+v, %+v", r, r.Verify)
	}
	snap, view := open(t, s)
	if c, err := read(t.Context(), snap, view, "1.22.0"); err != nil || !maps.Equal(c, want["1.22.0"]) {
		t.Errorf("%v", err)
	}
}

// Whatever is damaged, what can be read of a store is there after a rebuild
// and what cannot is named.
func TestRebuildDamaged(t *testing.T) {
	sound := newStore(t)
	want := map[string]content{}
	for _, name := range []string{"1.22.0", "1.22.1", "1.23.0"} {
		want[name] = goLike(60, name)
		// Most of a pack is files.
		for i := range 20 {
			noise := make([]byte, 5000)
			_, _ = rand.NewChaCha8([32]byte{byte(i), name[3], name[5]}).Read(noise)
			want[name][fmt.Sprint("lib/noise", i)] = string(noise)
		}
		put(t, sound, name, want[name])
	}
	cases, whole, lost, hurt := 60, 0, 0, 0
	if testing.Short() {
		cases = 20
	}
	for i := range cases {
		r := rand.New(rand.NewPCG(uint64(i), 9))
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(dir, os.DirFS(sound.Dir())); err != nil {
			t.Fatal(err)
		}
		s := &Store{dir}
		packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
		if err != nil || len(packs) != 3 {
			t.Fatal(packs, err)
		}
		damaged := packs[:1+r.IntN(2)]
		if i == 0 {
			damaged = nil
		}
		for _, p := range damaged {
			if err := damagePack(p, r); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(dir, databaseFile)); err != nil {
			t.Fatal(err)
		}
		rep := rebuild(t, s)
		named := map[string]bool{}
		for _, l := range rep.Lost {
			named[l.Version] = true
			lost++
		}
		bad := map[string]bool{}
		for _, f := range rep.Verify.Files {
			bad[f.Version+"/"+f.Path] = true
		}
		hurt += len(bad)
		snap, view := open(t, s)
		for name, c := range want {
			v, ok := snap.Find(name)
			if ok == named[name] {
				t.Errorf("case %d: %s is there: %v, named as lost: %v", i, name, ok, named[name])
			}
			if !ok || bad[name+"/"] {
				continue
			}
			tree, err := snap.Tree(t.Context(), view, v)
			if err != nil {
				t.Fatal(err)
			}
			all := true
			for path, data := range c {
				e, ok := tree.Find(strings.TrimSuffix(path, "/"))
				if !ok {
					t.Fatalf("case %d: no %s", i, path)
				}
				got := ""
				for _, ref := range tree.Blobs(e) {
					b, berr := view.Blob(t.Context(), ref.ID)
					got, err = got+string(b), errors.Join(err, berr)
				}
				switch {
				case err != nil:
					if all = false; !bad[name+"/"+path] {
						t.Errorf("case %d: %s/%s is not named: %v", i, name, path, err)
					}
				case e.Kind == File && got != data:
					t.Fatalf("case %d: wrong bytes in %s/%s", i, name, path)
				}
				err = nil
			}
			if all {
				whole++
			}
		}
		view.Close()
		if (len(damaged) == 0) != rep.OK() {
			t.Errorf("case %d: %+v", i, rep)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cases: %d versions whole, %d lost, %d files unreadable", cases, whole, lost, hurt)
	if whole == 0 || lost == 0 || hurt == 0 {
		t.Error("the cases are of one kind only")
	}
}

func damagePack(name string, r *rand.Rand) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	at := r.IntN(len(b))
	switch r.IntN(6) {
	case 0:
		return os.Remove(name)
	case 1:
		b = b[:at]
	case 2:
		clear(b[at:min(len(b), at+4096)])
	default:
		for range 1 + r.IntN(4) {
			b[at] ^= 1 << r.IntN(8)
			at = r.IntN(len(b))
		}
	}
	return os.WriteFile(name, b, 0o644)
}

// What cannot be read now is not taken for lost.
func TestRebuildNotNow(t *testing.T) {
	s := newStore(t)
	put(t, s, "1.22.0", goLike(10, "x"))
	w := lock(t, s)
	if _, err := s.Rebuild(t.Context(), LockOptions{NoWait: true}, VerifyOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	w.Close()
	if err := os.Remove(filepath.Join(s.Dir(), databaseFile)); err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	// A folder cannot be read, like a pack on a failing disk.
	if err := errors.Join(os.Rename(packs[0], packs[0]+"x"), os.Mkdir(packs[0], 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rebuild(t.Context(), LockOptions{NoWait: true}, VerifyOptions{}); err == nil || errors.Is(err, ErrIndex) {
		t.Errorf("a pack that cannot be read: %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), databaseFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an index was made: %v", err)
	}
	if err := errors.Join(os.Remove(packs[0]), os.Rename(packs[0]+"x", packs[0])); err != nil {
		t.Fatal(err)
	}
	if r := rebuild(t, s); !r.OK() {
		t.Errorf("%+v", r)
	}
}

// One text has one meaning, and no other has any.
func TestAnnouncement(t *testing.T) {
	a := &announcement{generation: 7, node: 5000, pack: 3, versions: map[string]blobstore.ID{"1.22.0": blobID("x"), "1.9": blobID("y")}}
	text := a.text()
	got, ok := parseAnnouncement(text)
	if !ok || fmt.Sprint(*got) != fmt.Sprint(*a) {
		t.Errorf("%v, %v", got, ok)
	}
	for i := range text {
		b := []byte(text)
		b[i] ^= 1
		if _, ok := parseAnnouncement(string(b)); ok {
			t.Errorf("bit %d: believed", i)
		}
		if _, ok := parseAnnouncement(text[:i]); ok {
			t.Errorf("%d bytes: believed", i)
		}
	}
	for _, text := range []string{text + text, text + "\n", "\n" + text, strings.Replace(text, "pack 3", "pack 03", 1)} {
		if _, ok := parseAnnouncement(text); ok {
			t.Errorf("believed: %q", text)
		}
	}
}
