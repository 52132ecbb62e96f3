package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// victim is a store whose database gets damaged.
type victim struct {
	*Store
	good []byte // its database
	last uint64 // its generation
	all  string // what its index says
	want map[string]content
}

func newVictim(t testing.TB) *victim {
	t.Helper()
	v := &victim{Store: newStore(t), want: map[string]content{}}
	for _, name := range []string{"1.22.0", "1.22.1", "1.22.2", "1.23.0"} {
		v.want[name] = goLike(150, name)
		put(t, v.Store, name, v.want[name])
	}
	remove(t, v.Store, "1.22.1")
	delete(v.want, "1.22.1")
	check(t, v.Store, v.want)
	var err error
	if v.good, err = os.ReadFile(v.database()); err != nil {
		t.Fatal(err)
	}
	v.all = snapshotOf(t, v.Store)
	if v.last, err = v.Generation(); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *victim) database() string { return filepath.Join(v.Dir(), databaseFile) }

func (v *victim) write(t testing.TB, b []byte) {
	t.Helper()
	if err := os.WriteFile(v.database(), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// try reads and writes the store with database b, which may be damaged:
// whatever works must be right. It says whether damage was found.
func (v *victim) try(t *testing.T, what string, b []byte) (found bool) {
	t.Helper()
	return v.tryLong(t, what, b, int64(len(b)))
}

// maxTaken is how many bytes of memory a try may take, added up: an undamaged
// database of 200 KB makes it take 5 MB.
const maxTaken = 96 << 20

// tryLong is try with a file of a size, with zeros at its end.
func (v *victim) tryLong(t *testing.T, what string, b []byte, size int64) (found bool) {
	t.Helper()
	v.write(t, b)
	if err := os.Truncate(v.database(), size); err != nil {
		t.Fatal(err)
	}
	defer v.write(t, v.good)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	defer func() {
		runtime.ReadMemStats(&after)
		if taken := after.TotalAlloc - before.TotalAlloc; taken > maxTaken {
			t.Errorf("%s: took %d MB of memory", what, taken>>20)
		}
	}()
	old := false // the commit before the last, which bbolt falls back to
	generation := fmt.Appendf(nil, "%d\n", v.last)
	ok := func(op string, err error) bool {
		if err != nil && !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %s: %v", what, op, err)
		}
		found = found || err != nil
		return err == nil
	}
	if snap, err := v.Snapshot(); ok("snapshot", err) {
		snap.store = nil
		if old = snap.Generation == v.last-1; !old && fmt.Sprint(*snap) != v.all {
			t.Errorf("%s: the snapshot is another", what)
		}
	}
	if list, err := v.Versions(); ok("versions", err) && !old && len(list) != len(v.want) {
		t.Errorf("%s: %d versions", what, len(list))
	}
	defer func() {
		if err := os.WriteFile(v.GenerationFile(), generation, 0o644); err != nil {
			t.Error(err)
		}
	}()
	if w, err := v.Lock(t.Context(), LockOptions{NoWait: true}); ok("lock", err) {
		if ok("commit", w.Commit(Change{Remove: []string{"1.22.0"}})) {
			if snap, err := v.Snapshot(); ok("snapshot after it", err) && len(snap.Versions) != len(v.want)-1 {
				t.Errorf("%s: after the commit %d versions", what, len(snap.Versions))
			}
		}
		w.Close()
		if old {
			t.Errorf("%s: a lost commit was not noticed", what)
		}
	}
	v.unlocked(t, what)
	return found
}

// unlocked checks that nobody has the database locked or open any more.
func (v *victim) unlocked(t *testing.T, what string) {
	t.Helper()
	if n := openTimes(t, v.database()); n != 0 {
		t.Errorf("%s: the database is still open %d times", what, n)
	}
	f, err := os.Open(v.database())
	if err != nil {
		return // it is missing
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("%s: the database is still locked: %v", what, err)
	}
}

func TestDamagedDatabase(t *testing.T) {
	v := newVictim(t)
	page := os.Getpagesize()
	pages := len(v.good) / page
	r := rand.New(rand.NewPCG(5, 6))
	found := 0
	for i := range 300 {
		bad, what := slices.Clone(v.good), ""
		at := r.IntN(len(bad))
		switch i % 6 {
		case 0, 1:
			what = "flipped bits at"
			for range 1 + r.IntN(3) {
				bad[at] ^= 1 << r.IntN(8)
				what += fmt.Sprint(" ", at)
				at = r.IntN(len(bad))
			}
		case 2: // where every bit means something
			at = at/page*page + r.IntN(200)
			bad[at] ^= byte(1 + r.IntN(255))
			what = fmt.Sprint("changed byte ", at)
		case 3:
			bad = bad[:at/page*page]
			what = fmt.Sprintf("%d of %d pages", len(bad)/page, pages)
		case 4:
			clear(bad[at/page*page:][:page])
			what = fmt.Sprint("zeroed page ", at/page)
		case 5:
			to := r.IntN(pages)
			copy(bad[to*page:], bad[at/page*page:][:page])
			what = fmt.Sprintf("page %d in place of %d", at/page, to)
		}
		if v.try(t, what, bad) {
			found++
		}
	}
	if found < 100 {
		t.Errorf("damage was found in %d cases only", found)
	}
	check(t, v.Store, v.want)
}

func TestNoDatabase(t *testing.T) {
	v := newVictim(t)
	for name, b := range map[string][]byte{"empty": {}, "short": v.good[:100], "text": []byte("no database"), "zeros": make([]byte, len(v.good))} {
		if !v.try(t, name, b) {
			t.Errorf("%s: not found", name)
		}
	}
	if err := os.Remove(v.database()); err != nil {
		t.Fatal(err)
	}
	_, err := v.Snapshot()
	_, lerr := v.Lock(t.Context(), LockOptions{})
	if !errors.Is(err, ErrIndex) || !errors.Is(lerr, ErrIndex) {
		t.Errorf("missing: %v, %v", err, lerr)
	}
	if _, err := os.Stat(v.database()); err == nil {
		t.Error("a database was made")
	}
}

// pageOf finds pages of the database by their kind.
func (v *victim) pagesOf(flags uint16) (list []int) {
	page := os.Getpagesize()
	for i := 2; i < len(v.good)/page; i++ {
		b := v.good[i*page:]
		if binary.NativeEndian.Uint64(b) == uint64(i) && binary.NativeEndian.Uint16(b[8:]) == flags {
			list = append(list, i)
		}
	}
	return list
}

// Damage that looks right to bbolt.
func TestCunningDamage(t *testing.T) {
	v := newVictim(t)
	page := os.Getpagesize()
	branches, leaves, frees := v.pagesOf(branchPage), v.pagesOf(leafPage), v.pagesOf(freePage)
	if len(branches) == 0 || len(leaves) < 5 || len(frees) == 0 {
		t.Fatalf("pages %v, %v, %v", branches, leaves, frees)
	}
	// Pages that the database does not use any more are none of its damage.
	reached := map[int]bool{}
	file, err := os.Open(v.database())
	if err != nil {
		t.Fatal(err)
	}
	err = v.view(func(tx *bolt.Tx) error {
		w := &pageWalk{f: file, size: int64(page), seen: make([]bool, len(v.good)/page)}
		w.tree(uint64(tx.Cursor().Bucket().Root()), nil, nil, 0)
		for i, seen := range w.seen {
			reached[i] = seen
		}
		return w.err
	})
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	must := func(what string, at int, bad []byte) {
		if found := v.try(t, what, bad); !found && reached[at] {
			t.Errorf("%s: not found", what)
		}
	}
	for _, b := range branches {
		n := int(binary.NativeEndian.Uint16(v.good[b*page+10:]))
		for i := range n {
			for _, to := range []int{b, leaves[0], len(v.good) / page, 0} {
				bad := slices.Clone(v.good)
				e := bad[b*page+pageHead+16*i:]
				if to == leaves[0] && binary.NativeEndian.Uint64(e[8:]) == uint64(to) {
					continue
				}
				binary.NativeEndian.PutUint64(e[8:], uint64(to))
				must(fmt.Sprintf("branch %d, element %d leads to %d", b, i, to), b, bad)
			}
		}
	}
	for _, l := range append(leaves, branches...) {
		bad := slices.Clone(v.good)
		n := binary.NativeEndian.Uint16(bad[l*page+10:])
		if n == 0 {
			continue
		}
		binary.NativeEndian.PutUint16(bad[l*page+10:], n-1)
		must(fmt.Sprintf("page %d is one element short", l), l, bad)
	}
	for _, f := range frees {
		for name, first := range map[string]uint64{"a page in use": uint64(leaves[len(leaves)-1]), "none": 1 << 40, "a meta page": 1} {
			bad := slices.Clone(v.good)
			binary.NativeEndian.PutUint16(bad[f*page+10:], 1)
			binary.NativeEndian.PutUint64(bad[f*page+pageHead:], first)
			v.try(t, fmt.Sprintf("free list %d with %s", f, name), bad)
		}
		bad := slices.Clone(v.good)
		binary.NativeEndian.PutUint16(bad[f*page+10:], 0xffff)
		binary.NativeEndian.PutUint64(bad[f*page+pageHead:], 1<<60)
		v.try(t, fmt.Sprintf("free list %d of 2^60 pages", f), bad)
	}
}

// setMeta changes a number in both meta pages and makes their checksums right.
func setMeta(db []byte, at int, n uint64) {
	for i := range 2 {
		m := db[i*os.Getpagesize():]
		binary.NativeEndian.PutUint64(m[at:], n)
		h := fnv.New64a()
		h.Write(m[pageHead : metaRoot+40])
		binary.NativeEndian.PutUint64(m[metaRoot+40:], h.Sum64())
	}
}

// A file with a hole claims much and takes no room: what it claims must not be
// taken of memory.
func TestSparseDatabase(t *testing.T) {
	v := newVictim(t)
	page := os.Getpagesize()
	const size = 3 << 30
	pages := uint64(size / page)
	long := func(change func(b []byte)) []byte {
		b := slices.Clone(v.good)
		setMeta(b, metaRoot+24, pages)
		change(b)
		return b
	}
	run := func(kind uint16) func(b []byte) {
		return func(b []byte) {
			for _, i := range v.pagesOf(kind) {
				binary.NativeEndian.PutUint32(b[i*page+12:], uint32(pages)-uint32(i)-1)
			}
		}
	}
	if v.tryLong(t, "a hole at the end", long(func([]byte) {}), size) {
		t.Error("a hole at the end is taken for damage")
	}
	for what, b := range map[string][]byte{
		"leaves of 3 GiB": long(run(leafPage)), "branches of 3 GiB": long(run(branchPage)), "a free list of 3 GiB": long(run(freePage)),
		"a root in the hole": long(func(b []byte) { setMeta(b, metaRoot, pages-1) }),
	} {
		if !v.tryLong(t, what, b, size) {
			t.Errorf("%s: not found", what)
		}
	}
	huge := slices.Clone(v.good)
	setMeta(huge, metaRoot+24, 1<<40/uint64(page))
	if !v.tryLong(t, "1 TiB", huge, 1<<40) {
		t.Error("1 TiB: not found")
	}
}

// What is sealed is told from what is not, and lost keys are noticed.
func TestDamagedValues(t *testing.T) {
	for _, bucket := range summed {
		v := newVictim(t)
		for name, change := range map[string]func(b *bolt.Bucket, k, val []byte) error{
			"lost":    func(b *bolt.Bucket, k, _ []byte) error { return b.Delete(k) },
			"added":   func(b *bolt.Bucket, k, val []byte) error { return b.Put(append(slices.Clone(k), 1), val) },
			"changed": func(b *bolt.Bucket, k, val []byte) error { return b.Put(k, append(slices.Clone(val), 0)) },
		} {
			err := v.update(func(tx *bolt.Tx) error {
				b := tx.Bucket(bucket)
				k, val := b.Cursor().Last()
				return change(b, slices.Clone(k), slices.Clone(val))
			})
			if err != nil {
				t.Fatal(err)
			}
			bad, err := os.ReadFile(v.database())
			if err != nil {
				t.Fatal(err)
			}
			if !v.try(t, name, bad) {
				t.Errorf("%s: a key that was %s is not noticed", bucket, name)
			}
		}
	}
}

// gc on a damaged index removes nothing.
func TestGCOnDamagedIndex(t *testing.T) {
	v := newVictim(t)
	err := v.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketVersions).Delete([]byte("1.22.0")) })
	if err != nil {
		t.Fatal(err)
	}
	w := lock(t, v.Store)
	if _, err := w.GC(t.Context(), GCOptions{}); !errors.Is(err, ErrIndex) {
		t.Errorf("error %v", err)
	}
	w.Close()
	v.write(t, v.good)
	check(t, v.Store, v.want)
}

// Whatever a walk over pages meets, it ends with an error and no panic.
func FuzzPages(f *testing.F) {
	v := newVictim(f)
	f.Add(uint32(0), uint64(0), uint32(0))
	f.Add(uint32(2*4096+8), uint64(1)<<60, uint32(9*4096+10))
	f.Fuzz(func(t *testing.T, at uint32, bits uint64, cut uint32) {
		bad := slices.Clone(v.good)
		i := int(at) % (len(bad) - 8)
		binary.NativeEndian.PutUint64(bad[i:], binary.NativeEndian.Uint64(bad[i:])^bits)
		if cut > 0 {
			bad = bad[:int(cut)%len(bad)]
		}
		v.try(t, fmt.Sprintf("at %d %#x, %d bytes", i, bits, len(bad)), bad)
	})
}

func TestVerify(t *testing.T) {
	s := newStore(t)
	old, now := goLike(40, "x"), goLike(40, "y")
	large := "a file of one blob" + string(make([]byte, 5000))
	old["large"], now["sub/large"] = large, large
	put(t, s, "1.22.0", old)
	put(t, s, "1.22.1", now)
	snap, _ := open(t, s)
	loc, _ := snap.Locate(blobID(large))
	pack := filepath.Join(s.PackDir(), snap.Packs[0].Name+".pack")
	good, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(names ...string) *VerifyReport {
		t.Helper()
		var total, done int64
		var progress = make(chan int64, 10000)
		r, err := s.Verify(t.Context(), VerifyOptions{Versions: names, Total: func(n int64) { total = n }, Progress: func(n int64) { progress <- n }})
		if err != nil {
			t.Fatal(err)
		}
		close(progress)
		for n := range progress {
			done += n
		}
		if done > total || r.OK() && done < total*9/10 {
			t.Errorf("%d of %d bytes", done, total)
		}
		return r
	}
	if r := verify(); !r.OK() || r.Packs != 2 || r.Versions != 2 || r.Blobs != snap.Blobs() {
		t.Errorf("%+v", r)
	}
	if err := flip(pack, loc.Record+32+36+2); err != nil {
		t.Fatal(err)
	}
	both := []BadFile{{"1.22.0", "large"}, {"1.22.1", "sub/large"}}
	if r := verify(); !slices.Equal(r.Files, both) || len(r.Damage) != 1 || r.Damage[0].Offset != loc.Record || r.Damage[0].Pack != snap.Packs[0].Name {
		t.Errorf("one byte flipped: %+v", r)
	}
	if r := verify("1.22"); !slices.Equal(r.Files, both[1:]) || len(r.Damage) != 1 || r.Versions != 1 {
		t.Errorf("one version: %+v", r)
	}
	if _, err := s.Verify(t.Context(), VerifyOptions{Versions: []string{"1.9"}}); !errors.Is(err, ErrNoVersion) {
		t.Errorf("error %v", err)
	}
	// All of a pack is lost: each of its files, and one line of damage.
	for name, damage := range map[string]func() error{
		"short":   func() error { return os.WriteFile(pack, good[:len(good)-30], 0o644) },
		"missing": func() error { return os.Remove(pack) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		r := verify()
		var lost []string
		for _, f := range r.Files {
			if f.Version == "1.22.0" {
				lost = append(lost, f.Path)
			}
		}
		if !slices.Equal(lost, []string{""}) || len(r.Damage) > 4 {
			t.Errorf("%s: %d lines of damage %+v, files %q", name, len(r.Damage), r.Damage, lost)
		}
		if r := verify("1.22.0"); len(r.Files) != 1 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// A record that cannot be decoded makes no more of its pack unreadable.
func TestVerifyNamesFiles(t *testing.T) {
	s := newStore(t)
	c := goLike(40, "x")
	put(t, s, "1.22.0", c)
	snap, _ := open(t, s)
	loc, _ := snap.Locate(blobID(c["src/p3/f3.go"]))
	want := map[string]bool{}
	for path, data := range c {
		if l, ok := snap.Locate(blobID(data)); ok && l.Record == loc.Record {
			want[path] = true
		}
	}
	if err := flip(filepath.Join(s.PackDir(), snap.Packs[0].Name+".pack"), loc.Record+32+10*36+8); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{nil, {"1.22.0"}} {
		r, err := s.Verify(t.Context(), VerifyOptions{Versions: names})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, f := range r.Files {
			got[f.Path] = true
		}
		if len(want) != 10 || !maps.Equal(got, want) {
			t.Errorf("%v: %v, want %v", names, got, want)
		}
	}
}
