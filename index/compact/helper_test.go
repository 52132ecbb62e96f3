package compact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gofs/blobstore"
	"gofs/index"
)

// TestMain is also the child process that TestKilled kills: it compacts the
// store that $GOFS_TEST_STORE names.
func TestMain(m *testing.M) {
	if dir := os.Getenv("GOFS_TEST_STORE"); dir != "" {
		s, err := index.Open(dir)
		if err == nil {
			fmt.Println("begin")
			_, err = Run(context.Background(), s, Options{Effort: 1, Quick: []string{"1.22.1"}})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if dir, err := builtDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// content is a release: path to bytes.
type content map[string]string

const mainGo = `package main

type shape interface{ area() int }
type square struct{ a, b int }

func (s square) area() int { return s.a*s.b + %d }

func main() {
	var s shape = square{3, 4}
	%s
	println("release %s of %s", s.area())
}
`

// builtDir is where the programs of the tests are.
var builtDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "gofs-test-") })

// built returns a program of a release as the go command links it.
var built = func() func(t testing.TB, name, release, platform string) string {
	var mu sync.Mutex
	have := map[string]string{}
	return func(t testing.TB, name, release, platform string) string {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		key := name + release
		if have[key+platform] != "" {
			return have[key+platform]
		}
		dir, err := builtDir()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "main.go")
		more := strings.Repeat("s = square{s.area(), 1}\n\t", len(release)+int(release[len(release)-1])%9)
		if err := os.WriteFile(file, fmt.Appendf(nil, mainGo, len(key), more, release, name), 0o644); err != nil {
			t.Fatal(err)
		}
		system, arch, _ := strings.Cut(platform, "-")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-w", "-o", file+".out", file)
		cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		b, err := os.ReadFile(file + ".out")
		if err != nil {
			t.Fatal(err)
		}
		have[key+platform] = string(b)
		return string(b)
	}
}()

// splitName returns what a name of a version says.
func splitName(name string) (release, platform string) {
	if at := strings.LastIndexByte(name, '.'); strings.Contains(name, "-") {
		return name[:at], name[at+1:]
	}
	return name, "linux-amd64"
}

// makeRelease is a release with programs and some source files, of which some are
// like those of others.
func makeRelease(t testing.TB, name string) content {
	name, platform := splitName(name)
	c := content{"VERSION": "go" + name, "empty": ""}
	exe := ""
	if strings.HasPrefix(platform, "windows-") {
		exe = ".exe"
	}
	tools := "pkg/tool/" + strings.ReplaceAll(platform, "-", "_") + "/"
	c["bin/go"+exe] = built(t, "go", name, platform)
	c[tools+"compile"+exe] = built(t, "compile", name, platform)
	c[tools+"asm"+exe] = built(t, "asm", name, platform)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		var b strings.Builder
		fmt.Fprintf(&b, "package p%d\n", i)
		for range 100 {
			fmt.Fprintf(&b, "func f%d(x int) int { return x + %d }\n", r.IntN(1000), r.IntN(1000))
		}
		if i%3 == 0 {
			fmt.Fprintf(&b, "const release = %q\n", name)
		}
		c[fmt.Sprintf("src/p%d/f%d.go", i/4, i)] = b.String()
	}
	c["src/large.txt"] = strings.Repeat("a large file "+name+"\n", 30_000)
	noise := make([]byte, 700_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	copy(noise[1000:], name)
	c["lib/time/zoneinfo.zip"] = string(noise)
	return c
}

func newStore(t testing.TB) *index.Store {
	t.Helper()
	s, err := index.Create(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lock(t testing.TB, s *index.Store) *index.Writer {
	t.Helper()
	w, err := s.Lock(t.Context(), index.LockOptions{Verb: "test", NoWait: true})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// part is how long the parts of a file are, but for these two: one program is one
// blob, and the other file begins with it.
const (
	part   = 300_000
	single = "bin/single"
	begins = "pkg/tool/linux_amd64/cgo"
)

// put imports a release.
func put(t testing.TB, s *index.Store, name string, c content) {
	t.Helper()
	w := lock(t, s)
	defer w.Close()
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	out, err := blobstore.NewWriter(s.PackDir(), blobstore.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	release, platform := splitName(name)
	v := index.Version{Name: name, Release: release, Platform: platform, Time: 1_700_000_000, Imported: time.Unix(1_800_000_000, 0).UTC(), Generation: snap.Generation + 1, Source: "test", Files: len(c)}
	var items []index.Item
	seen := map[blobstore.ID]bool{}
	add := func(g blobstore.Group) {
		for _, b := range g.Blobs {
			if _, ok := snap.Locate(b.ID); ok || seen[b.ID] {
				return
			}
			seen[b.ID] = true
		}
		if err := out.Add(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(c)) {
		part := part
		switch path {
		case single:
			part = len(c[path])
		case begins:
			part = max(part, strings.Index(c[path], "and more"))
		}
		it := index.Item{Path: path, Mode: 0o644, Size: int64(len(c[path]))}
		for data := []byte(c[path]); len(data) > 0; data = data[min(len(data), part):] {
			b := blobstore.Blob{Data: data[:min(len(data), part)]}
			b.ID = blobstore.Sum(b.Data)
			it.Blobs = append(it.Blobs, index.Ref{ID: b.ID, Length: uint32(len(b.Data))})
			add(blobstore.Group{Blobs: []blobstore.Blob{b}})
		}
		items = append(items, it)
		v.Bytes += it.Size
	}
	encoded, tree := treeOf(t, items)
	v.Folders, v.Tree = len(tree.Folders), blobstore.Sum(encoded)
	add(blobstore.Group{Kind: blobstore.Tree, Blobs: []blobstore.Blob{{ID: v.Tree, Data: encoded}}})
	record, err := index.VersionRecord(&v)
	if err != nil {
		t.Fatal(err)
	}
	add(blobstore.Group{Kind: blobstore.Version, Blobs: []blobstore.Blob{{ID: blobstore.Sum(record), Data: record}}})
	packs, err := out.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(index.Change{Packs: packs, Add: []index.Addition{{Version: v, Tree: tree}}}); err != nil {
		t.Fatal(err)
	}
}

// treeOf is the tree of files, encoded and not.
func treeOf(t testing.TB, items []index.Item) ([]byte, *index.Tree) {
	t.Helper()
	encoded, err := index.EncodeTree(items)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := index.DecodeTree(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return encoded, tree
}

// filled is a store with releases.
func filled(t testing.TB, names ...string) (*index.Store, map[string]content) {
	s := newStore(t)
	want := map[string]content{}
	for _, name := range names {
		want[name] = makeRelease(t, name)
		put(t, s, name, want[name])
	}
	return s, want
}

func remove(t testing.TB, s *index.Store, name string) {
	t.Helper()
	w := lock(t, s)
	defer w.Close()
	if err := w.Commit(index.Change{Remove: []string{name}}); err != nil {
		t.Fatal(err)
	}
}

func collect(t testing.TB, s *index.Store) *index.GCResult {
	t.Helper()
	w := lock(t, s)
	defer w.Close()
	r, err := w.GC(t.Context(), index.GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func run(t testing.TB, s *index.Store, o Options) *Result {
	t.Helper()
	if o.Effort == 0 {
		o.Effort = 1
	}
	r, err := Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// read returns the bytes of all files of a version.
func read(ctx context.Context, snap *index.Snapshot, view *blobstore.View, v *index.Version) (content, error) {
	tree, err := snap.Tree(ctx, view, v)
	if err != nil {
		return nil, err
	}
	c := content{}
	err = tree.Walk(func(path string, e *index.Entry) error {
		if e.Kind != index.File {
			return nil
		}
		var b strings.Builder
		for _, r := range tree.Blobs(e) {
			data, err := view.Blob(ctx, r.ID)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			b.Write(data)
		}
		c[path] = b.String()
		return nil
	})
	return c, err
}

// same compares the versions that a view shows with what they ought to be.
func same(t testing.TB, snap *index.Snapshot, view *blobstore.View, want map[string]content) {
	t.Helper()
	if len(snap.Versions) != len(want) {
		t.Errorf("%d versions, want %d", len(snap.Versions), len(want))
	}
	for i := range snap.Versions {
		v := &snap.Versions[i]
		got, err := read(t.Context(), snap, view, v)
		if err != nil || !maps.Equal(got, want[v.Name]) {
			t.Errorf("version %s is another: %v", v.Name, err)
		}
	}
}

// check compares the store with what ought to be in it, and verifies it.
func check(t testing.TB, s *index.Store, want map[string]content) {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(64 << 20))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	same(t, snap, view, want)
	r, err := s.Verify(t.Context(), index.VerifyOptions{})
	if err != nil || !r.OK() {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

// trees maps versions to their tree hashes and inode numbers.
func trees(t testing.TB, s *index.Store) map[string]string {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	all := map[string]string{}
	for i := range snap.Versions {
		v := &snap.Versions[i]
		tree, err := snap.Tree(t.Context(), view, v)
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := snap.Nodes(v, tree)
		if err != nil {
			t.Fatal(err)
		}
		all[v.Name] = fmt.Sprintf("%s %d %x", v.Tree, v.RootNode, sha256.Sum256(fmt.Append(nil, nodes)))
	}
	return all
}

// drain reads a pipe to its end.
func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// number is a count that the environment may set.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}
