package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gofs/index"
)

// Variables that tell the serving process of a test what to do, and files.
const (
	envStore = "GOFS_TEST_STORE"
	envGate  = "GOFS_TEST_GATE"  // while this file is there it does not begin
	envCrash = "GOFS_TEST_CRASH" // while this file is there it dies once it serves
	envOther = "GOFS_TEST_OTHER" // while this file is there it wants another INIT
	envPID   = "GOFS_TEST_PID"   // it writes its number there once it serves
	envMount = "GOFS_TEST_DIR"
	envHot   = "GOFS_TEST_HOT" // set: passthrough
)

// serveChild is the serving process.
func serveChild() error {
	for exists(os.Getenv(envGate)) {
		time.Sleep(time.Millisecond)
	}
	d, err := Inherit()
	if err != nil {
		return err
	}
	if exists(os.Getenv(envOther)) && d.Answer != nil {
		d.Answer[len(d.Answer)-1] ^= 1
	}
	var s *Server
	store, err := index.Open(os.Getenv(envStore))
	if err == nil {
		s, err = Serve(context.Background(), store, d, supervisedOptions())
	}
	if err != nil {
		if d.Fail(err) {
			os.Exit(1)
		}
		return err
	}
	name := os.Getenv(envPID)
	if err := errors.Join(os.WriteFile(name+"-", []byte(fmt.Sprint(os.Getpid())), 0o600), os.Rename(name+"-", name)); err != nil {
		return err
	}
	if exists(os.Getenv(envCrash)) {
		return unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	s.Wait()
	return nil
}

func supervisedOptions() Options {
	o := Options{Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if os.Getenv(envHot) != "" {
		o.Hot, o.Passthrough = &Hot{Size: 8 << 20}, true
	}
	return o
}

// kept is a supervised mount.
type kept struct {
	*Supervisor
	t   *testing.T
	mnt string
	log logBuffer
}

func superviseStore(t *testing.T, store *index.Store, how Supervision) *kept {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("GOFS_TEST_CHILD", "serve")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // it would be a second a process
	t.Setenv(envStore, store.Dir())
	for _, name := range []string{envGate, envCrash, envOther, envPID} {
		t.Setenv(name, filepath.Join(dir, name))
	}
	k := &kept{t: t, mnt: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(k.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	o := supervisedOptions()
	o.Log = k.log.logger()
	s, err := Supervise(t.Context(), store, k.mnt, o, how)
	if err != nil {
		t.Fatal(err)
	}
	k.Supervisor = s
	// The first close is answered ENOSYS, the others ask nobody. Else the
	// process that is forked to serve would ask, for files that this one has.
	fd, err := unix.Open(k.mnt+"/1.22.8/VERSION", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(fd)
	}
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(k.mnt, unix.MNT_DETACH) // a test may have
		_ = s.Wait()
		if t.Failed() {
			t.Log(k.log.String())
		}
	})
	return k
}

// serving waits for another process than before to serve.
func (k *kept) serving(before int) (pid int) {
	k.t.Helper()
	eventually(k.t, "another process serves", func() bool {
		b, err := os.ReadFile(os.Getenv(envPID))
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(b), &pid)
		return err == nil && pid != before
	})
	return pid
}

func (k *kept) kill(pid int) {
	k.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		k.t.Fatal(err)
	}
}

// file makes one of the files that steer the serving process.
func (k *kept) file(env string) (remove func()) {
	k.t.Helper()
	name := os.Getenv(env)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		k.t.Fatal(err)
	}
	return func() { _ = os.Remove(name) }
}

// reader reads files of a release over and over, past the page cache, and
// names that are new to the kernel. It counts I/O errors and stops at others.
func reader(ctx context.Context, seed uint64, dir string, want files, failed *atomic.Int64) error {
	r := rand.New(rand.NewPCG(seed, seed))
	var paths []string
	for path, f := range want {
		if f.target == "" {
			paths = append(paths, path)
		}
	}
	for n := 0; ctx.Err() == nil; n++ {
		path := paths[r.IntN(len(paths))]
		b, err := readPast(filepath.Join(dir, path), len(want[path].data))
		if err == nil && !bytes.Equal(b, []byte(want[path].data)) {
			return fmt.Errorf("%s: wrong bytes", path)
		}
		if err == nil {
			_, err = os.Stat(filepath.Join(dir, fmt.Sprintf("no-%d-%d", seed, n)))
		}
		switch {
		case errors.Is(err, unix.EIO):
			failed.Add(1)
		case !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("%s, or a name that is not there: %w", path, err)
		}
	}
	return nil
}

// readPast reads a file past the page cache.
func readPast(path string, size int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	b := make([]byte, size+1)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

// readChild are eight readers. They are no part of the process that is the
// supervisor, which must not touch its mount.
func readChild() error {
	ctx, stop := context.WithCancelCause(context.Background())
	var readers sync.WaitGroup
	var failed atomic.Int64
	for i := range 8 {
		readers.Go(func() {
			if err := reader(ctx, uint64(i), os.Getenv(envMount), sample(), &failed); err != nil {
				stop(err)
			}
		})
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is closed
	stop(nil)
	readers.Wait()
	if err := context.Cause(ctx); err != context.Canceled {
		return err
	}
	_, err := fmt.Println(failed.Load())
	return err
}

// TestKill kills the serving process again and again, each just when it began
// to serve, while others read. Nobody gets a wrong byte or an error, or hangs.
func TestKill(t *testing.T) {
	kills := 300
	if testing.Short() {
		kills = 15
	}
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	k := superviseStore(t, store, Supervision{Crashes: kills + 1})
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GOFS_TEST_CHILD=read", envMount+"="+filepath.Join(k.mnt, "1.22.8"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := k.serving(0)
	for range kills {
		k.kill(pid)
		pid = k.serving(pid)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error("readers:", err)
	}
	var failed int
	if _, err := fmt.Sscan(out.String(), &failed); err != nil || failed > 0 {
		t.Errorf("%d I/O errors, %v", failed, err)
	}
	t.Logf("%d I/O errors in %d kills", failed, kills)
	check(t, filepath.Join(k.mnt, "1.22.8"), sample())
	log := k.log.String()
	if n := strings.Count(log, "the next one starts"); n != kills {
		t.Errorf("%d restarts after %d kills", n, kills)
	}
	if strings.Contains(log, "mounted anew") {
		t.Error("it was mounted anew")
	}
}

// TestChangeMeanwhile changes the store while nobody serves: what the kernel
// has cached must not stay.
func TestChangeMeanwhile(t *testing.T) {
	store, want := newStore(t), sample()
	add(t, store, "1.22.8", want)
	add(t, store, "1.21.1", files{"VERSION": {data: "old", mode: 0o644}})
	k := superviseStore(t, store, Supervision{})
	pid := k.serving(0)
	if got := names(t, k.mnt); len(got) != 6 {
		t.Fatal(got)
	}
	if exists(filepath.Join(k.mnt, "1.23.3")) || exists(filepath.Join(k.mnt, "1.21", "x")) {
		t.Fatal("is there")
	}
	open := k.file(envGate)
	k.kill(pid)
	remove(t, store, "1.21.1")
	add(t, store, "1.23.3", files{"VERSION": {data: "new", mode: 0o644}})
	waits := make(chan error, 1)
	go func() {
		// A Go file would be polled, from within the runtime.
		var st unix.Stat_t
		waits <- unix.Stat(filepath.Join(k.mnt, "1.22.8", "src", "none"), &st)
	}()
	open()
	k.serving(pid)
	if err := <-waits; !errors.Is(err, unix.ENOENT) {
		t.Errorf("who waited meanwhile: %v", err)
	}
	if got, err := os.Readlink(filepath.Join(k.mnt, "latest")); got != "1.23.3" {
		t.Error(got, err)
	}
	check(t, filepath.Join(k.mnt, "1.23.3"), files{"VERSION": {data: "new", mode: 0o644}})
	check(t, filepath.Join(k.mnt, "1.22.8"), want)
	for _, gone := range []string{"1.21.1", "1.21", "bin/go1.21.1"} {
		if exists(filepath.Join(k.mnt, gone)) {
			t.Error(gone, "is there still")
		}
	}
	if got := names(t, k.mnt); strings.Join(got, " ") != "1.22 1.22.8 1.23 1.23.3 bin latest" {
		t.Error(got)
	}
}

// TestCrashLoop gives a mount up whose process dies again and again.
func TestCrashLoop(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	k := superviseStore(t, store, Supervision{GoneWait: time.Minute})
	pid := k.serving(0)
	k.file(envCrash)
	k.kill(pid)
	err := k.Wait()
	if !errors.Is(err, ErrCrashes) || !strings.Contains(err.Error(), "5 times in") || !strings.Contains(err.Error(), "signal: killed; "+k.mnt+" is unmounted") {
		t.Error(err)
	}
	if got := names(t, k.mnt); len(got) != 0 {
		t.Error(got)
	}
}

// TestMountAnew serves again where the mount cannot be taken over; open files
// give errors, and nobody hangs.
func TestMountAnew(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, k *kept, store *index.Store, pid int)
	}{
		{"another INIT", func(t *testing.T, k *kept, _ *index.Store, pid int) {
			remove := k.file(envOther)
			defer remove()
			k.kill(pid)
			// The first finds that it cannot, the second serves.
			k.serving(pid)
		}},
		{"another store", func(t *testing.T, k *kept, store *index.Store, pid int) {
			open := k.file(envGate)
			k.kill(pid)
			other := newStore(t)
			add(t, other, "1.22.8", sample())
			if err := errors.Join(os.RemoveAll(store.Dir()), os.Rename(other.Dir(), store.Dir())); err != nil {
				t.Fatal(err)
			}
			open()
			k.serving(pid)
		}},
		{"aborted", func(t *testing.T, k *kept, _ *index.Store, pid int) {
			abort(t, k.device.Number)
			k.serving(pid)
		}},
		{"passthrough", func(t *testing.T, k *kept, _ *index.Store, pid int) {
			k.kill(pid)
			k.serving(pid)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			store, want := newStore(t), sample()
			add(t, store, "1.21.1", files{"VERSION": {data: "old", mode: 0o644}})
			add(t, store, "1.22.8", want)
			if test.name == "passthrough" {
				t.Setenv(envHot, "yes")
			}
			k := superviseStore(t, store, Supervision{})
			pid := k.serving(0)
			held, err := unix.Open(filepath.Join(k.mnt, "1.22.8", "src/strings/a.go"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(held)
			test.do(t, k, store, pid)
			check(t, filepath.Join(k.mnt, "1.22.8"), want)
			if _, err := unix.Pread(held, make([]byte, 10), 0); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("an open file: %v", err)
			}
			if !strings.Contains(k.log.String(), "mounted anew") {
				t.Error("the log does not say so")
			}
		})
	}
}

// abort ends a connection behind the back of everybody.
func abort(t *testing.T, number string) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "fusectl", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	_, minor, _ := strings.Cut(number, ":")
	if err := os.WriteFile(filepath.Join(dir, minor, "abort"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestEnd ends supervised mounts in order.
func TestEnd(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	t.Run("unmounted", func(t *testing.T) {
		k := superviseStore(t, store, Supervision{})
		if err := errors.Join(unix.Unmount(k.mnt, 0), k.Wait()); err != nil {
			t.Error(err)
		}
	})
	t.Run("detached", func(t *testing.T) {
		k := superviseStore(t, store, Supervision{})
		pid := k.serving(0)
		held, err := unix.Open(filepath.Join(k.mnt, "1.22.8/src/strings/a.go"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(k.mnt, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		// Its users are served on, by the next process too.
		k.kill(pid)
		k.serving(pid)
		b := make([]byte, 10)
		if _, err := unix.Pread(held, b, 0); err != nil || string(b) != sample()["src/strings/a.go"].data[:10] {
			t.Errorf("%q, %v", b, err)
		}
		if err := errors.Join(unix.Close(held), k.Wait()); err != nil {
			t.Error(err)
		}
	})
	t.Run("told while nobody serves", func(t *testing.T) {
		k := superviseStore(t, store, Supervision{})
		pid := k.serving(0)
		k.file(envGate)
		k.kill(pid)
		k.Signal(syscall.SIGTERM) // ends who waits at the gate
		if err := k.Wait(); err == nil || !strings.Contains(err.Error(), "ended while in use") {
			t.Error(err)
		}
		if got := names(t, k.mnt); len(got) != 0 {
			t.Error(got)
		}
	})
}

// TestFirstFails reports what keeps the first process from serving, and
// leaves no mount.
func TestFirstFails(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	for _, test := range []struct{ child, store, want string }{
		{"serve", t.TempDir(), index.ErrNoStore.Error()},
		{"stumble", store.Dir(), "without a word (exit status 1)"},
	} {
		dir := t.TempDir()
		t.Setenv("GOFS_TEST_CHILD", test.child)
		t.Setenv(envStore, test.store)
		_, err := Supervise(t.Context(), store, dir, Options{}, Supervision{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.child, err)
		}
		if got := names(t, dir); len(got) != 0 {
			t.Error(got)
		}
	}
}

// TestHandover distrusts what another gofs hands over.
func TestHandover(t *testing.T) {
	init := make([]byte, 104)
	copy(init, "\x68\x00\x00\x00\x1a\x00\x00\x00")
	sound := func() *Device {
		return &Device{deviceState: deviceState{Init: bytes.Clone(init)}, past: past{Cookies: map[string]uint64{"1/a": 3, "2/b": 4}}}
	}
	if err := sound().checkHandover(handoverVersion); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Device) int{
		"version":       func(*Device) int { return handoverVersion + 1 },
		"no INIT":       func(d *Device) int { d.Init = nil; return handoverVersion },
		"short INIT":    func(d *Device) int { d.Init = d.Init[:50]; return handoverVersion },
		"another":       func(d *Device) int { d.Init[4]++; return handoverVersion },
		"small offset":  func(d *Device) int { d.past.Cookies["1/a"] = 2; return handoverVersion },
		"large offset":  func(d *Device) int { d.past.Cookies["1/a"] = 5; return handoverVersion },
		"offset of two": func(d *Device) int { d.past.Cookies["1/a"] = 4; return handoverVersion },
	} {
		d := sound()
		if err := d.checkHandover(spoil(d)); !errors.Is(err, ErrTakeover) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenProgram refuses programs that others could have written.
func TestOpenProgram(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, mode os.FileMode, uid int) string {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(name, nil, mode), os.Chmod(name, mode), os.Chown(name, uid, -1)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := make("good", 0o755, os.Geteuid())
	f, err := openProgram(good)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		make("group", 0o775, 0), make("all", 0o757, 0), make("data", 0o644, 0), make("nobody", 0o755, nobody),
		link, dir, filepath.Join(dir, "none"), "/dev/null",
	} {
		if _, err := openProgram(name); err == nil {
			t.Error(name, "is taken")
		}
	}
}
