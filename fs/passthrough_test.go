package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPassthrough(t *testing.T) {
	store, want := newStore(t), sample()
	add(t, store, "1.22.8", want)
	s, mnt := mountWith(t, store, Options{Hot: &Hot{}, Passthrough: true})
	name := filepath.Join(mnt, "1.22.8/bin/go")
	for range 3 {
		check(t, filepath.Join(mnt, "1.22.8"), want)
		dropCaches(t)
	}
	st := s.Stats()
	// bin/go and src/run.bash each time; the others are small.
	if st.IO.Mode != "passthrough" || st.IO.Passthrough != 6 || st.IO.Cached == 0 || st.Hot.Backings != 2 || st.Hot.Made != 2 {
		t.Errorf("%+v %+v", st.IO, st.Hot)
	}
	before := s.Stats()
	for range 3 {
		readOne(t, mnt, want, "bin/go")
	}
	if got := since(s, before); got["read"] != 0 || got["open"] != 3 {
		t.Errorf("three times: %v", got)
	}
	eventually(t, "all is closed", func() bool {
		s.through.mu.Lock()
		defer s.through.mu.Unlock()
		return len(s.through.open) == 0
	})

	// Mapped, and longer than it is open.
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 250_001, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if string(m) != want["bin/go"].data {
		t.Error("mapped: other bytes")
	}
	if err := unix.Munmap(m); err != nil {
		t.Error(err)
	}
	if got := since(s, before); got["read"] != 0 {
		t.Errorf("mapped: %v", got)
	}
}

// TestPassthroughExec runs a program from the mount.
func TestPassthroughExec(t *testing.T) {
	echo, err := exec.LookPath("echo")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(echo)
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	add(t, store, "1.22.8", files{"bin/echo": {data: string(b), mode: 0o755}})
	s, mnt := mountWith(t, store, Options{Hot: &Hot{}, Passthrough: true})
	for range 2 {
		if out, err := mountCommand(filepath.Join(mnt, "1.22.8/bin/echo"), "hello").CombinedOutput(); err != nil || string(out) != "hello\n" {
			t.Errorf("%q, %v", out, err)
		}
	}
	if st := s.Stats(); st.Requests["read"] != 0 || st.IO.Passthrough == 0 {
		t.Errorf("%+v", st)
	}
}

// mountCommand runs a program of the own mount by way of another process. A
// process that starts one itself hangs if it stops for its garbage collector
// meanwhile: the kernel suspends the thread until it has asked the mount, which
// is this process.
func mountCommand(args ...string) *exec.Cmd {
	return exec.Command("sh", append([]string{"-c", `exec "$@"`, "sh"}, args...)...)
}

// TestPassthroughEviction has more open than fits. What is open stays, and
// what does not fit is read through the daemon.
func TestPassthroughEviction(t *testing.T) {
	store, want := newStore(t), programs(8)
	add(t, store, "1.22.8", want)
	s, mnt := mountWith(t, store, Options{Hot: &Hot{Size: 2 * programRoom}, Passthrough: true})
	open := func(i int) *os.File {
		f, err := os.Open(filepath.Join(mnt, fmt.Sprintf("1.22.8/bin/p%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	same := func(f *os.File, i int) {
		t.Helper()
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err != nil || string(b) != want[fmt.Sprintf("bin/p%d", i)].data {
			t.Errorf("p%d: %d bytes, %v", i, len(b), err)
		}
	}
	var held []*os.File
	for i := range 4 {
		held = append(held, open(i))
	}
	st := s.Stats()
	if st.IO.Passthrough != 2 || st.IO.Cached != 2 || st.Hot.Bytes > st.Hot.Limit || st.Hot.Evicted != 0 {
		t.Errorf("%+v %+v", st.IO, st.Hot)
	}
	for range 2 {
		for i, f := range held {
			same(f, i)
			again := open(i) // the same way as it is open
			same(again, i)
			again.Close()
		}
		dropCaches(t)
	}
	for _, f := range held {
		f.Close()
	}
	// Closed, they make room for others.
	eventually(t, "all is closed", func() bool {
		s.through.mu.Lock()
		defer s.through.mu.Unlock()
		return len(s.through.open) == 0
	})
	for i := range 8 {
		readOne(t, mnt, want, fmt.Sprintf("bin/p%d", i))
		st := s.Stats()
		if st.Hot.Bytes > st.Hot.Limit || st.Hot.Backings > 2 || st.Hot.Failures > 0 {
			t.Errorf("%+v", st.Hot)
		}
	}
	if st := s.Stats(); st.Hot.Evicted == 0 {
		t.Errorf("%+v", st.Hot)
	}
}

// TestPassthroughTogether opens and closes the same inodes from many readers
// while the layer is too small for them.
func TestPassthroughTogether(t *testing.T) {
	for _, o := range []Options{
		{Hot: &Hot{Size: 3 * programRoom}, Passthrough: true, DecodedCache: 500_000},
		{Hot: &Hot{Size: 3 * programRoom}, DecodedCache: 500_000},
	} {
		t.Run(fmt.Sprint("passthrough ", o.Passthrough), func(t *testing.T) { together(t, o) })
	}
}

// together has 64 readers, reloads, prefetch, warming and a hot layer that is
// too small at once.
func together(t *testing.T, o Options) {
	store, want := newStore(t), programs(6)
	for i := range 200 {
		want[fmt.Sprintf("src/p%d/f%d.go", i%20, i)] = file{data: pseudo(1000+i, 100+i*37), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	o.RunDir, o.Notes = filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "notes")
	s, mnt := mountWith(t, store, o)
	var paths []string
	for path := range want {
		paths = append(paths, path)
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
				if i%3 == 0 {
					path = fmt.Sprintf("bin/p%d", i%6)
				}
				b, err := os.ReadFile(filepath.Join(mnt, "1.22.8", path))
				if err != nil || string(b) != want[path].data {
					t.Errorf("%s: %d bytes, %v", path, len(b), err)
					return
				}
			}
		})
	}
	for i := range 6 {
		name := fmt.Sprintf("1.23.%d", i)
		add(t, store, name, files{"VERSION": {data: name, mode: 0o644}, "bin/p": {data: pseudo(7000+i, 200_000), mode: 0o755}})
		if err := s.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		dropCaches(t)
		a := ask(t, s)
		nothing := func(int64) {}
		if _, err := a.Warm(t.Context(), Warm{All: true}, nothing, nothing); err != nil {
			t.Error(err)
		}
		a.Close()
		if st := s.Stats(); st.Hot.Bytes > st.Hot.Limit {
			t.Errorf("%+v", st.Hot)
		}
		if err := s.saveNotes(); err != nil {
			t.Error(err)
		}
		if i%2 == 1 {
			remove(t, store, name)
		}
	}
	close(stop)
	readers.Wait()
	if st := s.Stats(); st.Damaged+st.Failures+st.ReloadErrors+st.Hot.Failures > 0 || st.Hot.Evicted == 0 {
		t.Errorf("%+v %+v", st, st.Hot)
	}
}

func TestPassthroughRefused(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	mnt := t.TempDir()
	refused := func(o Options, want string) {
		t.Helper()
		s, err := Mount(t.Context(), store, mnt, o)
		if err == nil {
			t.Fatal("mounted", s.Unmount())
		}
		if !errors.Is(err, ErrPassthrough) || !strings.Contains(err.Error(), want) {
			t.Error(err)
		}
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(b), mnt+" ") {
			t.Errorf("it is mounted still, %v", err)
		}
	}
	refused(Options{Passthrough: true}, "there is none")

	// A stacked file system cannot be passed through.
	base := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(base, "merged")
	tmpfsOn(t, filepath.Join(base, "upper"), "mode=700")
	if err := errors.Join(os.Mkdir(filepath.Join(base, "upper/u"), 0o700), os.Mkdir(filepath.Join(base, "upper/w"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("gofs-test", merged, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper/u,workdir=%[1]s/upper/w", base)); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(merged, unix.MNT_DETACH)
	refused(Options{Hot: &Hot{Dir: filepath.Join(merged, "hot")}, Passthrough: true}, "stacked file system")

	// A kernel that does not offer it.
	s, _ := mountWith(t, store, Options{Hot: &Hot{}, Passthrough: true})
	if err := s.probePassthrough(0); !errors.Is(err, ErrPassthrough) || !strings.Contains(err.Error(), "does not know it (6.9 does") {
		t.Error(err)
	}
}

func TestPowerless(t *testing.T) {
	store := newStore(t)
	child(t, "powerless", []string{"GOFS_TEST_STORE=" + store.Dir(), "GOFS_TEST_DIR=" + t.TempDir()}, withoutSysAdmin...)
}

// TestPassthroughDamage opens a file whose blob is damaged: opening works,
// reading is an I/O error.
func TestPassthroughDamage(t *testing.T) {
	store, want := newStore(t), programs(1)
	add(t, store, "1.22.8", want)
	packs, err := filepath.Glob(filepath.Join(store.PackDir(), "*.gofspack"))
	if err != nil || len(packs) == 0 {
		packs, _ = filepath.Glob(filepath.Join(store.PackDir(), "*"))
	}
	for _, p := range packs {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > 50_000 {
			flipBit(t, p, st.Size()/2)
		}
	}
	s, mnt := mountWith(t, store, Options{Hot: &Hot{}, Passthrough: true})
	if b, err := os.ReadFile(filepath.Join(mnt, "1.22.8/bin/p0")); !errors.Is(err, unix.EIO) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	settled(t, s)
	if st := s.Stats(); st.Damaged == 0 || st.Hot.Files != 0 || st.Hot.Failures != 0 || st.Hot.Bytes != 0 {
		t.Errorf("%+v %+v", st, st.Hot)
	}
}
