package fs

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
)

// file is what a test puts into a release.
type file struct {
	data   string
	mode   uint16
	target string // makes it a symbolic link
}

// files are a release by path; folders come by themselves.
type files map[string]file

const (
	testTime  = 1_700_000_000
	testGroup = 256 << 10
)

// newStore makes an empty store.
func newStore(t testing.TB) *index.Store {
	t.Helper()
	s, err := index.Create(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// change commits to the store and returns when it is done.
func change(t testing.TB, s *index.Store, c index.Change) {
	t.Helper()
	w, err := s.Lock(context.Background(), index.LockOptions{Verb: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Commit(c); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, s *index.Store, names ...string) {
	t.Helper()
	change(t, s, index.Change{Remove: names})
}

// add puts a release into the store. Files of more than 100,000 bytes become
// several blobs.
func add(t testing.TB, s *index.Store, name string, content files) {
	t.Helper()
	l := newLoader(t, s)
	for _, path := range slices.Sorted(maps.Keys(content)) {
		f := content[path]
		if f.target != "" {
			l.items = append(l.items, index.Item{Path: path, Kind: index.Symlink, Mode: 0o777, Target: f.target})
			continue
		}
		l.file(path, f.mode, []byte(f.data))
	}
	l.commit(name)
}

// loader puts a release into a store.
type loader struct {
	t     testing.TB
	store *index.Store
	w     *blobstore.Writer
	have  map[blobstore.ID]bool
	group blobstore.Group
	size  int
	items []index.Item
	bytes int64
}

func newLoader(t testing.TB, s *index.Store) *loader {
	t.Helper()
	snap, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	l := &loader{t: t, store: s, have: map[blobstore.ID]bool{}}
	snap.EachBlob(func(id blobstore.ID, _ blobstore.Location) { l.have[id] = true })
	if l.w, err = blobstore.NewWriter(s.PackDir(), blobstore.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.w.Abort)
	return l
}

func (l *loader) file(path string, mode uint16, data []byte) {
	it := index.Item{Path: path, Kind: index.File, Mode: mode, Size: int64(len(data))}
	l.bytes += it.Size
	for chunk := range slices.Chunk(data, 100_000) {
		id := blobstore.Sum(chunk)
		it.Blobs = append(it.Blobs, index.Ref{ID: id, Length: uint32(len(chunk))})
		if l.have[id] {
			continue
		}
		l.have[id] = true
		l.group.Blobs = append(l.group.Blobs, blobstore.Blob{ID: id, Data: chunk})
		if l.size += len(chunk); l.size >= testGroup {
			l.flush()
		}
	}
	l.items = append(l.items, it)
}

func (l *loader) flush() {
	l.t.Helper()
	if len(l.group.Blobs) > 0 {
		if err := l.w.Add(context.Background(), l.group); err != nil {
			l.t.Fatal(err)
		}
	}
	l.group, l.size = blobstore.Group{}, 0
}

func (l *loader) commit(name string) {
	l.t.Helper()
	b, err := index.EncodeTree(l.items)
	if err != nil {
		l.t.Fatal(err)
	}
	tree, err := index.DecodeTree(b)
	if err != nil {
		l.t.Fatal(err)
	}
	l.flush()
	id := blobstore.Sum(b)
	if !l.have[id] {
		l.group = blobstore.Group{Kind: blobstore.Tree, Blobs: []blobstore.Blob{{ID: id, Data: b}}}
		l.flush()
	}
	packs, err := l.w.Finish()
	if err != nil {
		l.t.Fatal(err)
	}
	change(l.t, l.store, index.Change{Packs: packs, Add: []index.Addition{{Tree: tree, Version: index.Version{
		Name: name, Release: name, Platform: index.HostPlatform(), Tree: id, Time: testTime, Imported: time.Now(),
		Files: len(tree.Entries) - len(tree.Folders) + 1, Folders: len(tree.Folders), Bytes: l.bytes,
	}}}})
}

// mount mounts the store for as long as the test runs.
func mount(t testing.TB, store *index.Store) (*Server, string) {
	t.Helper()
	return mountWith(t, store, Options{})
}

func mountWith(t testing.TB, store *index.Store, o Options) (*Server, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Mount(t.Context(), store, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
		s.Wait()
		// Who got a record has to release it; some do so in goroutines that are
		// still to end.
		eventually(t, "all records released", func() bool {
			s.cache.Clear()
			return s.cache.Used() == 0
		})
	})
	return s, dir
}

// sample is a small release with all that a release can have.
func sample() files {
	f := files{
		"VERSION":             {data: "go1.22.8\n", mode: 0o644},
		"bin/go":              {data: pseudo(1, 250_001), mode: 0o755},
		"empty":               {mode: 0o644},
		"src/fmt/print.go":    {data: "package fmt\n", mode: 0o644},
		"src/fmt/scan.go":     {data: "package fmt // scan\n", mode: 0o644},
		"src/run.bash":        {data: "#!/bin/bash\n", mode: 0o755},
		"src/strings/a.go":    {data: pseudo(2, 5000), mode: 0o644},
		"src/strings/b.go":    {data: pseudo(3, 4096), mode: 0o644},
		"src/strings/same.go": {data: "package fmt\n", mode: 0o644}, // as src/fmt/print.go
		"link":                {target: "src/fmt/print.go"},
	}
	return f
}

// pseudo is text that is different for each seed.
func pseudo(seed, size int) string {
	var b strings.Builder
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for b.Len() < size {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b.WriteByte("abcdefghijklmnop\n0123456789 .{}"[x%31])
	}
	return b.String()
}

// check compares a mounted release with what was put in.
func check(t testing.TB, dir string, want files) {
	t.Helper()
	got := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		got[rel] = true
		w, ok := want[rel]
		if !ok {
			t.Errorf("%s is there", rel)
			return nil
		}
		if w.target != "" {
			if target, err := os.Readlink(path); err != nil || target != w.target {
				t.Errorf("%s: target %q, %v", rel, target, err)
			}
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, []byte(w.data)) {
			t.Errorf("%s: %d bytes, %v", rel, len(b), err)
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if st.Mode() != fs.FileMode(w.mode) || st.Size() != int64(len(w.data)) || st.ModTime().Unix() != testTime {
			t.Errorf("%s: %v %d %v", rel, st.Mode(), st.Size(), st.ModTime())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for path := range want {
		if !got[path] {
			t.Errorf("%s is not there", path)
		}
	}
}

// logBuffer gathers log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// names lists a folder.
func names(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// since returns the requests that came since before, without those for "."
// and the like that cost nothing.
func since(s *Server, before Stats) map[string]uint64 {
	now := s.Stats()
	diff := map[string]uint64{}
	for k, n := range now.Requests {
		if n -= before.Requests[k]; n != 0 && k != "forget" {
			diff[k] = n
		}
	}
	return diff
}
