package compact

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gofs/blobstore"
	"gofs/index"
)

// quickly lists the files of a version that are read from quick records, and counts
// the parts of others that are, which they share with these.
func quickly(t testing.TB, s *index.Store, name string) (paths []string, shared int) {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	v, ok := snap.Find(name)
	if !ok {
		t.Fatalf("no version %s", name)
	}
	tree, err := snap.Tree(t.Context(), view, v)
	if err != nil {
		t.Fatal(err)
	}
	err = tree.Walk(func(path string, e *index.Entry) error {
		quick := 0
		for _, ref := range tree.Blobs(e) {
			rec, err := view.Stored(ref.ID)
			if err != nil {
				return err
			}
			if rec.Quick() {
				quick++
			}
		}
		if n := len(tree.Blobs(e)); n > 0 && quick == n {
			paths = append(paths, path)
		} else {
			shared += quick
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths, shared
}

// whole returns the record of a program as a whole.
func whole(t testing.TB, s *index.Store, program string) *blobstore.Record {
	t.Helper()
	_, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	rec, err := view.Stored(blobstore.Sum([]byte(program)))
	if err != nil || !rec.IsProgram() {
		t.Errorf("program as a whole: %v, %v", rec, err)
		return nil
	}
	return rec
}

// forBuilds lists the files of a release that are to be quick.
func forBuilds(c content) (paths []string) {
	for path, data := range c {
		if len(data) > part && index.RunByBuilds(path) || data != "" && len(data) <= part && index.ReadByBuilds(path) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

const tools = "pkg/tool/linux_amd64/"

// What a build runs is stored quickly besides, until it is not wanted any more.
func TestQuick(t *testing.T) {
	s, want := newStore(t), map[string]content{}
	for _, name := range []string{"1.22.0", "1.22.1", "1.23.0"} {
		want[name] = makeRelease(t, name)
		want[name][tools+"link"] = strings.Repeat("no program "+name, 50_000)
		want[name][tools+"cgo"] = "in one blob"
		put(t, s, name, want[name])
	}
	are := func(versions map[string]bool) {
		t.Helper()
		st, err := s.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, quick := range versions {
			if i := slices.IndexFunc(st.Versions, func(v index.VersionStats) bool { return v.Name == name }); st.Versions[i].Quick != quick {
				t.Errorf("stats say of %s that it is quick: %v", name, !quick)
			}
			got, _ := quickly(t, s, name)
			if quick && !slices.Equal(got, forBuilds(want[name])) || !quick && slices.ContainsFunc(got, index.RunByBuilds) {
				t.Errorf("%s: to be quick %v, are %q", name, quick, got)
			}
		}
	}
	before := trees(t, s)
	dense := run(t, s, Options{Quick: []string{}})
	if got, shared := quickly(t, s, "1.22.0"); len(got)+shared > 0 {
		t.Errorf("quick without being asked: %q", got)
	}
	r := run(t, s, Options{Quick: []string{"1.22.0"}})
	if r.Records == 0 || r.After <= dense.After {
		t.Errorf("nothing was added: %+v, dense %+v", r, dense)
	}
	check(t, s, want)
	are(map[string]bool{"1.22.0": true, "1.22.1": false, "1.23.0": false})

	// Whatever comes later leaves it as it is.
	for _, o := range []Options{{}, {Rebase: true}, {Quick: []string{"1.22.0"}}} {
		if again := run(t, s, o); again.Records != 0 || again.After != r.After {
			t.Errorf("again with %+v: %+v", o, again)
		}
	}
	if left := collect(t, s); left.Garbage+left.Removed+left.Rewritten != 0 {
		t.Errorf("gc finds %+v", left)
	}
	if again := run(t, s, Options{Effort: 2}); again.Records == 0 {
		t.Errorf("with more effort: %+v", again)
	}
	if got, _ := quickly(t, s, "1.22.0"); !slices.Equal(got, forBuilds(want["1.22.0"])) {
		t.Errorf("after a compaction with more effort quick are %q", got)
	}
	if got := whole(t, s, want["1.22.0"]["bin/go"]); got == nil || got.Effort() != 2 {
		t.Errorf("the whole go command was not encoded with more effort: %v", got)
	}
	check(t, s, want)

	// Others in its place, and none.
	// Only what 1.22.0 alone had is made anew.
	if r := run(t, s, Options{Effort: 2, Quick: []string{"1.23.0", "1.22.1"}}); r.Rounds > 1 {
		t.Errorf("%d rounds: %+v", r.Rounds, r)
	}
	are(map[string]bool{"1.22.0": false, "1.22.1": true, "1.23.0": true})
	check(t, s, want)
	if last := run(t, s, Options{Effort: 2, Quick: []string{}}); last.After > dense.After+dense.After/50 {
		t.Errorf("%d bytes in the end, %d before", last.After, dense.After)
	}
	for name := range want {
		if got, shared := quickly(t, s, name); len(got)+shared > 0 {
			t.Errorf("%s: quick are still %q and %d parts", name, got, shared)
		}
	}
	check(t, s, want)
	if now := trees(t, s); !maps.Equal(now, before) {
		t.Errorf("trees and inodes are %v, were %v", now, before)
	}
	if _, err := Run(t.Context(), s, Options{Quick: []string{"1.22.0", "1.9"}}); !errors.Is(err, index.ErrNoVersion) {
		t.Errorf("of a version that is not there: %v", err)
	}
}

// The room of a version is all that is stored for it, a quick program's dense record, too.
func TestQuickRoom(t *testing.T) {
	s, _ := filled(t, "1.22.1")
	run(t, s, Options{Quick: []string{"1.22.1"}})
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// There are the record of the version and what a pack has beside records.
	v := st.Versions[0]
	if rest := st.Packs - st.Unused - v.Stored; rest < 0 || rest > 4<<10 || v.Frees != v.Stored {
		t.Errorf("%d bytes in packs, %d of them unused; of the only version %d, freed with it %d", st.Packs, st.Unused, v.Stored, v.Frees)
	}
}

// The whole program stays beside its quick parts, for the deltas of others: those there
// are and those to come. A gc that rewrites its pack leaves the parts where they are read.
func TestQuickBase(t *testing.T) {
	s, want := filled(t, "1.22.1", "1.22.2")
	run(t, s, Options{Quick: []string{"1.22.1", "1.22.2"}})
	whole(t, s, want["1.22.2"]["bin/go"])
	remove(t, s, "1.22.1")
	delete(want, "1.22.1")
	if r := collect(t, s); r.Rewritten == 0 {
		t.Fatalf("nothing was rewritten: %+v", r)
	}
	whole(t, s, want["1.22.2"]["bin/go"])
	if got, _ := quickly(t, s, "1.22.2"); !slices.Equal(got, forBuilds(want["1.22.2"])) {
		t.Errorf("after gc quick are %q", got)
	}
	check(t, s, want)
	if r := collect(t, s); r.Garbage+r.Removed+r.Rewritten != 0 {
		t.Errorf("the next gc finds %+v", r)
	}

	want["1.22.0"] = makeRelease(t, "1.22.0")
	put(t, s, "1.22.0", want["1.22.0"])
	run(t, s, Options{})
	check(t, s, want)
	if rec := whole(t, s, want["1.22.0"]["bin/go"]); rec == nil || !slices.Contains(rec.Bases(), blobstore.Sum([]byte(want["1.22.2"]["bin/go"]))) {
		t.Error("the go command imported last is not a delta of the quick one")
	}

	// The index that is made from the packs has them where they were.
	before := treesOnly(t, s)
	if err := os.Remove(filepath.Join(s.Dir(), "index.db")); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Rebuild(t.Context(), index.LockOptions{NoWait: true}, index.VerifyOptions{}); err != nil || !r.OK() {
		t.Errorf("rebuild: %+v, %v", r, err)
	}
	check(t, s, want)
	if now := treesOnly(t, s); !maps.Equal(now, before) {
		t.Errorf("trees %v, before %v", now, before)
	}
	if got, _ := quickly(t, s, "1.22.2"); !slices.Equal(got, forBuilds(want["1.22.2"])) {
		t.Errorf("after rebuild quick are %q", got)
	}

	remove(t, s, "1.22.2")
	delete(want, "1.22.2")
	run(t, s, Options{Rebase: true})
	check(t, s, want)
	if r := collect(t, s); r.Garbage+r.Removed+r.Rewritten != 0 {
		t.Errorf("gc after the quick version is gone: %+v", r)
	}
}

// What is damaged of the dense records does not take the quick ones with it.
func TestQuickRepair(t *testing.T) {
	s, want := filled(t, "1.22.1", "1.22.2")
	other, _ := filled(t, "1.22.1", "1.22.2")
	run(t, s, Options{Quick: []string{"1.22.1"}})
	if whole(t, s, want["1.22.1"]["bin/go"]) == nil {
		t.Fatal("no whole go command")
	}
	hurt(t, s, want["1.22.1"]["bin/go"])
	if r, err := s.Verify(t.Context(), index.VerifyOptions{}); err != nil || r.OK() {
		t.Fatalf("the damage is not seen: %+v, %v", r, err)
	}
	mend(t, s, other)
	for range 2 {
		check(t, s, want)
		if got, _ := quickly(t, s, "1.22.1"); !slices.Equal(got, forBuilds(want["1.22.1"])) {
			t.Errorf("quick are %q", got)
		}
		run(t, s, Options{})
	}
}

// What is damaged of the quick records of a program is made anew from its dense one.
func TestQuickMendsItself(t *testing.T) {
	s, want := filled(t, "1.22.1", "1.22.2")
	run(t, s, Options{Quick: []string{"1.22.1"}})
	if !hurt(t, s, want["1.22.1"]["bin/go"][:part]).Quick() {
		t.Fatal("the go command is not quick")
	}
	if r, err := s.Verify(t.Context(), index.VerifyOptions{}); err != nil || r.OK() {
		t.Fatalf("the damage is not seen: %+v, %v", r, err)
	}
	if res := mend(t, s); res.Mended == 0 {
		t.Errorf("%+v", res)
	}
	check(t, s, want)
	run(t, s, Options{Quick: []string{"1.22.1"}})
	check(t, s, want)
	if got, _ := quickly(t, s, "1.22.1"); !slices.Equal(got, forBuilds(want["1.22.1"])) {
		t.Errorf("quick are %q", got)
	}
}

// damage changes a byte of a file.
func damage(t testing.TB, name string, at int64) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A quick release does not lose its quick records for a dense one that is damaged: the
// parts would be read from there.
func TestQuickWholeDamaged(t *testing.T) {
	s, want := filled(t, "1.22.1", "1.22.2")
	run(t, s, Options{Quick: []string{"1.22.1"}})
	hurt(t, s, want["1.22.1"]["bin/go"])
	if _, err := Run(t.Context(), s, Options{Effort: 1, Quick: []string{}}); !errors.Is(err, blobstore.ErrDamaged) {
		t.Errorf("quick no more: %v", err)
	}
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	same(t, snap, view, want)
}

// A quick program that was a delta of one that is gone is made a delta of another, as any is.
func TestQuickRebase(t *testing.T) {
	s, want := filled(t, "1.22.0", "1.22.1", "1.22.2")
	run(t, s, Options{Quick: []string{"1.22.0"}})
	remove(t, s, "1.22.2")
	delete(want, "1.22.2")
	if kept := collect(t, s); kept.Bases == 0 {
		t.Fatalf("nothing is kept as base: %+v", kept)
	}
	if r := run(t, s, Options{Rebase: true}); r.Bases != 0 || r.Records == 0 || r.After >= r.Before {
		t.Errorf("%+v", r)
	}
	check(t, s, want)
	if got, _ := quickly(t, s, "1.22.0"); !slices.Equal(got, forBuilds(want["1.22.0"])) {
		t.Errorf("quick are %q", got)
	}
}

// A quick release that is removed and comes back is as dense as any.
func TestQuickAgain(t *testing.T) {
	s, want := filled(t, "1.22.1", "1.22.2")
	dense := run(t, s, Options{})
	run(t, s, Options{Quick: []string{"1.22.2"}})
	c := want["1.22.2"]
	remove(t, s, "1.22.2")
	delete(want, "1.22.2")
	if r := collect(t, s); r.Bases == 0 {
		t.Fatalf("its programs are no bases: %+v", r)
	}
	check(t, s, want)
	want["1.22.2"] = c
	put(t, s, "1.22.2", c)
	// What is quick still are parts that 1.22.1 has, too.
	if r := run(t, s, Options{}); r.After > dense.After+500_000 {
		t.Errorf("%d bytes, %d before", r.After, dense.After)
	}
	if r := run(t, s, Options{Quick: []string{}}); r.After > dense.After+dense.After/50 {
		t.Errorf("%d bytes, %d before", r.After, dense.After)
	}
	check(t, s, want)
	if again := run(t, s, Options{}); again.Records != 0 {
		t.Errorf("again: %+v", again)
	}
}

// A file that is no program is no delta of a quick program: that could not be
// made slow again.
func TestQuickIsNoBase(t *testing.T) {
	s, want := filled(t, "1.22.1")
	run(t, s, Options{Quick: []string{"1.22.1"}})
	c := makeRelease(t, "1.22.0")
	broken := []byte(want["1.22.1"][tools+"asm"])
	for i := 0; i < len(broken); i += part / 2 {
		broken[i]++
	}
	c[tools+"asm"] = string(broken)
	want["1.22.0"] = c
	put(t, s, "1.22.0", c)
	run(t, s, Options{})
	check(t, s, want)
	run(t, s, Options{Quick: []string{}})
	check(t, s, want)
}

// A part of a program that is a program itself, and base of others, stays where these
// look for it, whatever is made of the program that it is a part of.
func TestProgramAsPart(t *testing.T) {
	s, want := newStore(t), map[string]content{}
	add := func(name string, c content) {
		want[name] = c
		put(t, s, name, c)
	}
	for _, name := range []string{"1.23.0", "1.23.1"} {
		c := makeRelease(t, name)
		c[single] = built(t, "single", name, "linux-amd64")
		add(name, c)
	}
	run(t, s, Options{})
	check(t, s, want)
	base := want["1.23.1"][single]
	if rec := whole(t, s, want["1.23.0"][single]); rec == nil || !slices.Contains(rec.Bases(), blobstore.Sum([]byte(base))) {
		t.Fatal("the patch is no delta of the newest")
	}
	c := makeRelease(t, "1.22.0")
	c[begins] = base + strings.Repeat("and more ", 1000)
	add("1.22.0", c)
	for _, o := range []Options{
		{},
		{Quick: []string{"1.22.0"}},
		{Quick: []string{"1.22.0", "1.23.1"}, Effort: 2},
		{Effort: 3},
		{Quick: []string{}, Effort: 3},
	} {
		run(t, s, o)
		check(t, s, want)
		whole(t, s, base)
		if again := run(t, s, o); again.Records != 0 {
			t.Errorf("again with %+v: %+v", o, again)
		}
	}
	// A gc that rewrites the pack of the program with the part.
	remove(t, s, "1.23.0")
	delete(want, "1.23.0")
	collect(t, s)
	check(t, s, want)
	whole(t, s, base)
	if again := run(t, s, Options{Effort: 3}); again.Records != 0 {
		t.Errorf("again: %+v", again)
	}
}

// A blob is read from one place of those that are published with it and before it.
func TestSettle(t *testing.T) {
	blob := func(id byte, offset int64, quick, program bool) blobstore.Placed {
		return blobstore.Placed{ID: blobstore.ID{id}, Location: blobstore.Location{Record: offset}, Quick: quick, Program: program}
	}
	packs := []blobstore.Pack{
		{Blobs: []blobstore.Placed{blob(1, 16, false, false), blob(2, 16, false, false), blob(3, 16, false, false), blob(4, 16, false, false), blob(5, 16, false, true)}},
		{Blobs: []blobstore.Placed{blob(2, 99, true, false), blob(3, 99, true, false), blob(4, 99, true, false), blob(5, 99, false, false)}},
	}
	was := func(kind byte) func(blobstore.ID) bool { return func(id blobstore.ID) bool { return id[0] == kind } }
	settle(packs, func(id blobstore.ID) bool { return id[0] == 3 || id[0] == 5 }, was(4))
	for i, want := range [][]blobstore.Placed{
		{blob(1, 16, false, false), blob(5, 16, false, true)},
		{blob(2, 99, true, false), blob(3, 99, true, false)},
	} {
		if !slices.Equal(packs[i].Blobs, want) {
			t.Errorf("pack %d has %+v, want %+v", i, packs[i].Blobs, want)
		}
	}
}
