package durable

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gofs/internal/recordfs"
)

// gc waits for an import, an import for gc: neither takes what the other has.
func TestCollectAndImport(t *testing.T) {
	store := filepath.Join(memory(t), "store")
	run(t, store, "import", "--quiet", "--verify=off", tarball(t, "1.22.0"))
	b, err := os.ReadFile(tarball(t, "1.22.1"))
	if err != nil {
		t.Fatal(err)
	}
	// The import has the lock, and half of its archive.
	imp := gofs(t, store, "import", "--quiet", "--verify=off", "-")
	in, err := imp.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := imp.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(b[:len(b)/2]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, store, fmt.Sprintf("gofs import, process %d\n", imp.Process.Pid))
	if out, err := gofs(t, store, "gc", "--no-wait").CombinedOutput(); err == nil || !strings.Contains(string(out), "gofs import") {
		t.Errorf("gc meanwhile: %v: %s", err, out)
	}
	waiting := gofs(t, store, "gc", "--quiet")
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(b[len(b)/2:]); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := imp.Wait(); err != nil {
		t.Error(err)
	}
	if err := waiting.Wait(); err != nil {
		t.Error(err)
	}
	w := &want{trees: treesOf(t, "1.22.0", "1.22.1"), sets: [][]string{{"1.22.0", "1.22.1"}}}
	if _, err := w.check(t, store, true); err != nil {
		t.Error(err)
	}
}

// waitFor returns when the lock file names its holder, a process of this test.
func waitFor(t *testing.T, store, holder string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if b, _ := os.ReadFile(filepath.Join(store, "lock")); string(b) == holder {
			return
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("%s does not take the lock", holder)
		}
	}
}

// While gc stands still at any of its operations after the commit, those who
// come read what is there, and an import waits.
func TestReadWhileCollecting(t *testing.T) {
	f, dir := record(t, recordfs.Options{})
	store := filepath.Join(dir, "store")
	a, b, c := tarball(t, "1.22.0"), tarball(t, "1.22.1"), tarball(t, "1.23.0")
	run(t, store, "import", "--quiet", "--verify=off", a, b)
	run(t, store, "rm", "--quiet", "1.22.0")
	before := f.Disk()
	stopped := 0
	for at := 0; ; at++ {
		f.Reset(before)
		reached, free := make(chan struct{}), make(chan struct{})
		// Other processes' operations come after gc's have stopped.
		removals := 0
		f.Before(func(_ int, o *recordfs.Op) unix.Errno {
			if o.Kind == recordfs.Remove && strings.HasSuffix(o.Name, ".pack") || o.Kind == recordfs.SyncDir {
				if removals++; removals == at+1 {
					close(reached)
					f.Wait(free)
				}
			}
			return 0
		})
		gc := gofs(t, store, "gc", "--quiet")
		if err := gc.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- gc.Wait() }()
		select {
		case <-reached:
		case err := <-done:
			f.Before(nil)
			if err != nil {
				t.Fatal(err)
			}
			if stopped < 2 {
				t.Errorf("gc was stopped %d times only", stopped)
			}
			return
		}
		stopped++
		// The kernel keeps the folder of the packs locked meanwhile. To see how
		// large the store is, for how much memory is due, would be to wait.
		verify := gofs(t, store, "verify", "--quiet")
		verify.Env = append(verify.Env, "GOMEMLIMIT=512MiB")
		if out, err := verify.CombinedOutput(); err != nil {
			t.Errorf("verify meanwhile: %v: %s", err, out)
		}
		if out, err := gofs(t, store, "import", "--no-wait", "--verify=off", c).CombinedOutput(); err == nil || !strings.Contains(string(out), "gofs gc") {
			t.Errorf("import meanwhile: %v: %s", err, out)
		}
		waiting := gofs(t, store, "import", "--quiet", "--verify=off", c)
		if err := waiting.Start(); err != nil {
			t.Fatal(err)
		}
		close(free)
		if err := <-done; err != nil {
			t.Errorf("gc: %v", err)
		}
		if err := waiting.Wait(); err != nil {
			t.Errorf("import: %v", err)
		}
		run(t, store, "verify", "--quiet")
	}
}

// A mount reads on what gc removes: what is open, what it has shown, and what
// is in the releases that stay.
func TestCollectUnderMount(t *testing.T) {
	dir := memory(t)
	store := filepath.Join(dir, "store")
	a, b := tarball(t, "1.22.0"), tarball(t, "1.22.1")
	run(t, store, "import", "--quiet", "--verify=off", a, b)
	m := mount(t, store, filepath.Join(dir, "m"))
	f, err := os.Open(filepath.Join(m.dir, "1.22.0/lib/table"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := os.Open(filepath.Join(m.dir, "1.22.0"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	run(t, store, "rm", "--quiet", "1.22.0")
	run(t, store, "gc", "--quiet")
	if got, err := io.ReadAll(f); err != nil || string(got) != contents("1.22.0")["lib/table"] {
		t.Errorf("what was open: %d bytes, %v", len(got), err)
	}
	// By the folder that is still open, a file that nobody has read yet.
	fd, err := unix.Openat(int(root.Fd()), "src/p0/f0.go", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	g := os.NewFile(uintptr(fd), "f0.go")
	defer g.Close()
	if got, err := io.ReadAll(g); err != nil || string(got) != contents("1.22.0")["src/p0/f0.go"] {
		t.Errorf("in a folder that was open: %q, %v", got, err)
	}
	if _, whole, err := m.compare("1.22.1"); err != nil || !whole {
		t.Errorf("the release that stays: %v, %v", whole, err)
	}
	run(t, store, "compact", "--quiet", "--level", "1")
	if _, whole, err := m.compare("1.22.1"); err != nil || !whole {
		t.Errorf("after compact: %v, %v", whole, err)
	}
	f.Close()
	g.Close()
	root.Close()
	m.end(t)
	// And who mounts after gc sees what is there then.
	again := mount(t, store, filepath.Join(dir, "again"))
	if _, whole, err := again.compare("1.22.1"); err != nil || !whole {
		t.Errorf("mounted after gc: %v, %v", whole, err)
	}
	again.end(t)
}
