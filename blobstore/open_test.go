package blobstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// OpenFile opens files below a folder, and nothing else.
func TestOpenFile(t *testing.T) {
	base := t.TempDir()
	dir, real := filepath.Join(base, "dir"), filepath.Join(base, "real")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string) error { return os.WriteFile(name, []byte("kept"), 0o644) }
	must(os.MkdirAll(filepath.Join(real, "sub"), 0o755), os.Symlink(real, dir))
	must(write(filepath.Join(real, "file")), write(filepath.Join(real, "sub", "file")), write(filepath.Join(base, "outside")))
	must(os.Symlink("file", filepath.Join(real, "link")), os.Symlink("sub", filepath.Join(real, "sublink")), os.Symlink("../outside", filepath.Join(real, "out")),
		os.Symlink("/etc/passwd", filepath.Join(real, "sub", "out")), os.Symlink("nowhere", filepath.Join(real, "dangling")),
		os.Symlink("/proc/self/fd/0", filepath.Join(real, "magic")), unix.Mkfifo(filepath.Join(real, "pipe"), 0o644))
	// The folder itself may be named through a link.
	for name, want := range map[string]error{
		"file": nil, "sub/file": nil, "none": fs.ErrNotExist, "sub/none": fs.ErrNotExist, "nosub/file": fs.ErrNotExist,
		"link": ErrDamaged, "out": ErrDamaged, "sub/out": ErrDamaged, "dangling": ErrDamaged, "magic": ErrDamaged,
		"sublink/file": ErrDamaged, "file/file": ErrDamaged, "pipe": ErrDamaged, "sub": ErrDamaged,
	} {
		for _, flags := range []int{os.O_RDONLY, os.O_WRONLY | os.O_CREATE | os.O_TRUNC, os.O_RDWR | os.O_CREATE} {
			if want != nil && errors.Is(want, fs.ErrNotExist) && flags&os.O_CREATE != 0 && name != "nosub/file" {
				continue
			}
			f, err := OpenFile(dir, name, flags, 0o600)
			if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), filepath.Join(dir, name)) {
				t.Errorf("%s with %#x: %v", name, flags, err)
			}
			if err == nil {
				f.Close()
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(base, "outside")); err != nil || string(b) != "kept" {
		t.Errorf("outside is %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(real, "nowhere")); err == nil {
		t.Error("a file was made where a link leads")
	}
	f, err := OpenFile(dir, "new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if st, err := os.Stat(filepath.Join(real, "new")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := OpenFile(filepath.Join(dir, "file"), "x", os.O_RDONLY, 0); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("in a file: %v", err)
	}
}

// A folder of packs that is a link is none: nothing is read, listed or made
// behind it.
func TestLinkedPacks(t *testing.T) {
	base := t.TempDir()
	real, dir := filepath.Join(base, "real"), filepath.Join(base, "packs")
	if err := errors.Join(os.Mkdir(real, 0o755), os.Symlink(real, dir)); err != nil {
		t.Fatal(err)
	}
	p := store(t, real, group(text(1, 100)))[0]
	if _, err := OpenPack(dir, p.Name); !errors.Is(err, ErrDamaged) {
		t.Errorf("OpenPack: %v", err)
	}
	if _, _, err := ListPacks(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("ListPacks: %v", err)
	}
	w := newWriter(t, dir, WriterOptions{})
	add(t, w, group(text(2, 100)))
	if _, err := w.Finish(); err == nil {
		t.Error("a pack was written through a link")
	}
	if names := files(t, real); len(names) != 1 {
		t.Errorf("behind the link are %q", names)
	}
}

// Who owns a store puts a link in the place of its packs while another writes
// to it: nothing comes or goes behind the link.
func TestFolderReplaced(t *testing.T) {
	for name, unnamed := range map[string]opener{"unnamed": openat, "named": namedFiles} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			packs, moved, outside := filepath.Join(dir, "packs"), filepath.Join(dir, "moved"), filepath.Join(dir, "outside")
			for _, d := range []string{packs, outside} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			replace := func(from, to string) {
				t.Helper()
				if err := errors.Join(os.Rename(packs, from), os.Symlink(to, packs)); err != nil {
					t.Fatal(err)
				}
			}
			p, err := createPack(packs, unnamed)
			if err != nil {
				t.Fatal(err)
			}
			replace(moved, outside)
			done, err := p.finish()
			if err != nil {
				t.Fatal(err)
			}
			if got := files(t, moved); !slices.Equal(got, []string{done.Name + Suffix}) {
				t.Errorf("the pack is not where the writer began: %q", got)
			}
			if got := files(t, outside); len(got) > 0 {
				t.Errorf("behind the link is %q", got)
			}
			if err := os.Rename(packPath(moved, done.Name), packPath(outside, done.Name)); err != nil {
				t.Fatal(err)
			}
			if _, err := createPack(packs, unnamed); !errors.Is(err, errNotFile) {
				t.Errorf("begin a pack: %v", err)
			}
			if err := RemovePack(packs, done.Name); !errors.Is(err, errNotFile) {
				t.Errorf("remove a pack: %v", err)
			}
			if got := files(t, outside); len(got) != 1 {
				t.Errorf("behind the link is %q", got)
			}
		})
	}
}
