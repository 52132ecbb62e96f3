package export

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gofs/blobstore"
	"gofs/importer"
	"gofs/importer/source"
	"gofs/index"
	"gofs/internal/testrelease"
)

var released = time.Unix(1_700_000_000, 0)

// odd is a tarball with one of everything that a tree can have.
func odd(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(kind byte, name string, mode int64, data string) {
		h := &tar.Header{Typeflag: kind, Name: "go/" + name, Mode: mode, ModTime: released}
		if kind == tar.TypeSymlink {
			h.Linkname, data = data, ""
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.TypeReg, "VERSION", 0o644, "go1.23.3\n")
	add(tar.TypeReg, "bin/go", 0o755, "the go command")
	add(tar.TypeReg, "pkg/tool/linux_amd64/compile", 0o755, strings.Repeat("a compiler ", 100_000))
	add(tar.TypeReg, "empty", 0o600, "")
	add(tar.TypeDir, "none/", 0o755, "")
	add(tar.TypeDir, "none, private/", 0o700, "")
	add(tar.TypeDir, "full/", 0o555, "")
	add(tar.TypeReg, "full/file", 0o444, "read-only")
	add(tar.TypeReg, "full-file", 0o644, "sorted between a folder and what is in it")
	add(tar.TypeSymlink, "full/link", 0o777, "../VERSION")
	add(tar.TypeSymlink, "link", 0o777, "full")
	add(tar.TypeReg, "src/"+strings.Repeat("long/", 40)+strings.Repeat("n", 200), 0o644, "a long path")
	add(tar.TypeReg, "src/ü", 0o644, "UTF-8")
	add(tar.TypeReg, "src/noise", 0o644, strings.Repeat("x", 3<<20)+strings.Repeat("y", 1<<20))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func importTar(t *testing.T, s *index.Store, r io.Reader, as string) index.Version {
	t.Helper()
	src, err := source.Open(t.Context(), "-", source.Options{Stdin: r})
	if err != nil {
		t.Fatal(err)
	}
	return importSource(t, s, src, as)
}

func importSource(t *testing.T, s *index.Store, src source.Source, as string) index.Version {
	t.Helper()
	defer src.Close()
	r, err := importer.Import(t.Context(), s, src, importer.Options{As: as})
	if err != nil {
		t.Fatal(err)
	}
	return r.Version
}

func newStore(t *testing.T) *index.Store {
	t.Helper()
	s, err := index.Create(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openRelease(t *testing.T, s *index.Store, name string) *Release {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(16 << 20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(view.Close)
	v, ok := snap.Find(name)
	if !ok {
		t.Fatalf("no version %s", name)
	}
	tree, err := snap.Tree(t.Context(), view, v)
	if err != nil {
		t.Fatal(err)
	}
	return &Release{Version: v, Tree: tree, View: view}
}

// throughTar exports a version as a tarball and imports that.
func throughTar(t *testing.T, s *index.Store, v index.Version) {
	t.Helper()
	r := openRelease(t, s, v.Name)
	var bytes int64
	r.Progress = func(n int64) { bytes += n }
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(r.Tar(context.Background(), pw)) }()
	if got := importTar(t, s, pr, "from-tar"); got.Tree != v.Tree || got.Time != v.Time || got.New != 0 {
		t.Errorf("from a tarball: %+v, before %+v", got, v)
	}
	if bytes != v.Bytes {
		t.Errorf("progress of %d bytes, want %d", bytes, v.Bytes)
	}
}

func exportFolder(t *testing.T, s *index.Store, v index.Version) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := openRelease(t, s, v.Name).Folder(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRoundTrip(t *testing.T) {
	s := newStore(t)
	v := importTar(t, s, bytes.NewReader(odd(t)), "")
	throughTar(t, s, v)
	dir := exportFolder(t, s, v)
	src, err := source.Open(t.Context(), dir, source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := importSource(t, s, src, "from-folder"); got.Tree != v.Tree || got.Time != v.Time || got.New != 0 {
		t.Errorf("from a folder: %+v, before %+v", got, v)
	}
	for name, want := range map[string]fs.FileMode{
		"none": fs.ModeDir | 0o755, "none, private": fs.ModeDir | 0o700, "full": fs.ModeDir | 0o555,
		"full/file": 0o444, "empty": 0o600, "bin/go": 0o755, "full/link": fs.ModeSymlink | 0o777,
	} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
		if err == nil && want.Type() != fs.ModeSymlink && !fi.ModTime().Equal(released) {
			t.Errorf("%s: time %v", name, fi.ModTime())
		}
	}
}

// A tarball's folders are named only where they say something.
func TestTarFolders(t *testing.T) {
	s := newStore(t)
	importTar(t, s, bytes.NewReader(odd(t)), "")
	var b bytes.Buffer
	if err := openRelease(t, s, "1.23.3").Tar(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	var folders, all []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, h.Name); h.Typeflag == tar.TypeDir {
			folders = append(folders, h.Name)
		}
	}
	if want := []string{"go/full/", "go/none/", "go/none, private/"}; !slices.Equal(folders, want) {
		t.Errorf("folders %q, want %q", folders, want)
	}
	if len(all) != 14 {
		t.Errorf("%d entries: %q", len(all), all)
	}
}

func TestDamaged(t *testing.T) {
	s := newStore(t)
	v := importTar(t, s, bytes.NewReader(odd(t)), "")
	r := openRelease(t, s, v.Name)
	packs, _, err := blobstore.ListPacks(s.PackDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(s.PackDir(), packs[0]+blobstore.Suffix), 300); err != nil {
		t.Fatal(err)
	}
	r.View.Close()
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	_ = snap
	r.View = view
	if err := r.Tar(t.Context(), io.Discard); !errors.Is(err, blobstore.ErrDamaged) {
		t.Errorf("tarball: %v", err)
	}
	if err := r.Folder(t.Context(), t.TempDir()); !errors.Is(err, blobstore.ErrDamaged) {
		t.Errorf("folder: %v", err)
	}
}

func TestFolderRefuses(t *testing.T) {
	s := newStore(t)
	importTar(t, s, bytes.NewReader(odd(t)), "")
	r := openRelease(t, s, "1.23.3")
	outside := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(outside, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "VERSION")); err != nil {
		t.Fatal(err)
	}
	if err := r.Folder(t.Context(), dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(outside); string(b) != "precious" {
		t.Errorf("a link was followed: %q", b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Folder(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := r.Tar(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// list is what lies in a folder: path to mode, time and bytes or target.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		s := fi.Mode().String()
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s += strconv.FormatInt(fi.ModTime().Unix(), 10) + blobstore.Sum(b).String()
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			s += target
		}
		m[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRealRelease(t *testing.T) {
	tarball := testrelease.Tarball(t, "1.22.8")
	unpacked := t.TempDir()
	if out, err := exec.Command("tar", "-C", unpacked, "-xzf", tarball).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	s := newStore(t)
	src, err := source.Open(t.Context(), tarball, source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := importSource(t, s, src, "")
	if v.Name != "1.22.8" || v.Platform != testrelease.Platform {
		t.Errorf("%+v", v)
	}
	throughTar(t, s, v)
	got, want := list(t, exportFolder(t, s, v)), list(t, filepath.Join(unpacked, "go"))
	if !maps.Equal(got, want) {
		for path := range want {
			if got[path] != want[path] {
				t.Fatalf("%s is %q, want %q", path, got[path], want[path])
			}
		}
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
}
