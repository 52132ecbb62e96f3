package importer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gofs/index"
)

// Memory does not grow with the input, nor beyond its bound with many
// processors.
func TestMemory(t *testing.T) {
	for _, test := range []struct{ what, procs string }{{"huge", ""}, {"large", "32"}} {
		s := newStore(t)
		env := []string{"GOFS_TEST_IMPORT=" + test.what, "GOFS_TEST_STORE=" + s.Dir(), "GOMEMLIMIT=off", "GOGC=100"}
		if test.procs != "" {
			env = append(env, "GOMAXPROCS="+test.procs)
		}
		out, err := command(t, env...).Output()
		if err != nil {
			t.Fatal(err)
		}
		peak, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(string(out), "begin\n")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s stream, GOMAXPROCS=%s: peak of %d MiB", test.what, test.procs, peak>>20)
		if peak > 256<<20 {
			t.Errorf("%s stream, GOMAXPROCS=%s: peak of %d MiB", test.what, test.procs, peak>>20)
		}
		list, err := s.Versions()
		if err != nil || len(list) != 1 {
			t.Errorf("%d versions, %v", len(list), err)
		}
		if err := os.RemoveAll(s.Dir()); err != nil {
			t.Error(err)
		}
	}
}

// runChild imports into s and is killed after some time, or never for 0. It
// returns how long the child worked and whether it was done.
func runChild(t *testing.T, s *index.Store, kill time.Duration) (took time.Duration, done bool) {
	t.Helper()
	cmd := command(t, "GOFS_TEST_IMPORT=some", "GOFS_TEST_STORE="+s.Dir())
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
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	if kill == 0 && err != nil {
		t.Fatal(err)
	}
	return time.Since(begin), err == nil
}

// An import that is killed leaves what was there, and works when repeated.
func TestKilled(t *testing.T) {
	points := 20
	if n, err := strconv.Atoi(os.Getenv("GOFS_KILL_POINTS")); err == nil {
		points = n
	}
	s := newStore(t)
	old := full("1.22.8")
	imported(t, s, old, Options{})
	whole, _ := runChild(t, s, 0)
	killed := 0
	for i := range points {
		change(t, s, "1.23.3")
		// The last point lies a little behind the end.
		_, done := runChild(t, s, whole*time.Duration(i+1)/time.Duration(points)+time.Millisecond)
		if !done {
			killed++
		}
		list, err := s.Versions()
		if err != nil || len(list) != 1 && (len(list) != 2 || list[1].Name != "1.23.3") || done && len(list) != 2 {
			t.Fatalf("point %d: versions %v, %v", i, list, err)
		}
		verified(t, s)
		if i%5 == 0 {
			checkContents(t, s, "1.22.8", old)
			runChild(t, s, 0)
			verified(t, s)
			if r := collect(t, s); r.Rewritten+r.Removed != 0 {
				t.Errorf("point %d: gc %+v", i, r)
			}
		}
	}
	if killed < points/2 {
		t.Errorf("%d of %d imports were killed", killed, points)
	}
	change(t, s, "1.23.3")
	if packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*")); err != nil || len(packs) != 1 {
		t.Errorf("left behind: %v, %v", packs, err)
	}
	verified(t, s)
}

// change removes a version, if it is there, with what only it needs.
func change(t *testing.T, s *index.Store, name string) {
	t.Helper()
	w, err := s.Lock(t.Context(), index.LockOptions{Verb: "rm", NoWait: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(index.Change{Remove: []string{name}}); err != nil && !errors.Is(err, index.ErrNoVersion) {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	collect(t, s)
}

func collect(t *testing.T, s *index.Store) *index.GCResult {
	t.Helper()
	w, err := s.Lock(t.Context(), index.LockOptions{Verb: "gc", NoWait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r, err := w.GC(t.Context(), index.GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A disk may be full at any point, the commit's among them.
func TestFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatalf("mount a tmpfs, as root: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("a file is still open: %v", err)
		}
	}()
	s, err := index.Create(t.Context(), filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	small := func(version string) *fake {
		f := release(version, index.HostPlatform())
		for i := range 700 {
			f.add(fmt.Sprintf("src/f%d", i), string(noise(byte(i), 100))+strconv.Itoa(i)+version)
		}
		return f
	}
	imported(t, s, small("1.22.8"), Options{})
	full := 0
	for free := int64(0); ; free += 12 << 10 {
		fillDisk(t, dir, free)
		if _, err := Import(t.Context(), s, small("1.23.3"), Options{}); err == nil {
			break
		} else if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%d bytes free: %q", free, err)
		}
		full++
		// As it was: the database may have grown, with nothing in it.
		list, err := s.Versions()
		if err != nil || len(list) != 1 {
			t.Fatalf("%d bytes free: %d versions, %v", free, len(list), err)
		}
		if packs, err := os.ReadDir(s.PackDir()); err != nil || len(packs) != 1 {
			t.Errorf("%d bytes free: %d packs, %v", free, len(packs), err)
		}
		if left, err := filepath.Glob(filepath.Join(s.Dir(), "*.new")); err != nil || left != nil {
			t.Errorf("%d bytes free: left behind %v, %v", free, left, err)
		}
		verified(t, s)
	}
	if full < 5 {
		t.Errorf("the disk was full %d times only", full)
	}
	checkContents(t, s, "1.23.3", small("1.23.3"))
	verified(t, s)
}

// fillDisk leaves so much room on the disk of dir.
func fillDisk(t *testing.T, dir string, free int64) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, make([]byte, max(int64(st.Bavail)*st.Bsize-free, 0)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkImport(b *testing.B) {
	f := full("1.23.3")
	f.sequential = true
	f.addStream("words", 32<<20, func() io.Reader { return gibberish(2, 32<<20, true) })
	f.addStream("noise", 32<<20, func() io.Reader { return gibberish(1, 32<<20, false) })
	for b.Loop() {
		b.StopTimer()
		s := newStore(b)
		b.StartTimer()
		r := imported(b, s, f, Options{})
		b.SetBytes(r.Bytes)
	}
}
