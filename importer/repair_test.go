package importer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"gofs/blobstore"
	"gofs/importer/source"
	"gofs/index"
)

// damagedStore is a store of two releases, and a sound copy of it.
func damagedStore(t *testing.T, damage func(pack string) error) (s, sound *index.Store, want map[string]*fake) {
	t.Helper()
	s = newStore(t)
	want = map[string]*fake{"1.22.8": full("1.22.8"), "1.23.3": full("1.23.3")}
	imported(t, s, want["1.22.8"], Options{})
	imported(t, s, want["1.23.3"], Options{})
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(s.Dir())); err != nil {
		t.Fatal(err)
	}
	sound, err := index.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
	if err != nil || len(packs) != 2 {
		t.Fatal(packs, err)
	}
	for _, pack := range packs {
		if err := damage(pack); err != nil {
			t.Fatal(err)
		}
	}
	return s, sound, want
}

func flipAt(places ...float64) func(string) error {
	return func(pack string) error {
		b, err := os.ReadFile(pack)
		if err != nil {
			return err
		}
		for _, p := range places {
			b[int(p*float64(len(b)-1))] ^= 0x40
		}
		return os.WriteFile(pack, b, 0o644)
	}
}

// flipFirstHeader damages the head of a pack's first record, so that it cannot
// be read in order, though the index knows where the other records are.
func flipFirstHeader(pack string) error {
	b, err := os.ReadFile(pack)
	if err != nil {
		return err
	}
	b[24] ^= 0x40
	return os.WriteFile(pack, b, 0o644)
}

func truncate(share float64) func(string) error {
	return func(pack string) error {
		st, err := os.Stat(pack)
		if err != nil {
			return err
		}
		return os.Truncate(pack, int64(share*float64(st.Size())))
	}
}

func repair(t *testing.T, s *index.Store, from ...any) (*RepairResult, []index.Version) {
	t.Helper()
	r, err := NewRepair(t.Context(), s, index.LockOptions{Verb: "repair", NoWait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, f := range from {
		switch f := f.(type) {
		case *index.Store:
			err = r.FromStore(t.Context(), f)
		case source.Source:
			err = r.FromSource(t.Context(), f)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	left := r.Versions(t.Context())
	res, err := r.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if res.Mended+r.Missing() != res.Damaged {
		t.Errorf("%+v, and %d missing", res, r.Missing())
	}
	return res, left
}

func TestRepair(t *testing.T) {
	noisy := rand.New(rand.NewPCG(1, 2))
	many := make([]float64, 40)
	for i := range many {
		many[i] = noisy.Float64()
	}
	for what, damage := range map[string]func(string) error{
		"a bit":     flipAt(0.5),
		"the head":  flipAt(0),
		"the end":   flipAt(1),
		"many bits": flipAt(many...),
		"a header":  flipFirstHeader,
		"half":      truncate(0.5),
		"all":       truncate(0),
		"gone":      os.Remove,
	} {
		t.Run(what, func(t *testing.T) {
			for _, from := range []string{"store", "sources"} {
				s, sound, want := damagedStore(t, damage)
				sources := []any{sound}
				if from == "sources" {
					sources = []any{stream(t, tarball(t, want["1.22.8"])), want["1.23.3"]}
				}
				res, _ := repair(t, s, sources...)
				if res.Damaged != res.Mended || res.Dropped == 0 {
					t.Errorf("from %s: %+v", from, res)
				}
				for name, f := range want {
					checkContents(t, s, name, f)
				}
				verified(t, s)
				if packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*")); err != nil || len(packs) > 2 {
					t.Errorf("left behind: %v, %v", packs, err)
				}
				again, err := NewRepair(t.Context(), s, index.LockOptions{Verb: "repair", NoWait: true})
				if err != nil || !again.Sound() {
					t.Errorf("not sound afterwards: %v", err)
				}
				again.Close()
				collect(t, s)
				verified(t, s)
			}
		})
	}
}

// What no source has stays as it is, and is named.
func TestRepairInPart(t *testing.T) {
	s, _, want := damagedStore(t, flipAt(0.5))
	before := files(t, s)
	res, left := repair(t, s)
	if res.Mended != 0 || res.Damaged == 0 || res.Dropped != 0 || len(left) == 0 {
		t.Errorf("from nothing: %+v, %v", res, left)
	}
	if after := files(t, s); !slices.Equal(after, before) {
		t.Errorf("changed: %v, before %v", after, before)
	}
	other := release("1.22.8", index.HostPlatform())
	if res, _ = repair(t, s, other); res.Mended != 0 || res.Stored != 0 {
		t.Errorf("from a release without it: %+v", res)
	}
	// All damage is in what both releases have, or else in what only the
	// second has.
	_, left = repair(t, s, want["1.22.8"])
	names := RepairSources(left)
	for _, v := range left {
		if v.Name != "1.23.3" || !slices.Contains(names, "1.23.3."+index.HostPlatform()) {
			t.Errorf("left after 1.22.8 was mended: %v", names)
		}
	}
	checkContents(t, s, "1.22.8", want["1.22.8"])
	repair(t, s, want["1.23.3"])
	checkContents(t, s, "1.23.3", want["1.23.3"])
	verified(t, s)
}

// A sound store is left alone, and one in use is not touched.
func TestRepairSound(t *testing.T) {
	s, sound, _ := damagedStore(t, func(string) error { return nil })
	before := files(t, s)
	if res, left := repair(t, s, sound); *res != (RepairResult{}) || len(left) != 0 {
		t.Errorf("%+v, %v", res, left)
	}
	if after := files(t, s); !slices.Equal(after, before) {
		t.Errorf("changed: %v, before %v", after, before)
	}
	w, err := s.Lock(t.Context(), index.LockOptions{Verb: "other"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := NewRepair(t.Context(), s, index.LockOptions{Verb: "repair", NoWait: true}); !errors.Is(err, index.ErrLocked) {
		t.Error(err)
	}
}

// What no version has need not be mended.
func TestRepairUnused(t *testing.T) {
	s := newStore(t)
	imported(t, s, full("1.22.8"), Options{})
	first, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	imported(t, s, full("1.23.3"), Options{})
	w, err := s.Lock(t.Context(), index.LockOptions{Verb: "rm", NoWait: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Commit(index.Change{Remove: []string{"1.23.3"}}), w.Close()); err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
	if err != nil || len(packs) != 2 {
		t.Fatal(packs, err)
	}
	for _, pack := range packs {
		if pack != first[0] {
			if err := flipAt(0.3, 0.6)(pack); err != nil {
				t.Fatal(err)
			}
		}
	}
	if res, left := repair(t, s); res.Damaged != 0 || res.Dropped != 1 || len(left) != 0 {
		t.Errorf("%+v, %v", res, left)
	}
	checkContents(t, s, "1.22.8", full("1.22.8"))
	verified(t, s)
}

// Whatever happens to packs, nobody reads wrong bytes, verify names every file
// that cannot be read, and a repair from a sound store mends all.
// GOFS_DAMAGE_CASES says how many cases to try.
func TestRandomDamage(t *testing.T) {
	cases := 25
	if testing.Short() {
		cases = 5
	}
	if n, err := strconv.Atoi(os.Getenv("GOFS_DAMAGE_CASES")); err == nil {
		cases = n
	}
	_, sound, _ := damagedStore(t, func(string) error { return nil })
	want := map[string]map[string]string{}
	for _, name := range []string{"1.22.8", "1.23.3"} {
		want[name] = contents(t, sound, name)
	}
	hurt, unreadable := 0, 0
	for i := range cases {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(dir, os.DirFS(sound.Dir())); err != nil {
			t.Fatal(err)
		}
		s, err := index.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
		if err != nil {
			t.Fatal(err)
		}
		pack := packs[r.IntN(len(packs))]
		switch r.IntN(8) {
		case 0:
			err = os.Remove(pack)
		case 1:
			err = truncate(r.Float64())(pack)
		case 2:
			err = flipAt(r.Float64(), r.Float64(), r.Float64())(pack)
		default:
			err = flipAt(r.Float64())(pack)
		}
		if err != nil {
			t.Fatal(err)
		}
		bad := unreadableFiles(t, s, want)
		v, err := s.Verify(t.Context(), index.VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range v.Files {
			delete(bad, f.Version+"/"+f.Path)
		}
		if len(bad) > 0 {
			t.Errorf("case %d: verify does not name %v", i, bad)
		}
		if !v.OK() {
			hurt++
		}
		unreadable += len(v.Files)
		if res, _ := repair(t, s, sound); res.Mended != res.Damaged || res.Dropped == 0 && !v.OK() {
			t.Errorf("case %d: %+v", i, res)
		}
		if bad := unreadableFiles(t, s, want); len(bad) > 0 {
			t.Errorf("case %d: after repair %v", i, bad)
		}
		verified(t, s)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cases, %d with damage, %d files unreadable in all", cases, hurt, unreadable)
	if hurt < cases*9/10 {
		t.Errorf("damage in %d of %d cases only", hurt, cases)
	}
}

// unreadableFiles reads all files and lists those that fail. Wrong bytes end
// the test.
func unreadableFiles(t *testing.T, s *index.Store, want map[string]map[string]string) map[string]bool {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(1 << 20))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	bad := map[string]bool{}
	for i := range snap.Versions {
		v := &snap.Versions[i]
		tree, err := snap.Tree(t.Context(), view, v)
		if err != nil {
			bad[v.Name+"/"] = true
			continue
		}
		_ = tree.Walk(func(path string, e *index.Entry) error {
			text := fmt.Sprintf("%o %s", e.Mode, e.Target)
			for _, r := range tree.Blobs(e) {
				b, err := view.Blob(t.Context(), r.ID)
				if err != nil {
					bad[v.Name+"/"+path] = true
					return nil
				}
				text += string(b)
			}
			if w, ok := want[v.Name][path]; ok && w != text {
				t.Fatalf("wrong bytes in %s/%s", v.Name, path)
			}
			return nil
		})
	}
	return bad
}

// What a lost pack had comes back from other sources when the index was lost as
// well.
func TestRepairAfterRebuild(t *testing.T) {
	for what, damage := range map[string]func(string) error{"half": truncate(0.5), "many bits": flipAt(0.2, 0.4, 0.6, 0.8), "a header": flipFirstHeader} {
		s, sound, want := damagedStore(t, damage)
		if err := os.Remove(filepath.Join(s.Dir(), "index.db")); err != nil {
			t.Fatal(err)
		}
		r, err := s.Rebuild(t.Context(), index.LockOptions{NoWait: true}, index.VerifyOptions{})
		if err != nil || r.OK() || len(r.Lost)+len(r.Versions) != 2 {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
		for name, f := range want {
			imported(t, s, f, Options{})
			t.Logf("%s: %s is there", what, name)
		}
		if res, left := repair(t, s, sound); res.Mended != res.Damaged || len(left) != 0 {
			t.Errorf("%s: %+v, left %v", what, res, left)
		}
		for name, f := range want {
			checkContents(t, s, name, f)
		}
		verified(t, s)
	}
}
