package fs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
)

func TestPrefetch(t *testing.T) {
	store := newStore(t)
	want := files{}
	for i := range 40 {
		want[fmt.Sprintf("src/p/f%02d.go", i)] = file{data: pseudo(i, 3000+i), mode: 0o644}
		want[fmt.Sprintf("src/p/f%02d_test.go", i)] = file{data: pseudo(100+i, 3000+i), mode: 0o644}
		want[fmt.Sprintf("src/q/g%02d.go", i)] = file{data: pseudo(200+i, 3000+i), mode: 0o644}
	}
	for i := range 5 {
		want[fmt.Sprintf("src/r/h%d.go", i)] = file{data: pseudo(300+i, 3000), mode: 0o644}
	}
	want["src/p/large.go"] = file{data: pseudo(999, 400_000), mode: 0o644}
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	read := func(path string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, "1.22.8", path)); err != nil || string(b) != want[path].data {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	stores := func(n uint64) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " stores"), func() bool { return s.Stats().Prefetch.Stores == n })
	}

	// A reader in the middle of a tree gets the folder's other small files of
	// the same class but not those of a folder that nobody has listed.
	names(t, filepath.Join(dir, "1.22.8/src/p"))
	s.now.Load().releases[0].tree.Load().ahead.Store(1 << 20)
	read("src/p/f07.go")
	stores(39)
	before := s.Stats()
	for i := range 40 {
		read(fmt.Sprintf("src/p/f%02d.go", i))
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("after the prefetch: %v", got)
	}
	read("src/p/f07_test.go")
	stores(39 + 39)
	before = s.Stats()
	for i := range 40 {
		read(fmt.Sprintf("src/p/f%02d_test.go", i))
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("after the prefetch of the tests: %v", got)
	}

	names(t, filepath.Join(dir, "1.22.8/src/q"))
	s.now.Load().releases[0].tree.Load().ahead.Store(1 << 20)
	read("src/q/g00.go")
	stores(39 + 39 + 39)
	before = s.Stats()
	check(t, filepath.Join(dir, "1.22.8/src/q"), sub(want, "src/q/"))
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("after the prefetch: %v", got)
	}

	// Dropped pages are pushed again when the next READ shows it.
	for _, n := range s.now.Load().releases[0].tree.Load().inodes {
		if n != nil && n.cached.Load() != 0 {
			n.cached.Add(-2 * int64(lost))
		}
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1\n"), 0o200); err != nil {
		t.Fatal(err)
	}
	read("src/q/g20.go")
	stores(39 + 39 + 39 + 39)
	// What the kernel does not know is not pushed.
	read("src/r/h1.go")
	if st := s.Stats().Prefetch; st.Stores != 39+39+39+39 || st.Unknown+st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// TestPushListed lists folders, as the go command does of all that it is to
// build, and reads a file of one.
func TestPushListed(t *testing.T) {
	store := newStore(t)
	want := files{}
	for i := range 200 {
		want[fmt.Sprintf("src/p%02d/f%d.go", i/10, i%10)] = file{data: pseudo(i, 3000+i), mode: 0o644}
		want[fmt.Sprintf("src/p%02d/f%d_test.go", i/10, i%10)] = file{data: pseudo(1000+i, 3000+i), mode: 0o644}
		want[fmt.Sprintf("src/p%02d/f%d_plan9.go", i/10, i%10)] = file{data: pseudo(2000+i, 3000+i), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	for i := range 15 {
		names(t, filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%02d", i)))
	}
	s.now.Load().releases[0].tree.Load().ahead.Store(1 << 20)
	if _, err := os.ReadFile(filepath.Join(dir, "1.22.8/src/p07/f3.go")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "149 stores", func() bool { return s.Stats().Prefetch.Stores == 149 })
	before := s.Stats()
	for i := range 150 {
		path := fmt.Sprintf("src/p%02d/f%d.go", i/10, i%10)
		if b, err := os.ReadFile(filepath.Join(dir, "1.22.8", path)); err != nil || string(b) != want[path].data {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("read again: %v", got)
	}
	// The kernel has all that a build wants of the records, so they are not kept.
	if c := s.Stats().Cache; c.Bytes > int64(c.Decoded)/2 {
		t.Errorf("%+v", c)
	}

	// Who reads the tests of two folders, as go vet may, has those of these pushed;
	// who reads those of three has all.
	g := s.now.Load().releases[0].tree.Load()
	for i, stores := range []uint64{149 + 9, 149 + 18, 149 + 147} {
		g.ahead.Store(1 << 20)
		if _, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%02d/f3_test.go", i))); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprint(stores, " stores"), func() bool { return s.Stats().Prefetch.Stores == stores })
	}
	check(t, filepath.Join(dir, "1.22.8"), want)
}

// TestPushListedIsBounded reads one file after ls -R.
func TestPushListedIsBounded(t *testing.T) {
	store := newStore(t)
	want := files{}
	for i := range 200 {
		want[fmt.Sprintf("src/p%02d/f%d.go", i/10, i%10)] = file{data: pseudo(i, 60_000), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	for i := range 20 {
		names(t, filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%02d", i)))
	}
	g := s.now.Load().releases[0].tree.Load()
	g.ahead.Store(1 << 20)
	if _, err := os.ReadFile(filepath.Join(dir, "1.22.8/src/p07/f3.go")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what is permitted is pushed", func() bool {
		g.listed.mu.Lock()
		defer g.listed.mu.Unlock()
		return !g.listed.running && s.Stats().Prefetch.Bytes >= followBytes
	})
	// The last record may hold more than is permitted.
	if st := s.Stats().Prefetch; st.Bytes > followBytes+2*testGroup {
		t.Errorf("%d bytes pushed for one READ", st.Bytes)
	}
}

// sub is the part of a release that lies in a folder.
func sub(all files, prefix string) files {
	part := files{}
	for path, f := range all {
		if len(path) > len(prefix) && path[:len(prefix)] == prefix {
			part[path[len(prefix):]] = f
		}
	}
	return part
}

// TestNotSequential reads folder after folder as a build does, which leaves tests
// out: it gets none pushed.
func TestNotSequential(t *testing.T) {
	store := newStore(t)
	want := files{}
	for i := range 20 {
		want[fmt.Sprintf("src/p%02d/a_test.go", i)] = file{data: pseudo(i, 3000+i), mode: 0o644}
		want[fmt.Sprintf("src/p%02d/b.go", i)] = file{data: pseudo(100+i, 3000+i), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	for i := range 20 {
		names(t, filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%02d", i)))
	}
	for i := range 20 {
		if _, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%02d/b.go", i))); err != nil {
			t.Fatal(err)
		}
	}
	g := s.now.Load().releases[0].tree.Load()
	eventually(t, "the pushes have ended", func() bool {
		g.listed.mu.Lock()
		defer g.listed.mu.Unlock()
		return len(s.pushers) == 0 && len(g.listed.waiting) == 0
	})
	for i, n := range g.inodes {
		if n != nil && index.ClassOf(g.Entries[i].Name) == index.ForTest && n.cached.Load() != 0 {
			t.Errorf("entry %d was pushed", i)
		}
	}
}

func TestSequentialPrefetchGoesOn(t *testing.T) {
	store := newStore(t)
	want := files{}
	for i := range 300 {
		want[fmt.Sprintf("src/p%02d/f%02d.go", i/10, i%10)] = file{data: pseudo(i, 3000+i), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	for i := range 30 {
		names(t, filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%02d", i)))
	}
	if _, err := os.ReadFile(filepath.Join(dir, "1.22.8/src/p00/f00.go")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "299 stores", func() bool { return s.Stats().Prefetch.Stores == 299 })
	check(t, filepath.Join(dir, "1.22.8"), want)
	if got := s.Stats().Requests["read"]; got != 1 {
		t.Errorf("%d READs for 30 folders", got)
	}
}

// TestPushWhole reads the beginning of a program that lies in one record. The
// kernel has the rest then.
func TestPushWhole(t *testing.T) {
	data := []byte(pseudo(1, 6<<20))
	store := newStore(t)
	l := newLoader(t, store)
	it := index.Item{Path: "bin/go", Kind: index.File, Mode: 0o755, Size: int64(len(data))}
	for chunk := range slices.Chunk(data, 100_000) {
		id := blobstore.Sum(chunk)
		it.Blobs = append(it.Blobs, index.Ref{ID: id, Length: uint32(len(chunk))})
		l.group.Blobs = append(l.group.Blobs, blobstore.Blob{ID: id, Data: chunk})
	}
	l.items = append(l.items, it)
	l.commit("1.22.8")
	s, mnt := mount(t, store)
	f, err := os.Open(filepath.Join(mnt, "1.22.8/bin/go"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is pushed", func() bool { return s.Stats().Prefetch.Stores == 1 })
	before := s.Stats()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(data))))
	if err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("asked again: %v", got)
	}
}

// run runs a copy of this program out of a mount. A shell does, since a Go
// program that starts another may stand still until that has been read, and this
// one serves the mount.
func run(program string) ([]byte, error) {
	return exec.Command("/bin/sh", "-c", `exec "$0" -test.run='^$'`, program).CombinedOutput()
}

// TestProgram runs a program. The kernel has all of it then.
func TestProgram(t *testing.T) {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	add(t, store, "1.22.8", files{"bin/go": {data: string(data), mode: 0o755}})
	s, mnt := mount(t, store)
	program := filepath.Join(mnt, "1.22.8/bin/go")
	// Who only looks at it does not have it pushed.
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), int64(len(data)/2)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if n := s.Stats().Prefetch.Stores; n != 0 {
		t.Errorf("%d pushed for who only looked", n)
	}
	if out, err := run(program); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "it is pushed", func() bool { return s.Stats().Prefetch.Stores == 1 })
	if missing := notCached(t, program); missing != 0 {
		t.Errorf("the kernel lacks %d pages", missing)
	}
	if b, err := os.ReadFile(program); err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// notCached returns how many pages of a file the kernel would have to read.
func notCached(t *testing.T, name string) (missing int) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	pages := make([]byte, (len(m)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0]))); e != 0 {
		t.Fatal(e)
	}
	for _, p := range pages {
		if p&1 == 0 {
			missing++
		}
	}
	return missing
}

// TestTools runs a go command that looks at folders. The kernel gets the compiler
// then, unless the command reads tests: it is go list.
func TestTools(t *testing.T) {
	for _, lists := range []bool{false, true} {
		t.Run(fmt.Sprint("list ", lists), func(t *testing.T) { testTools(t, lists) })
	}
}

func testTools(t *testing.T, lists bool) {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	tool := "pkg/tool/" + strings.ReplaceAll(index.HostPlatform(), "-", "_") + "/"
	want := files{
		"bin/go":         {data: string(data), mode: 0o755},
		tool + "compile": {data: pseudo(1, 350_000), mode: 0o755},
		"src/p_test.go":  {data: pseudo(2, 10), mode: 0o644},
	}
	for i := range toolsAfter {
		want[fmt.Sprintf("src/p%d/p.go", i)] = file{data: pseudo(10+i, 10), mode: 0o644}
	}
	store := newStore(t)
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	if out, err := run(filepath.Join(dir, "1.22.8/bin/go")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g := s.now.Load().releases[0].tree.Load()
	if left := g.toTools.Load(); left != toolsAfter {
		t.Fatalf("%d folders to go", left)
	}
	if lists {
		g.ahead.Store(1 << 20)
		if _, err := os.ReadFile(filepath.Join(dir, "1.22.8/src/p_test.go")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the READ is noted", func() bool {
			g.listed.mu.Lock()
			defer g.listed.mu.Unlock()
			return g.listed.tests > 0
		})
	}
	for i := range toolsAfter {
		names(t, filepath.Join(dir, fmt.Sprintf("1.22.8/src/p%d", i)))
	}
	if left := g.toTools.Load(); left != 0 {
		t.Errorf("%d folders to go after all", left)
	}
	if lists {
		g.listed.mu.Lock()
		defer g.listed.mu.Unlock()
		g.toTools.Store(1)
		if g.builds() {
			t.Error("go list is taken for a build")
		}
		return
	}
	compile := filepath.Join(dir, "1.22.8", tool+"compile")
	eventually(t, "it is pushed", func() bool { return s.Stats().Prefetch.Stores >= 2 }) // and bin/go
	if missing := notCached(t, compile); missing != 0 {
		t.Errorf("the kernel lacks %d pages of the compiler", missing)
	}
	before := s.Stats()
	if b, err := os.ReadFile(compile); err != nil || string(b) != want[tool+"compile"].data {
		t.Errorf("compile: %d bytes, %v", len(b), err)
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("asked for the compiler: %v", got)
	}
	if i, _ := g.find("pkg", "tool", g.platform, "compile"); g.inodes[i].flags.Load()&flagRead == 0 {
		t.Error("the compiler is not noted")
	}
}

func TestHolds(t *testing.T) {
	member := func(id byte, offset, length uint32) blobstore.Member {
		return blobstore.Member{ID: blobstore.ID{id}, Offset: offset, Length: length}
	}
	refs := []index.Ref{{ID: blobstore.ID{1}, Length: 10}, {ID: blobstore.ID{2}, Length: 5}}
	for name, test := range map[string]struct {
		first int
		blobs []blobstore.Member
		want  bool
	}{
		"all":            {0, []blobstore.Member{member(1, 0, 10), member(2, 10, 5)}, true},
		"behind another": {1, []blobstore.Member{member(9, 0, 15), member(1, 0, 10), member(2, 10, 5)}, true},
		"cut off":        {0, []blobstore.Member{member(1, 0, 10)}, false},
		"before it":      {-1, []blobstore.Member{member(2, 0, 5), member(1, 5, 10)}, false},
		"other order":    {0, []blobstore.Member{member(2, 0, 5), member(1, 5, 10)}, false},
		"a gap":          {0, []blobstore.Member{member(1, 0, 10), member(2, 11, 5)}, false},
		"other length":   {0, []blobstore.Member{member(1, 0, 10), member(2, 10, 6)}, false},
		"damaged":        {0, []blobstore.Member{member(1, 0, 10), member(2, 10, 5), member(0, 15, 1)}, false},
	} {
		sound := func(i int) bool { return name != "damaged" || i != 1 }
		if got := holds(test.blobs, sound, test.first, refs); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
