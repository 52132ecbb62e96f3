// Package durable tests what a store is after things went wrong: processes
// killed, machines crashed, disks that fail or are full, and much at once. It
// runs the program that users get, on a file system that records or fails what
// it is asked to do.
//
// The tests are short by default. GOFS_CRASH=all, GOFS_KILL_POINTS,
// GOFS_FAIL=all and GOFS_SOAK make the long forms, for which the Makefile has targets.
package durable

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
	"gofs/internal/recordfs"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(dir))
	}
	os.Exit(code)
}

// binary is the program.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gofs-durable-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "gofs")
	cmd := exec.Command("go", "build", "-o", file, "gofs/cmd/gofs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building gofs: %w\n%s", err, out)
	}
	return file, nil
})

// gofs is a command on a store.
func gofs(t testing.TB, store string, args ...string) *exec.Cmd {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file, args...)
	cmd.Env = append(os.Environ(), "GOFS_STORE="+store, "GOPROXY=off", "GOSUMDB=off", "XDG_CACHE_HOME="+filepath.Dir(store))
	return cmd
}

// run runs a command that must succeed.
func run(t testing.TB, store string, args ...string) string {
	t.Helper()
	out, err := gofs(t, store, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("gofs %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// contents is a small release: path to bytes. Two versions share most of it.
func contents(version string) map[string]string {
	c := map[string]string{
		"VERSION": "go" + version + "\ntime 2024-11-06T19:42:05Z\n", "bin/go": "program " + version,
		"pkg/tool/linux_amd64/compile": "compile " + version,
		"lib/table":                    strings.Repeat("a table that is larger than a small file ", 13_500) + version,
	}
	for i := range 40 {
		text := fmt.Sprintf("package p%d\n\nfunc F%d() {}\n", i%5, i)
		if i%4 == 0 {
			text += strings.Repeat("// "+version+strconv.Itoa(i)+"\n", 20)
		}
		c[fmt.Sprintf("src/p%d/f%d.go", i%5, i)] = text
	}
	return c
}

// tarball writes a release as an archive and returns its path.
func tarball(t testing.TB, version string) string {
	t.Helper()
	c := contents(version)
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	for _, path := range slices.Sorted(maps.Keys(c)) {
		h := &tar.Header{Name: "go/" + path, Mode: 0o644, Size: int64(len(c[path])), ModTime: time.Unix(1_700_000_000, 0), Typeflag: tar.TypeReg}
		if strings.HasPrefix(path, "bin/") || strings.HasPrefix(path, "pkg/tool") {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(c[path])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "go"+version+".linux-amd64.tar.gz")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// memory makes a folder in memory, where nothing waits for a disk.
func memory(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2g"); err != nil {
		t.Fatalf("mount a tmpfs, as root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("a file is still open: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// record mounts a file system that records.
func record(t testing.TB, o recordfs.Options) (*recordfs.FS, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := recordfs.Mount(dir, o)
	if err != nil {
		t.Fatalf("mount, as root: %v", err)
	}
	t.Cleanup(func() {
		if err := f.Unmount(); err != nil {
			t.Error(err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return f, dir
}

// step is a piece of work on a store and what the store has after it.
type step struct {
	args  []string
	after []string // versions
	lost  bool     // the index is not there before it, and rebuilt by it
}

func (s *step) String() string { return strings.Join(s.args[:min(len(s.args), 2)], " ") }

// want is what may be in a store.
type want struct {
	none  bool       // no store
	sets  [][]string // of versions, each sorted
	trees map[string]blobstore.ID
	lost  bool // the index may be lost
}

// check opens the store in dir and says what is wrong with it. collect has gc
// run, too. It returns the versions that are there.
func (w *want) check(t testing.TB, dir string, collect bool) (have []string, err error) {
	ctx := t.Context()
	s, err := index.Open(dir)
	if errors.Is(err, index.ErrNoStore) && w.none {
		s, err = index.Create(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	lock, err := s.Lock(ctx, index.LockOptions{Verb: "check", NoWait: true})
	if errors.Is(err, index.ErrIndex) && w.lost {
		if _, err = s.Rebuild(ctx, index.LockOptions{NoWait: true}, index.VerifyOptions{}); err == nil {
			lock, err = s.Lock(ctx, index.LockOptions{Verb: "check", NoWait: true})
		}
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if have, err = w.whole(t, s); err != nil || !collect {
		return have, err
	}
	if _, err := lock.GC(ctx, index.GCOptions{}); err != nil {
		return have, err
	}
	if after, err := w.whole(t, s); err != nil || !slices.Equal(after, have) {
		return have, fmt.Errorf("after gc %v, before %v: %w", after, have, err)
	}
	return have, leftovers(s)
}

// whole verifies the store and compares its versions.
func (w *want) whole(t testing.TB, s *index.Store) ([]string, error) {
	r, err := s.Verify(t.Context(), index.VerifyOptions{})
	if err != nil {
		return nil, err
	}
	if !r.OK() {
		return nil, fmt.Errorf("verify: %+v", *r)
	}
	list, err := s.Versions()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, v := range list {
		names = append(names, v.Name)
		if w.trees[v.Name] != v.Tree {
			return nil, fmt.Errorf("version %s has tree %s", v.Name, v.Tree)
		}
	}
	slices.Sort(names)
	if !slices.ContainsFunc(w.sets, func(set []string) bool { return slices.Equal(set, names) }) {
		return names, fmt.Errorf("versions %v, want one of %v", names, w.sets)
	}
	return names, nil
}

// leftovers says what is in a store that gc should have removed.
func leftovers(s *index.Store) error {
	snap, err := s.Snapshot()
	if err != nil {
		return err
	}
	known := map[string]bool{"format": true, "index.db": true, "generation": true, "lock": true, "packs": true}
	for _, p := range snap.Packs {
		known[filepath.Join("packs", p.Name+blobstore.Suffix)] = true
	}
	return filepath.WalkDir(s.Dir(), func(path string, _ os.DirEntry, err error) error {
		if name, _ := filepath.Rel(s.Dir(), path); err == nil && name != "." && !known[name] {
			return fmt.Errorf("%s is left", name)
		}
		return err
	})
}

// treesOf are the tree hashes of the versions, as another machine has them.
func treesOf(t testing.TB, versions ...string) map[string]blobstore.ID {
	t.Helper()
	trees := map[string]blobstore.ID{}
	store := filepath.Join(memory(t), "store")
	for _, v := range versions {
		run(t, store, "import", "--quiet", "--verify=off", tarball(t, v))
	}
	s, err := index.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Versions()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		trees[v.Name] = v.Tree
	}
	return trees
}

// script is work of every kind, one after the other.
func script(t testing.TB) []step {
	t.Helper()
	a, b, c := tarball(t, "1.22.0"), tarball(t, "1.22.1"), tarball(t, "1.23.0")
	return []step{
		{args: []string{"import", "--quiet", "--verify=off", a}, after: []string{"1.22.0"}},
		{args: []string{"import", "--quiet", "--verify=off", b}, after: []string{"1.22.0", "1.22.1"}},
		{args: []string{"compact", "--quiet", "--level", "1"}, after: []string{"1.22.0", "1.22.1"}},
		{args: []string{"rm", "--quiet", "1.22.0"}, after: []string{"1.22.1"}},
		{args: []string{"gc", "--quiet"}, after: []string{"1.22.1"}},
		{args: []string{"import", "--quiet", "--verify=off", c}, after: []string{"1.22.1", "1.23.0"}},
		{args: []string{"rm", "--quiet", "1.22.1"}, after: []string{"1.23.0"}},
		{args: []string{"repair", "--index", "--quiet"}, after: []string{"1.23.0"}, lost: true},
	}
}

// lose removes the index before a step that makes it anew.
func (s *step) lose(t testing.TB, store string) {
	t.Helper()
	if !s.lost {
		return
	}
	d, err := os.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(store, "index.db")), d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// number reads an environment variable.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}
