package durable

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gofs/index"
)

// Eight processes at a time import, remove, collect, compact and verify, while
// four mounts are read from and compared. Nothing fails that is not said to be
// able to, no byte is wrong, and nothing is left behind. GOFS_SOAK is how
// long, in seconds.
func TestSoak(t *testing.T) {
	dir := memory(t)
	store := filepath.Join(dir, "store")
	versions := []string{"1.21.0", "1.21.1", "1.22.0", "1.22.1", "1.23.0", "1.24.0"}
	trees := treesOf(t, versions...)
	tarballs := map[string]string{}
	for _, v := range versions {
		tarballs[v] = tarball(t, v)
	}
	run(t, store, "import", "--quiet", "--verify=off", tarballs["1.22.0"], tarballs["1.23.0"])
	var mounts []*mounted
	for i := range 4 {
		mounts = append(mounts, mount(t, store, filepath.Join(dir, fmt.Sprint("m", i))))
	}
	before := make([][]string, len(mounts))
	for i, m := range mounts {
		if _, err := os.ReadFile(filepath.Join(m.dir, "1.22.0/VERSION")); err != nil {
			t.Fatal(err)
		}
		// A mount that looks at its store or writes its notes has that open.
		before[i], _ = m.descriptors(t)
		for range 10 {
			time.Sleep(10 * time.Millisecond)
			if now, _ := m.descriptors(t); len(now) < len(before[i]) {
				before[i] = now
			}
		}
	}

	end := time.Now().Add(time.Duration(number("GOFS_SOAK", 15)) * time.Second)
	var wg sync.WaitGroup
	var commands, read, gone atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			for time.Now().Before(end) {
				v := versions[r.IntN(len(versions))]
				args, may := []string{"import", "--quiet", "--verify=off", tarballs[v]}, ""
				switch n := r.IntN(20); {
				case n < 6:
					args, may = []string{"rm", "--quiet", v}, "is not in the store"
				case n < 9:
					args = []string{"gc", "--quiet"}
				case n < 11:
					args = []string{"compact", "--quiet", "--level", "1"}
				case n < 12:
					args = []string{"verify", "--quiet"}
				}
				out, err := gofs(t, store, args...).CombinedOutput()
				if err != nil && (may == "" || !bytes.Contains(out, []byte(may))) {
					t.Errorf("gofs %v: %v: %s", args[:2], err, out)
				}
				commands.Add(1)
			}
		})
	}
	for i, m := range mounts {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 4))
			for time.Now().Before(end) {
				n, whole, err := m.compare(versions[r.IntN(len(versions))])
				if err != nil {
					t.Error(err)
				}
				if !whole {
					gone.Add(1)
				}
				read.Add(int64(n))
			}
		})
	}
	wg.Wait()
	t.Logf("%d commands, %d files read and compared, %d times a version was not there or went away", commands.Load(), read.Load(), gone.Load())
	if read.Load() == 0 {
		t.Error("nothing was read")
	}

	for i, m := range mounts {
		// Packs of removed releases stay open for ten minutes, for those who
		// are in them. It may still be looking at what the last command did.
		now, packs := m.descriptors(t)
		for wait := time.Now().Add(30 * time.Second); len(now) > len(before[i]) && time.Now().Before(wait); {
			time.Sleep(50 * time.Millisecond)
			now, packs = m.descriptors(t)
		}
		if len(now) > len(before[i]) {
			t.Errorf("mount %d has %d descriptors beside packs open: %q, before %d: %q", i, len(now), now, len(before[i]), before[i])
		}
		t.Logf("mount %d has %d packs open", i, packs)
	}
	for _, m := range mounts {
		m.end(t)
	}
	run(t, store, "gc", "--quiet")
	s, err := index.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Versions()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range list {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	w := &want{trees: trees, sets: [][]string{names}}
	if _, err := w.check(t, store, false); err != nil {
		t.Error(err)
	}
	if err := leftovers(s); err != nil {
		t.Error(err)
	}
}

// mounted is a mount and the process that serves it.
type mounted struct {
	dir  string
	cmd  *exec.Cmd
	text *bytes.Buffer // what it prints to standard error
}

func mount(t *testing.T, store, dir string) *mounted {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &mounted{dir, gofs(t, store, "mount", "--foreground", dir), &bytes.Buffer{}}
	m.cmd.Stderr = m.text
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.end(t) })
	if line, err := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(line, "mounted ") {
		t.Fatalf("mount says %q, %v", line, err)
	}
	return m
}

// end unmounts; it may be called twice.
func (m *mounted) end(t *testing.T) {
	t.Helper()
	if m.cmd.ProcessState != nil {
		return
	}
	if out, err := gofs(t, m.dir, "umount", m.dir).CombinedOutput(); err != nil {
		t.Errorf("umount: %v: %s", err, out)
		_ = m.cmd.Process.Kill()
	}
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("mount: %v", err)
	}
	for line := range strings.Lines(m.text.String()) {
		if strings.Contains(line, "ERROR") || strings.Contains(line, "panic") {
			t.Errorf("mount says %s", line)
		}
	}
}

// descriptors says what the process has open beside packs, and how many packs.
func (m *mounted) descriptors(t *testing.T) (others []string, packs int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case err != nil:
		case strings.Contains(to, "/packs/"):
			packs++
		default:
			others = append(others, to)
		}
	}
	return others, packs
}

// compare reads a version and says how many files were right. A version may
// not be there, or go away meanwhile; but while its folder is the same, nothing
// in it may be missing.
func (m *mounted) compare(version string) (n int, whole bool, err error) {
	root := filepath.Join(m.dir, version)
	before, err := os.Stat(root)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	for path, want := range contents(version) {
		b, err := os.ReadFile(filepath.Join(root, path))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESTALE) {
			after, serr := os.Stat(root)
			if serr == nil && os.SameFile(before, after) {
				return n, false, fmt.Errorf("%s is missing in a version that is there: %w", path, err)
			}
			return n, false, nil
		}
		if err != nil {
			return n, false, err
		}
		if string(b) != want {
			return n, false, fmt.Errorf("%s/%s has wrong bytes", version, path)
		}
		n++
	}
	return n, true, nil
}
