package compact

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gofs/blobstore"
	"gofs/index"
)

func TestRun(t *testing.T) {
	s, want := filled(t, "1.22.0", "1.22.1", "1.23.0")
	before := trees(t, s)
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	var last, total int64
	r := run(t, s, Options{Workers: 1, Progress: func(done, all int64) { last, total = done, all }})
	if r.Rounds != 3 || r.Records < 10 || r.After*2 > r.Before || last != total || total != r.Plain {
		t.Errorf("%+v, progress %d of %d", r, last, total)
	}
	check(t, s, want)
	if now := trees(t, s); !maps.Equal(now, before) {
		t.Errorf("trees and inodes are %v, were %v", now, before)
	}
	same(t, snap, view, want) // who reads the old packs goes on
	st, err := s.Stats(t.Context())
	if err != nil || st.Unused != 0 || len(st.Chains) < 3 || len(st.Chains) > DefaultMaxDepth+1 {
		t.Errorf("unused %d, chains %+v, %v", st.Unused, st.Chains, err)
	}
	encodings := map[string]int{}
	for _, e := range st.Encodings {
		encodings[e.Name] = e.Records
	}
	if encodings["program, delta"] != 8 || encodings["program, zstd"] != 1 || encodings["raw"] == 0 {
		t.Errorf("encodings %v", encodings)
	}
	if again := run(t, s, Options{}); again.Records != 0 || again.After != again.Before || again.Bases != 0 {
		t.Errorf("again: %+v", again)
	}
	// A larger effort makes all anew, within the depths that the others allow.
	if harder := run(t, s, Options{Effort: 2}); harder.Records < 10 || harder.After > harder.Before {
		t.Errorf("effort 2: %+v", harder)
	}
	check(t, s, want)
}

func TestRunRefuses(t *testing.T) {
	s := newStore(t)
	for _, o := range []Options{{Effort: blobstore.MaxEffort + 1}, {MaxDepth: 2}, {MaxDepth: blobstore.MaxDepth + 1}} {
		if _, err := Run(t.Context(), s, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if r := run(t, s, Options{}); r.Records != 0 {
		t.Errorf("an empty store: %+v", r)
	}
}

func TestPending(t *testing.T) {
	s, _ := filled(t, "1.22.0", "1.22.1")
	if n, err := Pending(t.Context(), s); n != 2 || err != nil {
		t.Errorf("%d pending, %v", n, err)
	}
	run(t, s, Options{Effort: 2})
	if n, err := Pending(t.Context(), s); n != 0 || err != nil {
		t.Errorf("%d pending, %v", n, err)
	}
	put(t, s, "1.23.0", makeRelease(t, "1.23.0"))
	if n, err := Pending(t.Context(), s); n != 1 || err != nil {
		t.Errorf("%d pending, %v", n, err)
	}
}

// A patch between two that are there takes next to nothing.
func TestPatch(t *testing.T) {
	s, want := filled(t, "1.22.0", "1.22.8")
	before := run(t, s, Options{}).After
	want["1.22.3"] = makeRelease(t, "1.22.3")
	put(t, s, "1.22.3", want["1.22.3"])
	after := run(t, s, Options{}).After
	if bytes := want["1.22.3"].size(); after-before > bytes/20 {
		t.Errorf("a patch of %d bytes takes %d", bytes, after-before)
	}
	check(t, s, want)
}

// The programs of one architecture are deltas of each other, whatever the system.
func TestRealPlatforms(t *testing.T) {
	s, want := filled(t, "1.22.0", "1.22.1", "1.22.0.windows-amd64", "1.22.1.windows-amd64", "1.22.1.darwin-arm64")
	run(t, s, Options{})
	check(t, s, want)
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	record := func(name, path string) *blobstore.Record {
		for i := range snap.Versions {
			if v := &snap.Versions[i]; v.Name == name {
				tree, err := snap.Tree(t.Context(), view, v)
				if err != nil {
					t.Fatal(err)
				}
				e, ok := tree.Find(path)
				if !ok {
					t.Fatalf("%s has no %s", name, path)
				}
				r, err := view.Stored(tree.Blobs(e)[0].ID)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
		}
		t.Fatalf("no version %s", name)
		return nil
	}
	for _, c := range []struct {
		name, path, baseName, basePath string
		depth                          int
	}{
		{"1.22.1.windows-amd64", "bin/go.exe", "1.22.1", "bin/go", 1},
		{"1.22.1.windows-amd64", "pkg/tool/windows_amd64/compile.exe", "1.22.1", "pkg/tool/linux_amd64/compile", 2},
		{"1.22.1.windows-amd64", "pkg/tool/windows_amd64/asm.exe", "1.22.1", "pkg/tool/linux_amd64/asm", 3},
		{"1.22.0.windows-amd64", "pkg/tool/windows_amd64/asm.exe", "1.22.1.windows-amd64", "pkg/tool/windows_amd64/asm.exe", 4},
	} {
		r, base := record(c.name, c.path), record(c.baseName, c.basePath)
		if !r.IsProgram() || r.Depth() != c.depth || !slices.Contains(r.Bases(), base.Blobs()[0].ID) {
			t.Errorf("%s %s: program %v, depth %d, not of %s", c.name, c.path, r.IsProgram(), r.Depth(), c.basePath)
		}
	}
	if r := record("1.22.1.darwin-arm64", "bin/go"); !r.IsProgram() {
		t.Error("a Mach-O program is none")
	}
}

func (c content) size() (n int64) {
	for _, b := range c {
		n += int64(len(b))
	}
	return n
}

// The base of what is left is kept, until what is left has another.
func TestRebase(t *testing.T) {
	s, want := filled(t, "1.22.0", "1.22.1", "1.22.2", "1.23.0")
	run(t, s, Options{})
	for _, name := range []string{"1.23.0", "1.22.2"} {
		remove(t, s, name)
		delete(want, name)
	}
	kept := collect(t, s)
	if kept.Bases == 0 {
		t.Fatalf("nothing is kept as base: %+v", kept)
	}
	check(t, s, want)
	r := run(t, s, Options{Rebase: true})
	if r.Bases != 0 || r.Records == 0 || r.After >= r.Before {
		t.Errorf("%d bytes kept, then %+v", kept.Bases, r)
	}
	check(t, s, want)
	if again := run(t, s, Options{Rebase: true}); again.Records != 0 {
		t.Errorf("again: %+v", again)
	}
}

// Others work on the store between planning and commit. This test and those
// below do little with -short: the race detector makes each compaction ten
// times as slow, and make test has them whole without it.
func TestMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		waiting  func(t *testing.T, s *index.Store, w *index.Writer, want map[string]content)
		progress func(t *testing.T, s *index.Store, want map[string]content)
	}{
		"gc": {waiting: func(t *testing.T, s *index.Store, w *index.Writer, _ map[string]content) {
			// The packs of the compaction are in no index yet.
			if r, err := w.GC(t.Context(), index.GCOptions{}); err != nil || r.Garbage == 0 {
				t.Errorf("gc %+v, %v", r, err)
			}
		}},
		"rm": {waiting: func(t *testing.T, s *index.Store, w *index.Writer, want map[string]content) {
			if err := w.Commit(index.Change{Remove: []string{"1.22.1"}}); err != nil {
				t.Error(err)
			}
			delete(want, "1.22.1")
		}},
		"rm and gc": {waiting: func(t *testing.T, s *index.Store, w *index.Writer, want map[string]content) {
			if err := w.Commit(index.Change{Remove: []string{"1.22.1"}}); err != nil {
				t.Error(err)
			}
			delete(want, "1.22.1")
			if _, err := w.GC(t.Context(), index.GCOptions{}); err != nil {
				t.Error(err)
			}
		}},
		"import": {progress: func(t *testing.T, s *index.Store, want map[string]content) {
			want["1.23.0"] = makeRelease(t, "1.23.0")
			put(t, s, "1.23.0", want["1.23.0"])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, want := filled(t, "1.22.0", "1.22.1")
			run(t, s, Options{}) // so that there are bases to lose
			want["1.22.3"] = makeRelease(t, "1.22.3")
			put(t, s, "1.22.3", want["1.22.3"])
			o := Options{Workers: 1}
			if test.waiting != nil {
				w := lock(t, s)
				o.Lock.Waiting = func(string) {
					if w != nil {
						test.waiting(t, s, w, want)
						w.Close()
						w = nil
					}
				}
			}
			if test.progress != nil {
				done := false
				o.Progress = func(int64, int64) {
					if !done {
						done = true
						test.progress(t, s, want)
					}
				}
			}
			r := run(t, s, o)
			if r.Rounds == 0 {
				t.Errorf("%+v", r)
			}
			check(t, s, want)
			if r := collect(t, s); r.Garbage+r.Removed+r.Rewritten != 0 {
				t.Errorf("left behind: %+v", r)
			}
			if again := run(t, s, Options{}); again.Records != 0 {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

// A compaction that is cancelled leaves a store that is whole, and the rounds
// before stay.
func TestCancelled(t *testing.T) {
	s, want := filled(t, "1.22.0", "1.22.1")
	before := trees(t, s)
	for after := 1; ; after += 7 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := Run(ctx, s, Options{Effort: 1, Workers: 1, Progress: func(int64, int64) {
			if n++; n == after {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		check(t, s, want)
	}
	if now := trees(t, s); !maps.Equal(now, before) {
		t.Errorf("trees and inodes are %v, were %v", now, before)
	}
	check(t, s, want)
}

// A compaction that is killed leaves a store that is whole, and what the next
// one makes of it is what one that was not killed makes.
func TestKilled(t *testing.T) {
	points := 8
	if testing.Short() {
		points = 3
	}
	if n, err := strconv.Atoi(os.Getenv("GOFS_KILL_POINTS")); err == nil {
		points = n
	}
	names := []string{"1.22.0", "1.22.1", "1.23.0"}
	s, want := filled(t, names...)
	before := trees(t, s)
	compactCopy := func() *index.Store {
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(dir, os.DirFS(s.Dir())); err != nil {
			t.Fatal(err)
		}
		c, err := index.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	whole, _ := runChild(t, compactCopy(), 0)
	killed := 0
	for i := range points {
		c := compactCopy()
		// The last point lies a little behind the end.
		if _, done := runChild(t, c, whole*time.Duration(i+1)/time.Duration(points)+time.Millisecond); !done {
			killed++
		}
		check(t, c, want)
		// Killed once more, then not.
		runChild(t, c, whole/time.Duration(i+2))
		check(t, c, want)
		r := run(t, c, Options{})
		check(t, c, want)
		if now := trees(t, c); !maps.Equal(now, before) {
			t.Errorf("point %d: trees and inodes are %v, were %v", i, now, before)
		}
		if left := collect(t, c); left.Garbage+left.Removed+left.Rewritten != 0 || r.Bases != 0 {
			t.Errorf("point %d: left behind %+v", i, left)
		}
		if err := os.RemoveAll(c.Dir()); err != nil {
			t.Error(err)
		}
	}
	if killed < points/3 {
		t.Errorf("%d of %d compactions were killed", killed, points)
	}
}

// runChild compacts a store in another process, which is killed after some
// time, or never for 0. It returns how long that worked and whether it was
// done.
func runChild(t *testing.T, s *index.Store, kill time.Duration) (took time.Duration, done bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GOFS_TEST_STORE="+s.Dir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "begin\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	begin := time.Now()
	if kill > 0 {
		timer := time.AfterFunc(kill, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	if err := drain(out); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if kill == 0 && err != nil {
		t.Fatal(err)
	}
	return time.Since(begin), err == nil
}

// Whatever comes in which order, the store has what it should have.
func TestRandomWork(t *testing.T) {
	r := rand.New(rand.NewPCG(uint64(number("GOFS_SEED", 7)), 8))
	s, sound := newStore(t), newStore(t)
	want, all := map[string]content{}, map[string]content{}
	names := []string{"1.21.0", "1.22.0", "1.22.1", "1.22.2", "1.22.3", "1.22.8", "1.23.0", "1.22.2.windows-amd64", "1.22.3.windows-amd64"}
	goOf := func(i int) string { return cmp.Or(all[names[i]]["bin/go"], all[names[i]]["bin/go.exe"]) }
	for i, name := range names {
		all[name] = makeRelease(t, name)
		// Of others, by other names.
		all[name]["src/q/a.go"] = all[names[i/2]]["src/p0/f0.go"]
		all[name]["src/q/a_test.go"] = all[names[i/3]]["src/p0/f0.go"] + "// more"
		all[name][tools+"link"] = goOf(i / 2)
		all[name][tools+"vet"] = goOf(i / 2)[:2*part] + goOf(i / 3)[2*part:]
		all[name]["lib/f.bin"] = goOf(i / 3)[:part] + strings.Repeat(name, part/5)
		put(t, sound, name, all[name])
	}
	var log []string
	steps := number("GOFS_STEPS", 16)
	if testing.Short() {
		steps = 10
	}
	for range steps {
		have := slices.Sorted(maps.Keys(want))
		step := ""
		switch what := r.IntN(14); {
		case what < 4 || len(have) == 0:
			name := names[r.IntN(len(names))]
			if want[name] != nil {
				continue
			}
			step = "import " + name
			want[name] = all[name]
			put(t, s, name, want[name])
		case what < 6:
			name := have[r.IntN(len(have))]
			step = "rm " + name
			delete(want, name)
			remove(t, s, name)
		case what < 7:
			step = "gc"
			collect(t, s)
		case what < 8:
			step = "rebuild"
			if err := os.Remove(filepath.Join(s.Dir(), "index.db")); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Rebuild(t.Context(), index.LockOptions{NoWait: true}, index.VerifyOptions{}); err != nil || !r.OK() {
				t.Errorf("rebuild: %+v, %v", r, err)
			}
		case what < 10:
			step = "damage and repair"
			packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*"+blobstore.Suffix))
			if err != nil || len(packs) == 0 {
				t.Fatal(err, "no packs")
			}
			for range 1 + r.IntN(3) {
				name := packs[r.IntN(len(packs))]
				st, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				damage(t, name, r.Int64N(st.Size()))
			}
			mend(t, s, sound)
		default:
			o := Options{Effort: blobstore.Effort(1 + r.IntN(2)), MaxDepth: 3 + r.IntN(5), MaxChain: 1 << (16 + r.IntN(8)), Rebase: r.IntN(3) == 0}
			switch r.IntN(4) {
			case 0:
				o.Quick = []string{}
			case 1, 2:
				o.Quick = []string{have[r.IntN(len(have))]}
			}
			if step = fmt.Sprintf("compact %+v", o); r.IntN(4) == 0 {
				step = "interrupted " + step
				interrupted(t, s, o, 1+r.IntN(2))
			} else {
				run(t, s, o)
			}
		}
		log = append(log, step)
		if check(t, s, want); t.Failed() {
			t.Fatalf("after\n%s", strings.Join(log, "\n"))
		}
	}
}

// No record is written that takes more to decode than a reader allows.
func TestReadable(t *testing.T) {
	most := func(room int64) (deepest int64) {
		s, want := filled(t, "1.22.0", "1.22.1", "1.23.0", "1.24.0")
		run(t, s, Options{MaxDepth: blobstore.MaxDepth, room: room})
		check(t, s, want)
		snap, view, err := s.OpenView(blobstore.NewCache(0))
		if err != nil {
			t.Fatal(err)
		}
		defer view.Close()
		r := &round{c: &compaction{store: s, trees: map[blobstore.ID]*index.Tree{}}, snap: snap, view: view}
		if err := r.survey(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, rec := range r.stored {
			if rec.rec.Depth() > 0 {
				deepest = max(deepest, (&encoder{round: r}).decodes([]blobstore.ID{rec.rec.Blobs()[0].ID}))
			}
		}
		return deepest
	}
	all := most(0)
	if few := most(all / 2); all == 0 || few > all/2 {
		t.Errorf("a record takes %d bytes, allowed %d", few, all/2)
	}
}

// A store that was compacted comes back from its packs, also when the process
// was killed before the packs that were replaced were removed.
func TestRebuild(t *testing.T) {
	for _, collected := range []bool{true, false} {
		s, want := filled(t, "1.22.0", "1.22.1", "1.23.0")
		before := treesOnly(t, s)
		old := map[string][]byte{}
		keep, err := filepath.Glob(filepath.Join(s.PackDir(), "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range keep {
			if old[name], err = os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
		run(t, s, Options{})
		remove(t, s, "1.22.0")
		delete(want, "1.22.0")
		delete(before, "1.22.0")
		if collected {
			collect(t, s)
		} else {
			for name, b := range old {
				if err := os.WriteFile(name, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.Remove(filepath.Join(s.Dir(), "index.db")); err != nil {
			t.Fatal(err)
		}
		r, err := s.Rebuild(t.Context(), index.LockOptions{NoWait: true}, index.VerifyOptions{})
		if err != nil || !r.OK() || r.Sound {
			t.Errorf("%+v, %v", r, err)
		}
		check(t, s, want)
		if now := treesOnly(t, s); !maps.Equal(now, before) {
			t.Errorf("trees %v, before %v", now, before)
		}
		collect(t, s)
		check(t, s, want)
		run(t, s, Options{})
		check(t, s, want)
	}
}

func treesOnly(t testing.TB, s *index.Store) map[string]string {
	t.Helper()
	list, err := s.Versions()
	if err != nil {
		t.Fatal(err)
	}
	trees := map[string]string{}
	for _, v := range list {
		trees[v.Name] = v.Tree.String()
	}
	return trees
}
