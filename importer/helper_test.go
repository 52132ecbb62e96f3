package importer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gofs/blobstore"
	"gofs/importer/source"
	"gofs/index"
)

// fake is a source in memory.
type fake struct {
	label      string
	entries    []fakeEntry
	sequential bool
	claims     string // version, then platform
	end        error  // of Walk after all entries
}

type fakeEntry struct {
	source.Entry
	open func() io.Reader
}

func (f *fake) Label() string                           { return f.label }
func (f *fake) Origin() string                          { return "/from/" + f.label }
func (f *fake) Size() int64                             { return -1 }
func (f *fake) Read() int64                             { return 0 }
func (f *fake) Module() (path, version string, ok bool) { return "", "", false }
func (f *fake) Sequential() bool                        { return f.sequential }
func (f *fake) Close() error                            { return nil }

func (f *fake) Release() (version, platform string, known bool) {
	return strings.Cut(f.claims, " ")
}

func (f *fake) Walk(ctx context.Context, yield func(source.Entry, source.Opener) error) error {
	for _, e := range f.entries {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", f.label, context.Cause(ctx))
		}
		var open source.Opener
		if e.Kind == source.File {
			open = func() (io.ReadCloser, error) { return io.NopCloser(e.open()), nil }
		}
		if err := yield(e.Entry, open); err != nil {
			return err
		}
	}
	return f.end
}

var released = time.Unix(1_700_000_000, 0)

// add adds a file; a data of "-> target" is a link, and a path with a slash at
// its end a folder.
func (f *fake) add(path, data string) *fake {
	e := source.Entry{Path: strings.TrimSuffix(path, "/"), Mode: 0o644, Size: int64(len(data)), ModTime: released}
	if target, ok := strings.CutPrefix(data, "-> "); ok {
		e.Kind, e.Target, e.Mode, e.Size = source.Symlink, target, 0o777, 0
	} else if strings.HasSuffix(path, "/") {
		e.Kind, e.Mode = source.Dir, 0o755
	} else if strings.HasPrefix(path, "bin/") || strings.HasPrefix(path, "pkg/tool/") {
		e.Mode = 0o755
	}
	f.entries = append(f.entries, fakeEntry{e, func() io.Reader { return strings.NewReader(data) }})
	return f
}

// addStream adds a file of which only its reader knows the bytes.
func (f *fake) addStream(path string, size int64, open func() io.Reader) *fake {
	f.entries = append(f.entries, fakeEntry{source.Entry{Path: path, Mode: 0o644, Size: size, ModTime: released}, open})
	return f
}

// release is a source with the files that every release has.
func release(version, platform string) *fake {
	f := &fake{label: "go" + version + "." + platform + ".tar.gz"}
	return f.add("VERSION", "go"+version+"\n").add("bin/go", "the go command of "+version).
		add("pkg/tool/"+strings.Replace(platform, "-", "_", 1)+"/compile", "the compiler of "+version)
}

// full is a release of this machine with sources and two programs.
func full(version string) *fake {
	f := release(version, index.HostPlatform())
	for i := range 300 {
		data := fmt.Sprintf("package p%d\n\nfunc F%d() {}\n", i%10, i)
		if i%9 == 0 {
			data += "// " + version + "\n"
		}
		f.add(fmt.Sprintf("src/p%d/f%d.go", i%10, i), data)
	}
	f.add("src/same.go", "package p1\n\nfunc F1() {}\n").add("src/empty", "").add("src/none/", "").add("lib/link", "-> ../VERSION")
	return f.add("pkg/tool/same", string(noise(1, 3<<20))).add("bin/gofmt", string(noise(2, 700<<10))+version)
}

// noise is n bytes that nothing compresses.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	r.Read(b)
	return b
}

// tarball is the tar stream of a fake.
func tarball(t testing.TB, f *fake) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range f.entries {
		h := &tar.Header{Name: "go/" + e.Path, Mode: int64(e.Mode), Size: e.Size, ModTime: e.ModTime, Typeflag: tar.TypeReg}
		switch e.Kind {
		case source.Dir:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case source.Symlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.Kind == source.File {
			if _, err := io.Copy(w, e.open()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// stream is a tarball on standard input.
func stream(t testing.TB, b []byte) source.Source {
	t.Helper()
	src, err := source.Open(t.Context(), "-", source.Options{Stdin: bytes.NewReader(b)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

func newStore(t testing.TB) *index.Store {
	t.Helper()
	s, err := index.Create(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func imported(t testing.TB, s *index.Store, src source.Source, o Options) *Result {
	t.Helper()
	r, err := Import(t.Context(), s, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// contents reads a version: path to mode and bytes.
func contents(t testing.TB, s *index.Store, name string) map[string]string {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(1 << 20))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	v, ok := snap.Find(name)
	if !ok {
		t.Fatalf("no version %s", name)
	}
	tree, err := snap.Tree(t.Context(), view, v)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	err = tree.Walk(func(path string, e *index.Entry) error {
		s := fmt.Sprintf("%o %s", e.Mode, e.Target)
		for _, r := range tree.Blobs(e) {
			b, err := view.Blob(t.Context(), r.ID)
			if err != nil {
				return err
			}
			s += string(b)
		}
		if e.Kind != index.Folder || tree.Folders[e.Folder].N == 0 {
			m[path] = s
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// checkContents compares a version with its source.
func checkContents(t testing.TB, s *index.Store, name string, f *fake) {
	t.Helper()
	want := map[string]string{}
	for _, e := range f.entries {
		data := fmt.Sprintf("%o %s", e.Mode, e.Target)
		if e.Kind == source.File {
			b, err := io.ReadAll(e.open())
			if err != nil {
				t.Fatal(err)
			}
			data += string(b)
		}
		want[e.Path] = data
	}
	if !maps.Equal(contents(t, s, name), want) {
		t.Errorf("version %s has other files than its source", name)
	}
}

// files lists what is in the store with sizes, but not the lock's text.
func files(t testing.TB, s *index.Store) []string {
	t.Helper()
	var list []string
	err := filepath.Walk(s.Dir(), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Name() != "lock" {
			list = append(list, fmt.Sprintf("%s %d", strings.TrimPrefix(path, s.Dir()), info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// unchanged runs an import that must fail and leave the store as it is.
func unchanged(t testing.TB, s *index.Store, importIt func() error) error {
	t.Helper()
	generation, _ := s.Generation()
	before := files(t, s)
	err := importIt()
	if err == nil {
		t.Error("imported")
	}
	if after := files(t, s); !slices.Equal(before, after) {
		t.Errorf("files %v, before %v", after, before)
	}
	if n, _ := s.Generation(); n != generation {
		t.Errorf("generation %d, before %d", n, generation)
	}
	verified(t, s)
	return err
}

func verified(t testing.TB, s *index.Store) {
	t.Helper()
	r, err := s.Verify(context.Background(), index.VerifyOptions{})
	if err != nil || !r.OK() {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

// gibberish reads n bytes that nothing compresses, or, if words is set, some
// that compress well; no two runs of them are equal.
func gibberish(seed byte, n int64, words bool) io.Reader {
	r := rand.NewChaCha8([32]byte{seed})
	if !words {
		return io.LimitReader(r, n)
	}
	return io.LimitReader(&wordReader{r: r}, n)
}

type wordReader struct {
	r    *rand.ChaCha8
	rest []byte
}

func (w *wordReader) Read(b []byte) (int, error) {
	if len(w.rest) == 0 {
		w.rest = fmt.Appendf(nil, "%d%s", w.r.Uint64(), strings.Repeat(" and so on", 30))
	}
	n := copy(b, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

// child is this test binary without the race detector, which multiplies
// memory: see TestMain for what it does.
var child = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gofs-child-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "child")
	if out, err := exec.Command("go", "test", "-c", "-o", name, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return name, nil
})

func command(t testing.TB, env ...string) *exec.Cmd {
	t.Helper()
	name, err := child()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestMain is also the child process: it imports what $GOFS_TEST_IMPORT names
// into $GOFS_TEST_STORE and prints its peak memory in bytes.
func TestMain(m *testing.M) {
	if what := os.Getenv("GOFS_TEST_IMPORT"); what != "" {
		if err := importAsChild(what, os.Getenv("GOFS_TEST_STORE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if name, err := child(); err == nil {
		os.RemoveAll(filepath.Dir(name))
	}
	os.Exit(code)
}

func importAsChild(what, dir string) error {
	s, err := index.Open(dir)
	if err != nil {
		return err
	}
	f := full("1.23.3")
	f.sequential = true
	switch what {
	case "huge":
		f.addStream("noise", 1<<30, func() io.Reader { return gibberish(1, 1<<30, false) })
		f.addStream("words", 1<<30, func() io.Reader { return gibberish(2, 1<<30, true) })
	case "large":
		f.addStream("noise", 256<<20, func() io.Reader { return gibberish(1, 256<<20, false) })
		f.addStream("words", 256<<20, func() io.Reader { return gibberish(2, 256<<20, true) })
	case "some":
		f.addStream("noise", 24<<20, func() io.Reader { return gibberish(1, 24<<20, false) })
	}
	fmt.Println("begin")
	if _, err := Import(context.Background(), s, f, Options{}); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			fmt.Println(kib << 10)
			return nil
		}
	}
	return errors.New("no VmHWM")
}
