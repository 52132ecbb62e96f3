package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// programs is a release of n programs of 300,000 bytes.
func programs(n int) files {
	f := files{"VERSION": {data: "go1.22.8\n", mode: 0o644}}
	for i := range n {
		f[fmt.Sprintf("bin/p%d", i)] = file{data: pseudo(5000+i, 300_000), mode: 0o755}
	}
	return f
}

const programRoom = (300_000 + 4095) &^ 4095

// readOne reads a file of 1.22.8 and compares it.
func readOne(t testing.TB, dir string, want files, path string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(dir, "1.22.8", path)); err != nil || string(b) != want[path].data {
		t.Errorf("%s: %d bytes, %v", path, len(b), err)
	}
}

// settled waits until nothing is being put into the hot layer, nor decoded ahead.
func settled(t *testing.T, s *Server) HotStats {
	t.Helper()
	eventually(t, "the hot layer is settled", func() bool {
		s.hot.mu.Lock()
		defer s.hot.mu.Unlock()
		return len(s.hot.flights) == 0 && len(s.hot.fillers) == 0 && len(s.decoders) == 0
	})
	return *s.Stats().Hot
}

func TestHot(t *testing.T) {
	for name, dir := range map[string]string{"tmpfs": "", "folder": filepath.Join(t.TempDir(), "made", "hot")} {
		t.Run(name, func(t *testing.T) {
			store, want := newStore(t), sample()
			add(t, store, "1.22.8", want)
			s, mnt := mountWith(t, store, Options{Hot: &Hot{Dir: dir}, DecodedCache: 1})
			readOne(t, mnt, want, "bin/go")
			readOne(t, mnt, want, "src/strings/a.go")
			if st := settled(t, s); st.Made != 1 || st.Files != 1 || st.MadeBytes != 250_001 || st.Bytes != room(250_001) {
				t.Errorf("%+v", st)
			}
			dropCaches(t)
			before := s.Stats()
			readOne(t, mnt, want, "bin/go")
			now := s.Stats()
			if now.Cache.Decodes != before.Cache.Decodes || now.Hot.HitBytes-before.Hot.HitBytes < 250_001 {
				t.Errorf("the second time: %+v", now)
			}
			check(t, filepath.Join(mnt, "1.22.8"), want)
			if dir == "" {
				return
			}
			for _, name := range names(t, dir) {
				if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || st.Mode() != 0o600 {
					t.Errorf("%s: %v, %v", name, st, err)
				}
			}
			if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", st, err)
			}
		})
	}
}

// TestHotEvicts reads more than fits; what was not used for longest goes.
func TestHotEvicts(t *testing.T) {
	store, want := newStore(t), programs(6)
	add(t, store, "1.22.8", want)
	s, mnt := mountWith(t, store, Options{Hot: &Hot{Size: 3*programRoom + 5000}, DecodedCache: 1})
	g := func() *grown { return s.now.Load().releases[0].tree.Load() }
	has := func(path string) bool {
		e, ok := g().Find(path)
		if !ok {
			t.Fatal(path)
		}
		for i := range g().Entries {
			if &g().Entries[i] == e {
				s.hot.mu.Lock()
				defer s.hot.mu.Unlock()
				return s.hot.kept[keyOf(g().inodes[i])] != nil
			}
		}
		return false
	}
	read := func(path string) HotStats {
		t.Helper()
		readOne(t, mnt, want, path)
		st := settled(t, s)
		if st.Bytes > st.Limit || st.Failures > 0 {
			t.Errorf("%s: %+v", path, st)
		}
		return st
	}
	for i := range 3 {
		read(fmt.Sprintf("bin/p%d", i))
	}
	dropCaches(t)
	read("bin/p0") // is younger than p1 now
	if st := read("bin/p3"); st.Evicted != 1 || st.Files != 3 || has("bin/p1") || !has("bin/p0") {
		t.Errorf("%+v, p1 %v p0 %v", st, has("bin/p1"), has("bin/p0"))
	}
	for i := range 6 {
		read(fmt.Sprintf("bin/p%d", i))
	}
	dropCaches(t)
	check(t, filepath.Join(mnt, "1.22.8"), want)
}

// TestHotTooLarge has a limit below the file: it is served without the layer.
func TestHotTooLarge(t *testing.T) {
	store, want := newStore(t), programs(2)
	add(t, store, "1.22.8", want)
	for _, through := range []bool{false, true} {
		s, mnt := mountWith(t, store, Options{Hot: &Hot{Size: 100_000}, Passthrough: through})
		check(t, filepath.Join(mnt, "1.22.8"), want)
		if st := settled(t, s); st.Made+st.Failures+st.Evicted > 0 || st.Bytes != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// TestHotFolderStays mounts again with a folder that an earlier mount has
// filled, and that has suffered meanwhile.
func TestHotFolderStays(t *testing.T) {
	var log logBuffer
	store, want := newStore(t), programs(4)
	add(t, store, "1.22.8", want)
	hot := filepath.Join(t.TempDir(), "hot")
	o := Options{Hot: &Hot{Dir: hot}, Log: log.logger()}
	s, mnt := mountWith(t, store, o)
	for i := range 4 {
		readOne(t, mnt, want, fmt.Sprintf("bin/p%d", i))
		settled(t, s)
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, name := range names(t, hot) {
		if _, ok := parseHotKey(name); ok {
			kept = append(kept, name)
		}
	}
	if len(kept) != 4 {
		t.Fatalf("%q", kept)
	}
	flipBit(t, filepath.Join(hot, kept[0]), 299_000)
	if err := errors.Join(os.Truncate(filepath.Join(hot, kept[1]), 1000),
		os.WriteFile(filepath.Join(hot, hotTemp+"left"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	dropCaches(t)
	s, mnt = mountWith(t, store, o)
	if st := s.Stats().Hot; st.Files != 4 || st.Checked != 0 {
		t.Errorf("%+v", st)
	}
	decodes := s.Stats().Cache.Decodes
	for i := range 4 {
		readOne(t, mnt, want, fmt.Sprintf("bin/p%d", i))
		settled(t, s)
	}
	// The tree, and the blobs of the two that are unfit, once for the reader and for
	// the file that is made anew: a cache that keeps them, since what is decoded ahead
	// in vain depends on who comes first.
	if n := s.Stats().Cache.Decodes - decodes; n > 1+2*4 {
		t.Errorf("%d records decoded", n)
	}
	if st := s.Stats(); st.Hot.Checked != 2 || st.Hot.Corrupt != 2 || st.Hot.Made != 2 || st.Hot.Bytes != 4*programRoom || st.Damaged > 0 {
		t.Errorf("%+v", st.Hot)
	}
	if n := strings.Count(log.String(), "is damaged, it is made anew"); n != 2 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	if exists(filepath.Join(hot, hotTemp+"left")) {
		t.Error("what was under way is left")
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}

	// A smaller size holds less from the start.
	o.Hot = &Hot{Dir: hot, Size: 2 * programRoom}
	s, mnt = mountWith(t, store, o)
	if st := s.Stats().Hot; st.Files != 2 || st.Bytes > st.Limit || st.Evicted != 2 {
		t.Errorf("%+v", st)
	}
	check(t, filepath.Join(mnt, "1.22.8"), want)
}

// tmpfsOn mounts a small tmpfs for as long as the test runs.
func tmpfsOn(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("gofs-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestHotFolderRefused(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	base := t.TempDir()
	in := func(name string) string { return filepath.Join(base, name) }
	mnt := in("mnt")
	for _, dir := range []string{"mnt", "open", "other", "link-to", "full", "ro", "theirs", "fifo"} {
		if err := os.Mkdir(in(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tmpfsOn(t, in("full"), "size=64k,mode=700")
	tmpfsOn(t, in("ro"), "ro,size=64k,mode=700")
	if err := errors.Join(
		os.Chmod(in("open"), 0o777), os.Chown(in("theirs"), nobody, nobody),
		os.WriteFile(in("other/letter"), nil, 0o600), os.WriteFile(in("file"), nil, 0o600),
		os.Symlink("link-to", in("link")), os.Mkdir(in("fifo/"+strings.Repeat("ab", 16)), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(in("full/"+hotLock), make([]byte, 100_000), 0o600) // as far as it goes
	held, err := openHotFolder(in("held"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.close()
	for _, test := range []struct{ dir, want string }{
		{"held", ErrHotInUse.Error()},
		{"open", "others may write to it"},
		{"theirs", "it belongs to user 65534"},
		{"other", "it has other files in it (letter)"},
		{"file", "not a directory"},
		{"link", "not a directory"},
		{"fifo", "is no file"},
		{"full", "no space left on device"},
		{"ro", "read-only file system"},
		{"mnt/hot", "lies in " + mnt},
		{"mnt/none/yet", "lies in " + mnt},
		{"proc", ""},
	} {
		t.Run(test.dir, func(t *testing.T) {
			o := Options{Hot: &Hot{Dir: in(test.dir)}}
			if test.dir == "proc" {
				o.Hot.Dir, test.want = "/proc/hot", "/proc/hot"
			}
			if test.dir == "mnt/hot" {
				_ = os.Mkdir(in(test.dir), 0o700)
				defer os.Remove(in(test.dir))
			}
			s, err := Mount(t.Context(), store, mnt, o)
			if err == nil {
				t.Fatal("mounted", s.Unmount())
			}
			if !errors.Is(err, ErrHot) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Error(err)
			}
		})
	}
	if list := names(t, mnt); len(list) > 0 {
		t.Errorf("left in the mountpoint: %q", list)
	}
	if _, err := Mount(t.Context(), store, mnt, Options{Hot: &Hot{Size: 100}}); !errors.Is(err, ErrHot) {
		t.Errorf("a size of 100 bytes: %v", err)
	}
}

// TestHotFailsWhileRunning fills the disk, then makes it read-only, then
// cuts a kept file short, all below a mount that must not mind.
func TestHotFailsWhileRunning(t *testing.T) {
	for _, through := range []bool{false, true} {
		t.Run(fmt.Sprint("passthrough ", through), func(t *testing.T) {
			var log logBuffer
			store, want := newStore(t), programs(6)
			add(t, store, "1.22.8", want)
			hot := filepath.Join(t.TempDir(), "hot")
			tmpfsOn(t, hot, "size=2m,mode=700")
			s, mnt := mountWith(t, store, Options{Hot: &Hot{Dir: hot}, Log: log.logger(), DecodedCache: 1, Passthrough: through})
			retry := func() { // hotPause is over
				s.hot.mu.Lock()
				defer s.hot.mu.Unlock()
				s.hot.pause = s.hot.pause.Add(-hotPause)
			}
			readOne(t, mnt, want, "bin/p0")
			settled(t, s)

			// Others fill the disk. What is kept gives way first.
			_ = os.WriteFile(filepath.Join(hot, "other"), make([]byte, 4<<20), 0o600)
			readOne(t, mnt, want, "bin/p1")
			if st := settled(t, s); st.Made != 2 || st.Evicted != 1 || st.Failures != 0 {
				t.Errorf("full of others: %+v", st)
			}
			eventually(t, "nothing is open", func() bool { return s.hot.evict(1) })
			_ = os.WriteFile(filepath.Join(hot, "more"), make([]byte, 4<<20), 0o600)
			readOne(t, mnt, want, "bin/p2")
			if st := settled(t, s); st.Made != 2 || st.Failures != 1 || !strings.Contains(st.Error, "no space") {
				t.Errorf("full: %+v", st)
			}
			readOne(t, mnt, want, "bin/p2")
			settled(t, s)
			if err := errors.Join(os.Remove(filepath.Join(hot, "other")), os.Remove(filepath.Join(hot, "more"))); err != nil {
				t.Fatal(err)
			}
			retry()
			readOne(t, mnt, want, "bin/p3")
			if st := settled(t, s); st.Made != 3 || st.Error != "" {
				t.Errorf("no more full: %+v", st)
			}

			if err := unix.Mount("", hot, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			readOne(t, mnt, want, "bin/p4")
			settled(t, s)
			retry()
			readOne(t, mnt, want, "bin/p5")
			if st := settled(t, s); st.Failures != 3 || !strings.Contains(st.Error, "read-only") {
				t.Errorf("read-only: %+v", st)
			}
			if n := strings.Count(log.String(), "the hot layer fails"); n != 2 { // once each time
				t.Errorf("logged %d times: %s", n, log.String())
			}
			if through {
				return // the kernel reads what is there
			}
			if err := unix.Mount("", hot, "", unix.MS_REMOUNT, ""); err != nil {
				t.Fatal(err)
			}
			for _, name := range names(t, hot) {
				if _, ok := parseHotKey(name); ok {
					if err := os.Truncate(filepath.Join(hot, name), 10); err != nil {
						t.Fatal(err)
					}
				}
			}
			dropCaches(t)
			check(t, filepath.Join(mnt, "1.22.8"), want)
		})
	}
}

// TestHotShm finds what a killed mount left in shared memory, and leaves what
// another has open.
func TestHotShm(t *testing.T) {
	shm := t.TempDir()
	first, err := openHotShm(shm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.create(hotKey{1}, func(f *os.File) error { _, err := f.WriteString("x"); return err }); err != nil {
		t.Fatal(err)
	}
	second, err := openHotShm(shm)
	if err != nil {
		t.Fatal(err)
	}
	if len(names(t, shm)) != 2 {
		t.Errorf("%q", names(t, shm))
	}
	first.wipe = "" // as if killed
	first.close()
	third, err := openHotShm(shm)
	if err != nil {
		t.Fatal(err)
	}
	if len(names(t, shm)) != 2 {
		t.Errorf("a dead one is left: %q", names(t, shm))
	}
	second.close()
	third.close()
	if len(names(t, shm)) != 0 {
		t.Errorf("%q", names(t, shm))
	}
}

// TestHotMakesOnce has many ask for the same file at once.
func TestHotMakesOnce(t *testing.T) {
	store, want := newStore(t), programs(1)
	add(t, store, "1.22.8", want)
	s, mnt := mountWith(t, store, Options{Hot: &Hot{}, DecodedCache: 1})
	readOne(t, mnt, want, "VERSION") // loads the tree
	var n *inode
	for _, i := range s.now.Load().releases[0].tree.Load().inodes {
		if i != nil && i.size == 300_000 {
			n = i
		}
	}
	var askers sync.WaitGroup
	for range 32 {
		askers.Go(func() {
			f, err := s.hot.fetch(n)
			if err != nil {
				t.Error(err)
				return
			}
			f.release()
		})
	}
	askers.Wait()
	if st := settled(t, s); st.Made != 1 || st.Files != 1 {
		t.Errorf("%+v", st)
	}
}
