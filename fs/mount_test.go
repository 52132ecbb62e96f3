package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestContent(t *testing.T) {
	store := newStore(t)
	want := sample()
	add(t, store, "1.22.8", want)
	_, dir := mount(t, store)
	check(t, filepath.Join(dir, "1.22.8"), want)
	check(t, filepath.Join(dir, "latest")+"/.", want)

	if got, want := names(t, dir), []string{"1.22", "1.22.8", "bin", "latest"}; !slices.Equal(got, want) {
		t.Errorf("root: %q, want %q", got, want)
	}
	for link, want := range map[string]string{
		"1.22": "1.22.8", "latest": "1.22.8", "bin/go1.22.8": "../1.22.8/bin/go", "1.22.8/link": "src/fmt/print.go",
	} {
		if got, err := os.Readlink(filepath.Join(dir, link)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", link, got, err, want)
		}
		if st, err := os.Lstat(filepath.Join(dir, link)); err != nil || st.Size() != int64(len(want)) {
			t.Errorf("%s: %v, %v", link, st, err)
		}
	}
	st, err := os.Stat(filepath.Join(dir, "bin/go1.22.8"))
	if err != nil || st.Size() != 250_001 {
		t.Errorf("bin/go1.22.8: %v, %v", st, err)
	}
}

func TestFS(t *testing.T) { testFS(t) }

func TestFSOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	testFS(t)
}

func testFS(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	_, dir := mount(t, store)
	if err := fstest.TestFS(os.DirFS(filepath.Join(dir, "1.22.8")), "VERSION", "bin/go", "src/strings/b.go"); err != nil {
		t.Error(err)
	}
}

func TestSameContentIsOneInode(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	other := sample()
	other["src/fmt/scan.go"] = file{data: "package fmt // new\n", mode: 0o644}
	add(t, store, "1.22.12", other)
	_, dir := mount(t, store)
	ino := func(path string) uint64 {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, path), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	if ino("1.22.8/bin/go") != ino("1.22.12/bin/go") || ino("1.22.8/src/fmt/print.go") != ino("1.22.12/src/strings/same.go") {
		t.Error("equal files have different inodes")
	}
	for _, p := range []string{"", "/src", "/src/fmt", "/src/fmt/scan.go"} {
		if ino("1.22.8"+p) == ino("1.22.12"+p) {
			t.Errorf("%s is one inode", p)
		}
	}
	check(t, filepath.Join(dir, "1.22.12"), other)
}

func TestReadOnly(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	_, dir := mount(t, store)
	at := filepath.Join(dir, "1.22.8")
	for name, err := range map[string]error{
		"create": os.WriteFile(filepath.Join(at, "new"), nil, 0o644),
		"write":  os.WriteFile(filepath.Join(at, "VERSION"), nil, 0o644),
		"mkdir":  os.Mkdir(filepath.Join(dir, "new"), 0o755),
		"remove": os.Remove(filepath.Join(at, "VERSION")),
		"rename": os.Rename(filepath.Join(at, "VERSION"), filepath.Join(at, "v")),
		"chmod":  os.Chmod(filepath.Join(at, "VERSION"), 0o600),
		"link":   os.Symlink("x", filepath.Join(at, "x")),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 || st.Bfree != 0 || st.Files == 0 {
		t.Errorf("statfs: %+v, %v", st, err)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[4] == dir {
			for _, want := range []string{"ro,nosuid,nodev", " fuse.gofs " + store.Dir() + " ", "default_permissions"} {
				if !strings.Contains(line, want) {
					t.Errorf("no %q in %s", want, line)
				}
			}
		}
	}
}

// TestLargeFolder lists a folder that takes many READDIRPLUS, in one go and
// with a seek in the middle.
func TestLargeFolder(t *testing.T) {
	const n = 5000
	store := newStore(t)
	want := files{}
	var sorted []string
	for i := range n {
		name := fmt.Sprintf("file%04d-%s.go", i, strings.Repeat("x", i%40))
		sorted = append(sorted, name)
		want["test/"+name] = file{data: fmt.Sprint(i), mode: 0o644}
	}
	add(t, store, "1.22.8", want)
	_, dir := mount(t, store)
	if got := names(t, filepath.Join(dir, "1.22.8/test")); !slices.Equal(got, sorted) {
		t.Errorf("%d names instead of %d", len(got), n)
	}
	check(t, filepath.Join(dir, "1.22.8"), want)

	d, err := os.Open(filepath.Join(dir, "1.22.8/test"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dirents := func(size int) []string {
		buf := make([]byte, size)
		k, err := unix.ReadDirent(int(d.Fd()), buf)
		if err != nil {
			t.Fatal(err)
		}
		_, _, list := unix.ParseDirent(buf[:k], -1, nil)
		return list
	}
	first := dirents(2000)
	offset, err := d.Seek(0, io.SeekCurrent)
	if err != nil {
		t.Fatal(err)
	}
	second := dirents(30000)
	if _, err := d.Seek(offset, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if again := dirents(30000); !slices.Equal(again, second) || len(again) == 0 {
		t.Errorf("after a seek: %d names, before: %d", len(again), len(second))
	}
	if got := append(first, second...); !slices.Equal(got, sorted[:len(got)]) {
		t.Errorf("in pieces: %.100q", got)
	}
}

// TestSecondTimeIsSilent is what the mount is made for.
func TestSecondTimeIsSilent(t *testing.T) {
	store := newStore(t)
	want := sample()
	add(t, store, "1.22.8", want)
	s, dir := mount(t, store)
	use := func() {
		check(t, filepath.Join(dir, "1.22.8"), want)
		check(t, filepath.Join(dir, "1.22")+"/.", want)
		names(t, dir)
		names(t, filepath.Join(dir, "bin"))
		for _, missing := range []string{"1.22.9", "bin/go1.0", "1.22.8/none", "1.22.8/src/none/x"} {
			if _, err := os.Stat(filepath.Join(dir, missing)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", missing, err)
			}
		}
	}
	use()
	before := s.Stats()
	if before.Requests["read"] == 0 || before.Requests["readdirplus"] == 0 {
		t.Errorf("requests: %v", before.Requests)
	}
	if before.Requests["open"] != 1 || before.Requests["opendir"] != 1 || before.Requests["flush"] != 1 {
		t.Errorf("opens: %v", before.Requests)
	}
	use()
	if got := since(s, before); len(got) > 0 {
		t.Errorf("the second time: %v", got)
	}
}

func TestTwoMountsOfOneStore(t *testing.T) {
	store := newStore(t)
	want := sample()
	add(t, store, "1.22.8", want)
	_, a := mount(t, store)
	_, b := mount(t, store)
	check(t, filepath.Join(a, "1.22.8"), want)
	check(t, filepath.Join(b, "1.22.8"), want)
}

func TestUnmountBusy(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	s, dir := mount(t, store)
	f, err := os.Open(filepath.Join(dir, "1.22.8/VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(); !errors.Is(err, ErrBusy) {
		t.Errorf("busy: %v", err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "go1.22.8\n" {
		t.Errorf("after that: %q, %v", b, err)
	}
	f.Close()
	for range 2 {
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
	}
	s.Wait()
	if list := names(t, dir); len(list) > 0 {
		t.Errorf("unmounted: %q", list)
	}
	if err := s.Reload(t.Context()); err == nil {
		t.Error("a reload after the unmount")
	}
}

func TestUnmountedByOthers(t *testing.T) {
	store := newStore(t)
	s, dir := mount(t, store)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
}

func TestMountErrors(t *testing.T) {
	store := newStore(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		dir  string
		want error
	}{
		{"missing folder", t.Context(), filepath.Join(t.TempDir(), "none"), os.ErrNotExist},
		{"over the store", t.Context(), filepath.Dir(store.Dir()), nil},
		{"cancelled", cancelled, t.TempDir(), context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Mount(test.ctx, store, test.dir, Options{})
			if err == nil {
				t.Error("mounted", s.Unmount())
			} else if test.want != nil && !errors.Is(err, test.want) {
				t.Error(err)
			}
		})
	}
}

func TestMountNumber(t *testing.T) {
	const info = `22 1 0:20 / /proc rw,nosuid - proc proc rw
30 1 0:44 / /mnt/a\040b ro - fuse.gofs /store ro
31 1 0:45 / /mnt/a\040b ro - fuse.gofs /store ro
`
	if d, ok := mountNumber(info, "/mnt/a b"); !ok || d != "0:45" {
		t.Error(d, ok)
	}
	if _, ok := mountNumber(info, "/mnt"); ok {
		t.Error("found what is not there")
	}
}

// TestNothingIsLeft counts descriptors and goroutines after mounts that have
// reloaded.
func TestNothingIsLeft(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	dir := t.TempDir()
	cycle := func(i int) {
		s, err := Mount(t.Context(), store, dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		names(t, dir)
		add(t, store, fmt.Sprintf("1.23.%d", i), files{"VERSION": {data: fmt.Sprint(i), mode: 0o644}})
		if err := s.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, filepath.Join(dir, "1.22.8"), sample())
		if err := s.Unmount(); err != nil {
			t.Fatal(err)
		}
		s.Wait()
	}
	cycle(0) // what the runtime and the kernel keep is there now
	descriptors, goroutines := len(names(t, "/proc/self/fd")), runtime.NumGoroutine()
	for i := range 5 {
		cycle(i + 1)
	}
	eventually(t, "descriptors and goroutines are gone", func() bool {
		return len(names(t, "/proc/self/fd")) <= descriptors && runtime.NumGoroutine() <= goroutines
	})
}
