package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gofs/blobstore"
	"gofs/index"
)

// eventually waits for what the mount does by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
		time.Sleep(time.Millisecond) // polls, synchronizes nothing
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestReload imports and removes while mounted, after everything that changes
// has been looked up and is cached by the kernel, negative entries too.
func TestReload(t *testing.T) {
	store := newStore(t)
	want := sample()
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	in := func(name string) string { return filepath.Join(dir, name) }
	look := func() {
		for _, name := range []string{"1.22", "1.22.8", "1.22.12", "1.23", "1.23.3", "latest", "bin/go1.22.8", "bin/go1.22.12", "bin/go1.23.3"} {
			_, _ = os.Lstat(in(name))
			_, _ = os.Readlink(in(name))
		}
		names(t, dir)
		names(t, in("bin"))
	}
	expect := func(root, bin []string, minor, latest string) {
		t.Helper()
		if got := names(t, dir); !slices.Equal(got, root) {
			t.Errorf("root: %q, want %q", got, root)
		}
		if got := names(t, in("bin")); !slices.Equal(got, bin) {
			t.Errorf("bin: %q, want %q", got, bin)
		}
		for link, want := range map[string]string{"1.22": minor, "latest": latest} {
			if got, _ := os.Readlink(in(link)); got != want {
				t.Errorf("%s -> %s, want %s", link, got, want)
			}
		}
		for _, name := range bin {
			if !exists(in("bin/" + name)) {
				t.Errorf("bin/%s is not there", name)
			}
		}
	}
	reload := func() {
		t.Helper()
		look()
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	check(t, in("1.22.8"), want)
	look()
	add(t, store, "1.22.12", sample())
	reload()
	expect([]string{"1.22", "1.22.12", "1.22.8", "bin", "latest"}, []string{"go1.22.12", "go1.22.8"}, "1.22.12", "1.22.12")
	check(t, in("1.22.12"), want)
	look()
	add(t, store, "1.23.3", sample())
	reload()
	expect([]string{"1.22", "1.22.12", "1.22.8", "1.23", "1.23.3", "bin", "latest"},
		[]string{"go1.22.12", "go1.22.8", "go1.23.3"}, "1.22.12", "1.23.3")

	// What did not change is still cached.
	check(t, in("1.22.8"), want)
	before := s.Stats()
	check(t, in("1.22.8"), want)
	if got := since(s, before); len(got) > 0 {
		t.Errorf("after a reload: %v", got)
	}

	// A file that is open stays readable when its version is removed.
	f, err := os.Open(in("1.22.12/bin/go"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	look()
	remove(t, store, "1.23.3", "1.22.12")
	reload()
	expect([]string{"1.22", "1.22.8", "bin", "latest"}, []string{"go1.22.8"}, "1.22.8", "1.22.8")
	if exists(in("1.23.3")) || exists(in("1.23")) {
		t.Error("1.23.3 is still there")
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != want["bin/go"].data {
		t.Errorf("open file of a removed version: %d bytes, %v", len(b), err)
	}

	// The same name with other content is another folder.
	other := files{"VERSION": {data: "other\n", mode: 0o644}}
	add(t, store, "1.22.12", other)
	reload()
	check(t, in("1.22.12"), other)
}

// TestReloadsByItself waits for the mount to notice.
func TestReloadsByItself(t *testing.T) {
	store := newStore(t)
	s, dir := mount(t, store)
	if got := names(t, dir); !slices.Equal(got, []string{"bin"}) {
		t.Errorf("empty store: %q", got)
	}
	add(t, store, "1.22.8", sample())
	eventually(t, "1.22.8 appears", func() bool { return exists(filepath.Join(dir, "1.22.8/bin/go")) })
	remove(t, store, "1.22.8")
	eventually(t, "1.22.8 disappears", func() bool { return !exists(filepath.Join(dir, "1.22.8")) })
	if st := s.Stats(); st.Reloads != 2 || st.ReloadErrors != 0 || st.Versions != 0 {
		t.Errorf("%+v", st)
	}
}

// TestRemovedPacks drops a pack under a reader, as gc does.
func TestRemovedPacks(t *testing.T) {
	store := newStore(t)
	want := sample()
	add(t, store, "1.22.8", want)
	s, dir := mountWith(t, store, Options{DecodedCache: 1})
	// Its folder stays as the working directory of a build would.
	d, err := os.OpenRoot(filepath.Join(dir, "1.22.8"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	snap, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	change(t, store, index.Change{Remove: []string{"1.22.8"}, Drop: []uint32{snap.Packs[0].Number}})
	if err := os.RemoveAll(store.PackDir()); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(dir, "1.22.8")) {
		t.Error("1.22.8 is still there")
	}
	for _, name := range []string{"VERSION", "bin/go"} {
		if b, err := d.ReadFile(name); err != nil || string(b) != want[name].data {
			t.Errorf("%s of a removed version: %d bytes, %v", name, len(b), err)
		}
	}

	// When their time is over nothing is left of it.
	s.prune(time.Now().Add(2 * removedFor))
	if st := s.Stats(); st.Trees != 0 || len(s.acquireRetired()) != 0 || len(*s.inodes.pages.Load()) != 0 {
		t.Errorf("left behind: %+v", st)
	}
	if _, err := d.Stat("src/strings/a.go"); err == nil {
		t.Error("src can still be entered")
	}
}

// TestRetiredPacks removes and collects more versions than a mount keeps
// states of the store for. Each pack is open once, whichever states have it.
func TestRetiredPacks(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	s, dir := mountWith(t, store, Options{DecodedCache: 1})
	drop := func(name string, remove ...string) {
		t.Helper()
		snap, err := store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		loc, ok := snap.Locate(blobstore.Sum([]byte(name)))
		if !ok {
			t.Fatalf("%s is in no pack", name)
		}
		change(t, store, index.Change{Remove: remove, Drop: []uint32{loc.Pack}})
		i := slices.IndexFunc(snap.Packs, func(p blobstore.PackRef) bool { return p.Number == loc.Pack })
		if err := errors.Join(os.Remove(filepath.Join(store.PackDir(), snap.Packs[i].Name+blobstore.Suffix)), s.Reload(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name string) *os.Root {
		t.Helper()
		add(t, store, name, files{"f": {data: name, mode: 0o644}})
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := os.OpenRoot(filepath.Join(dir, name))
		if err == nil {
			_, err = r.Stat("f")
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}

	const over = 3 // that are not kept any more
	var removed []*os.Root
	for i := range maxRetired + over {
		name := fmt.Sprintf("1.23.%d", i)
		removed = append(removed, put(name))
		drop(name, name)
	}
	if n := openPacks(t, store); n != 1+maxRetired {
		t.Errorf("%d packs are open, want that of 1.22.8 and %d others", n, maxRetired)
	}
	for i, r := range removed {
		b, err := r.ReadFile("f")
		if i < over {
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%d: %q, %v", i, b, err)
			}
		} else if err != nil || string(b) != fmt.Sprintf("1.23.%d", i) {
			t.Errorf("%d: %q, %v", i, b, err)
		}
	}

	// When no removed version can be read any more, gc takes nothing away.
	put("1.24.0")
	remove(t, store, "1.24.0")
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.prune(time.Now().Add(2 * removedFor))
	drop("1.24.0")
	s.retiredMu.Lock()
	states := len(s.retired)
	s.retiredMu.Unlock()
	if n := openPacks(t, store); n != 1 || states != 0 {
		t.Errorf("%d packs are open for %d states", n, states)
	}
	check(t, filepath.Join(dir, "1.22.8"), sample())
}

// openPacks counts the descriptors of this process for packs of a store.
func openPacks(t *testing.T, store *index.Store) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, store.PackDir()) {
			n++
		}
	}
	return n
}

func TestReplacedStore(t *testing.T) {
	var log logBuffer
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	s, dir := mountWith(t, store, Options{Log: log.logger()})
	if err := os.RemoveAll(store.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := index.Create(t.Context(), store.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); !errors.Is(err, ErrReplaced) {
		t.Error(err)
	}
	s.checkGeneration(t.Context())
	s.checkGeneration(t.Context())
	if n := strings.Count(log.String(), "reload failed"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	check(t, filepath.Join(dir, "1.22.8"), sample())
}

func TestDamage(t *testing.T) {
	var log logBuffer
	store := newStore(t)
	want := sample()
	add(t, store, "1.22.8", want)
	bad := pseudo(99, 90_000)
	add(t, store, "1.22.12", files{"bad": {data: bad, mode: 0o644}, "good": {data: "package fmt\n", mode: 0o644}})
	snap, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	loc, ok := snap.Locate(blobstore.Sum([]byte(bad)))
	if !ok {
		t.Fatal("no blob")
	}
	i := slices.IndexFunc(snap.Packs, func(p blobstore.PackRef) bool { return p.Number == loc.Pack })
	flipBit(t, filepath.Join(store.PackDir(), snap.Packs[i].Name+blobstore.Suffix), loc.Record+1000)
	s, dir := mountWith(t, store, Options{Log: log.logger()})
	for range 3 {
		if b, err := os.ReadFile(filepath.Join(dir, "1.22.12/bad")); !errors.Is(err, syscall.EIO) {
			t.Errorf("damaged: %d bytes, %v", len(b), err)
		}
	}
	if st := s.Stats(); st.Damaged == 0 {
		t.Errorf("%+v", st)
	}
	if n := bytes.Count([]byte(log.String()), []byte("cannot be read")); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	check(t, filepath.Join(dir, "1.22.8"), want)
	if b, err := os.ReadFile(filepath.Join(dir, "1.22.12/good")); err != nil || string(b) != "package fmt\n" {
		t.Errorf("good: %q, %v", b, err)
	}
}

func flipBit(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestTogether reads with 64 readers while versions come and go.
func TestTogether(t *testing.T) {
	store := newStore(t)
	want := sample()
	for i := range 300 {
		want[fmt.Sprintf("src/p%d/f%d.go", i%30, i)] = file{data: pseudo(1000+i, 100+i*37), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	s, dir := mountWith(t, store, Options{DecodedCache: 300_000})
	paths := []string{}
	for path, f := range want {
		if f.target == "" {
			paths = append(paths, path)
		}
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 64 {
		readers.Go(func() {
			for i := r; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				path := paths[i*7%len(paths)]
				if i%3 == 0 { // so the kernel knows the siblings, which are pushed then
					if _, err := os.ReadDir(filepath.Dir(filepath.Join(dir, "1.22.8", path))); err != nil {
						t.Error(err)
						return
					}
				}
				b, err := os.ReadFile(filepath.Join(dir, "1.22.8", path))
				if err != nil || string(b) != want[path].data {
					t.Errorf("%s: %d bytes, %v", path, len(b), err)
					return
				}
				if i%50 == 0 {
					names(t, dir)
				}
			}
		})
	}
	for i := range 8 {
		name := fmt.Sprintf("1.23.%d", i)
		add(t, store, name, files{"VERSION": {data: name, mode: 0o644}, fmt.Sprintf("src/p1/f%d.go", i): {data: pseudo(1000+i, 100+i*37), mode: 0o644}})
		if err := s.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, name, "VERSION")); err != nil || string(b) != name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		dropCaches(t)
		if i%2 == 1 {
			remove(t, store, name)
		}
	}
	close(stop)
	readers.Wait()
	if st := s.Stats(); st.Damaged+st.Failures+st.ReloadErrors > 0 {
		t.Errorf("%+v", st)
	}
	// What was pushed meanwhile is a matter of luck; that it still is, is not.
	before := s.Stats().Prefetch.Stores
	dropCaches(t)
	for _, r := range s.now.Load().releases {
		if g := r.tree.Load(); g != nil {
			for _, n := range g.inodes {
				if n != nil {
					n.cached.Store(0)
				}
			}
		}
	}
	names(t, filepath.Join(dir, "1.22.8/src/p3"))
	if b, err := os.ReadFile(filepath.Join(dir, "1.22.8/src/p3/f3.go")); err != nil || string(b) != want["src/p3/f3.go"].data {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	eventually(t, "a push", func() bool { return s.Stats().Prefetch.Stores > before })
}

func dropCaches(t testing.TB) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0o200); err != nil {
		t.Fatal(err)
	}
}
