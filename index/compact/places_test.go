package compact

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gofs/blobstore"
	"gofs/importer"
	"gofs/index"
)

// The tests of this file are of what others do with a store that is or was being
// compacted: a blob is read from a place that those that need it allow, whatever
// copies the record of.

// interrupted runs rounds of a compaction, all without limit, and not its end.
func interrupted(t testing.TB, s *index.Store, o Options, rounds int) {
	t.Helper()
	o.defaults()
	c := &compaction{store: s, opts: o, cache: blobstore.NewCache(cacheSize), trees: map[blobstore.ID]*index.Tree{}, tried: map[string]int{}, moved: map[string]int{}, r: &Result{}}
	for more := true; more && c.r.Rounds < rounds; {
		var err error
		if more, err = c.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

const allRounds = 1 << 20

// mend repairs a store, from others where it needs them.
func mend(t testing.TB, s *index.Store, others ...*index.Store) *importer.RepairResult {
	t.Helper()
	r, err := importer.NewRepair(t.Context(), s, index.LockOptions{NoWait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, other := range others {
		if err := r.FromStore(t.Context(), other); err != nil {
			t.Fatal(err)
		}
	}
	res, err := r.Commit(t.Context())
	if err != nil || r.Missing() > 0 || res.Mended != res.Damaged {
		t.Fatalf("repair: %+v, %v, %d missing", res, err, r.Missing())
	}
	return res
}

// hurt damages the record that data is read from, which it returns.
func hurt(t testing.TB, s *index.Store, data string) *blobstore.Record {
	t.Helper()
	name, loc, rec := packOf(t, s, data)
	damage(t, name, loc.Record+rec.Size()-10)
	return rec
}

// packOf tells where a blob is read: the file of the pack, the place and the record.
func packOf(t testing.TB, s *index.Store, data string) (string, blobstore.Location, *blobstore.Record) {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	id := blobstore.Sum([]byte(data))
	loc, _ := snap.Locate(id)
	rec, err := view.Stored(id)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(snap.Packs, func(p blobstore.PackRef) bool { return p.Number == loc.Pack })
	return filepath.Join(s.PackDir(), snap.Packs[i].Name+blobstore.Suffix), loc, rec
}

// functions is a source file of some KB.
func functions(n int, more string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "package q // %s\n", more)
	for i := range 400 {
		fmt.Fprintf(&b, "func g%d(x int) int { return x + %d }\n", i, i*i*n%7919)
	}
	return b.String()
}

// copies are two stores with the same releases, of which one stays as it is.
func copies(t testing.TB) (s, other *index.Store, want map[string]content, add func(name string, c content)) {
	s, other, want = newStore(t), newStore(t), map[string]content{}
	return s, other, want, func(name string, c content) {
		want[name] = c
		put(t, s, name, c)
		put(t, other, name, c)
	}
}

// Of a group that is damaged in part, those blobs that are only bases are not stored
// again; what needs them is encoded anew.
func TestRepairOfBases(t *testing.T) {
	s, other, want, add := copies(t)
	add("1.22.0", makeRelease(t, "1.22.0"))
	add("1.22.1", makeRelease(t, "1.22.1"))
	run(t, s, Options{})
	remove(t, s, "1.22.1")
	base := want["1.22.1"]["src/p0/f0.go"]
	delete(want, "1.22.1")
	collect(t, s)
	_, _, rec := packOf(t, s, want["1.22.0"]["src/p0/f0.go"])
	bases := map[blobstore.ID]bool{}
	for _, id := range rec.Bases() {
		bases[id] = true
	}
	name, loc, group := packOf(t, s, base)
	if !bases[blobstore.Sum([]byte(base))] {
		t.Fatal("nothing is a delta of what is removed")
	}
	// A byte that hits others of the group, but none of the bases.
	for at := loc.Record + group.Size() - 1; ; at-- {
		if at < loc.Record+group.Size()-4000 {
			t.Fatal("no such byte")
		}
		damage(t, name, at)
		_, view, err := s.OpenView(blobstore.NewCache(0))
		if err != nil {
			t.Fatal(err)
		}
		bad, badBases := 0, 0
		for _, m := range group.Blobs() {
			if _, err := view.Blob(t.Context(), m.ID); err != nil {
				bad++
				if bases[m.ID] {
					badBases++
				}
			}
		}
		view.Close()
		if bad > 0 && badBases == 0 {
			break
		}
		damage(t, name, at) // as it was
	}
	mend(t, s, other)
	check(t, s, want)
}

// A record that is not read from any more in part is copied; what lies elsewhere by
// now stays there, and less deep.
func TestRepairOfStalePlaces(t *testing.T) {
	s, other, want, add := copies(t)
	with := func(name, a, b string) content {
		c := makeRelease(t, name)
		c["src/q/a_test.go"] = a
		if b != "" {
			c["src/q/b_test.go"] = b
		}
		return c
	}
	moves := functions(1, "a")
	add("1.22.2", with("1.22.2", functions(1, "of 1.22.2"), functions(3, "of 1.22.2")))
	add("1.22.1", with("1.22.1", moves, functions(3, "b")))
	run(t, s, Options{})
	remove(t, s, "1.22.2")
	delete(want, "1.22.2")
	add("1.22.3", with("1.22.3", moves, ""))
	add("1.21.0", with("1.21.0", functions(1, "of 1.21"), ""))
	stale, _, before := packOf(t, s, moves)
	interrupted(t, s, Options{Effort: 1}, 2)
	check(t, s, want)
	name, _, after := packOf(t, s, moves)
	_, _, needs := packOf(t, s, want["1.21.0"]["src/q/a_test.go"])
	if name == stale || after.Depth() >= before.Depth() || !slices.Contains(needs.Bases(), blobstore.Sum([]byte(moves))) || needs.Depth() > before.Depth() {
		t.Fatalf("depth %d, before %d, of what needs it %d", after.Depth(), before.Depth(), needs.Depth())
	}
	zone := want["1.22.1"]["lib/time/zoneinfo.zip"][:part]
	if pack, _, _ := packOf(t, s, zone); pack != stale {
		t.Fatal("not in the stale pack")
	}
	hurt(t, s, zone)
	mend(t, s, other)
	check(t, s, want)
	// Nothing is left to mend.
	if r, err := s.Verify(t.Context(), index.VerifyOptions{}); err != nil || !r.OK() {
		t.Errorf("after the repair %+v, %v", r, err)
	}
}

// A program that is a part of another file stays one when that file's record is copied.
func TestRepairOfPart(t *testing.T) {
	s, other, want, add := copies(t)
	for _, name := range []string{"1.23.0", "1.23.1"} {
		c := makeRelease(t, name)
		c[single] = built(t, "single", name, "linux-amd64")
		add(name, c)
	}
	run(t, s, Options{})
	base := want["1.23.1"][single]
	if rec := whole(t, s, want["1.23.0"][single]); rec == nil || !slices.Contains(rec.Bases(), blobstore.Sum([]byte(base))) {
		t.Fatal("the patch is no delta of the newest")
	}
	c := makeRelease(t, "1.22.0")
	c[begins] = base + strings.Repeat("and more ", 1000)
	add("1.22.0", c)
	run(t, s, Options{})
	check(t, s, want)
	name, _, _ := packOf(t, s, c["VERSION"])
	if pack, _, _ := packOf(t, s, c[begins]); pack != name {
		t.Fatal("not one pack")
	}
	hurt(t, s, c["VERSION"])
	mend(t, s, other)
	check(t, s, want)
}

// Where a program is stored by itself again, since a record before it is damaged, what is
// a delta of it is encoded anew.
func TestRepairOfBaseProgram(t *testing.T) {
	s, other, want, add := copies(t)
	for _, name := range []string{"1.23.0", "1.23.1"} {
		c := makeRelease(t, name)
		c[single] = built(t, "single", name, "linux-amd64")
		c["lib/noise"] = strings.Repeat(name, part) // is larger, and so encoded before it
		add(name, c)
	}
	run(t, s, Options{})
	name, at, _ := packOf(t, s, want["1.23.1"][single])
	noise, before, _ := packOf(t, s, want["1.23.1"]["lib/noise"][:part])
	if noise != name || before.Record > at.Record {
		t.Fatal("it is not before it")
	}
	damage(t, name, before.Record+8) // in its header
	mend(t, s, other)
	check(t, s, want)
}

// A damaged blob is found though a program in memory has it, too.
func TestRepairBesideMemory(t *testing.T) {
	s, want := newStore(t), map[string]content{"1.22.1": {"VERSION": "go1.22.1", "bin/go": large(t)}}
	put(t, s, "1.22.1", want["1.22.1"])
	run(t, s, Options{Quick: []string{"1.22.1"}})
	if !hurt(t, s, want["1.22.1"]["bin/go"][12*part:13*part]).Quick() {
		t.Fatal("not quick")
	}
	if res := mend(t, s); res.Damaged != 1 || res.Mended != 1 {
		t.Fatalf("%+v", res)
	}
	check(t, s, want)
}

// large builds a program of some 13 MB.
func large(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	noise := make([]byte, 11<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	const src = "package main\n\nimport _ \"embed\"\n\n//go:embed noise\nvar noise string\n\nfunc main() { println(len(noise), noise[len(noise)-1]) }\n"
	for name, b := range map[string]string{"noise": string(noise), "main.go": src, "go.mod": "module large\n\ngo 1.22\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-w", "-o", "out", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A part of a program that lies elsewhere, less deep, stays there when gc copies the
// program's record.
func TestGCOfStalePlaces(t *testing.T) {
	s, want := filled(t, "1.23.0", "1.22.1", "1.22.0")
	run(t, s, Options{})
	shared := want["1.22.1"]["bin/go"][:part]
	changed := []byte(shared)
	for i := 0; i < len(changed); i += 5000 {
		changed[i] ^= 0x55
	}
	for name, c := range map[string]string{
		"1.25.0": shared + strings.Repeat("no program", 60_000),
		"1.24.0": string(changed) + strings.Repeat("no progran", 60_000),
	} {
		want[name] = makeRelease(t, name)
		want[name]["lib/f.bin"] = c
		put(t, s, name, want[name])
	}
	_, _, program := packOf(t, s, want["1.22.1"]["bin/go"])
	remove(t, s, "1.22.1")
	delete(want, "1.22.1")
	interrupted(t, s, Options{Effort: 2}, 2)
	check(t, s, want)
	_, _, rec := packOf(t, s, shared)
	_, _, needs := packOf(t, s, string(changed))
	if rec.IsProgram() || !slices.Contains(needs.Bases(), blobstore.Sum([]byte(shared))) || needs.Depth() > program.Depth() {
		t.Fatalf("depths %d, %d, of the program %d", rec.Depth(), needs.Depth(), program.Depth())
	}
	if r := collect(t, s); r.Rewritten == 0 {
		t.Fatalf("nothing was copied: %+v", r)
	}
	check(t, s, want)
}

// A program of no version goes, though versions have all of its parts, quickly.
func TestGCOfForeignParts(t *testing.T) {
	s, want := newStore(t), map[string]content{}
	program := built(t, "gone", "1.22.1", "linux-amd64")
	middle := len(program) / part / 2 * part
	// Programs that begin and end as it does: only it is one.
	for name, link := range map[string]string{
		"1.22.0": program[:middle] + strings.Repeat("one", part),
		"1.22.1": program,
		"1.22.2": strings.Repeat("two", part) + program[middle:],
	} {
		want[name] = makeRelease(t, name)
		want[name][tools+"link"] = link
		put(t, s, name, want[name])
	}
	run(t, s, Options{Quick: []string{"1.22.0", "1.22.1", "1.22.2"}})
	check(t, s, want)
	whole(t, s, program)
	remove(t, s, "1.22.1")
	delete(want, "1.22.1")
	collect(t, s)
	_, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	if rec, err := view.Stored(blobstore.Sum([]byte(program))); err == nil {
		t.Errorf("%d bytes of it are kept", rec.Size())
	}
	check(t, s, want)
}

// An index that is made anew after a compaction that was killed before its end reads
// all of a program from one record, so that the other one can go.
func TestRebuildOfTwice(t *testing.T) {
	s, want := filled(t, "1.22.0", "1.22.1")
	run(t, s, Options{})
	interrupted(t, s, Options{Effort: 2}, allRounds)
	if err := os.Remove(filepath.Join(s.Dir(), "index.db")); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Rebuild(t.Context(), index.LockOptions{NoWait: true}, index.VerifyOptions{}); err != nil || !r.OK() {
		t.Errorf("rebuild: %+v, %v", r, err)
	}
	for _, c := range want {
		_, all, _ := packOf(t, s, c["bin/go"])
		_, first, _ := packOf(t, s, c["bin/go"][:part])
		if all.Pack != first.Pack || all.Record != first.Record {
			t.Errorf("%s: the go command and its parts are read from two records", c["VERSION"])
		}
	}
	run(t, s, Options{Effort: 2})
	check(t, s, want)
	_, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	times := map[blobstore.ID]int{}
	packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*"+blobstore.Suffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range packs {
		p, err := blobstore.OpenPack(s.PackDir(), strings.TrimSuffix(filepath.Base(name), blobstore.Suffix))
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range p.Records(false) {
			if err != nil {
				t.Fatal(err)
			}
			if rec.IsProgram() {
				times[rec.Blobs()[0].ID]++
			}
		}
		p.Close()
	}
	for id, n := range times {
		if n > 1 {
			t.Errorf("program %s is there %d times", id, n)
		}
	}
}
