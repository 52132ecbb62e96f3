package source

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// goroot makes a small GOROOT.
func goroot(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "VERSION"), "go1.23.3\n", 0o644)
	write(t, filepath.Join(dir, "bin", "go"), "#!/bin/sh\n", 0o755)
	return dir
}

func write(t testing.TB, file, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func TestFolderEntries(t *testing.T) {
	dir := goroot(t)
	if err := os.Symlink("../VERSION", filepath.Join(dir, "bin", "v")); err != nil {
		t.Fatal(err)
	}
	src := openT(t, dir+"/", Options{})
	if _, _, known := src.Release(); known || src.Origin() != dir || src.Size() != -1 {
		t.Errorf("Release known: %v, Origin %s, Size %d", known, src.Origin(), src.Size())
	}
	var lines []string
	err := src.Walk(t.Context(), func(e Entry, open Opener) error {
		lines = append(lines, fmt.Sprintf("%s %s %o %d %s", e.Path, e.Kind, e.Mode, e.Size, e.Target))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"VERSION file 644 9 ", "bin folder 755 0 ", "bin/go file 755 10 ", "bin/v symbolic link 777 0 ../VERSION"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestHostileFolder(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(dir string) error
		o    Options
		want error
	}{
		{"link out", func(dir string) error { return os.Symlink("../x", filepath.Join(dir, "a")) }, Options{}, ErrUnsafe},
		{"absolute link", func(dir string) error { return os.Symlink(dir, filepath.Join(dir, "a")) }, Options{}, ErrUnsafe},
		{"named pipe", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "a"), 0o644) }, Options{}, ErrUnsafe},
		{"socket", func(dir string) error {
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}, Options{}, ErrUnsafe},
		{"not UTF-8", func(dir string) error { return os.WriteFile(filepath.Join(dir, "\xff"), nil, 0o644) }, Options{}, ErrUnsafe},
		{"no GOROOT", func(dir string) error {
			return os.Rename(filepath.Join(dir, "VERSION"), filepath.Join(dir, "bin", "VERSION"))
		}, Options{MaxSize: 19}, nil}, // bin/go is enough
		{"neither VERSION nor bin/go", func(dir string) error {
			os.Remove(filepath.Join(dir, "VERSION"))
			return os.Remove(filepath.Join(dir, "bin", "go"))
		}, Options{}, ErrNotRelease},
		{"too large", func(string) error { return nil }, Options{MaxSize: 18}, ErrTooLarge},
		{"too many", func(string) error { return nil }, Options{MaxEntries: 2}, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := goroot(t)
			if err := tt.make(dir); err != nil {
				t.Fatal(err)
			}
			src, err := Open(t.Context(), dir, tt.o)
			if err == nil {
				defer src.Close()
				err = drain(t.Context(), src)
			}
			if tt.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, tt.want)
		})
	}
}

// A file that is not what Walk saw is an error, never other bytes.
func TestFolderChanges(t *testing.T) {
	for name, change := range map[string]func(file string) error{
		"grown":                  func(f string) error { return os.WriteFile(f, []byte("longer than before"), 0o644) },
		"shrunk":                 func(f string) error { return os.Truncate(f, 3) },
		"removed":                os.Remove,
		"replaced":               func(f string) error { os.Rename(f, f+"2"); return os.WriteFile(f, []byte("go1.23.4\n"), 0o644) },
		"replaced by a link":     func(f string) error { os.Remove(f); return os.Symlink("bin/go", f) },
		"replaced by a pipe":     func(f string) error { os.Remove(f); return syscall.Mkfifo(f, 0o644) },
		"link to outside":        func(f string) error { os.Remove(f); return os.Symlink("/etc/passwd", f) },
		"grown while it is read": nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir := goroot(t)
			file := filepath.Join(dir, "VERSION")
			src := openT(t, dir, Options{})
			err := src.Walk(t.Context(), func(e Entry, open Opener) error {
				if e.Path != "VERSION" {
					return nil
				}
				if change != nil {
					if err := change(file); err != nil {
						t.Fatal(err)
					}
				}
				r, err := open()
				if err != nil {
					return err
				}
				defer r.Close()
				if change == nil {
					io.ReadFull(r, make([]byte, 2))
					os.WriteFile(file, []byte("much longer than before"), 0o644)
				}
				_, err = io.ReadAll(r)
				return err
			})
			if name == "link to outside" && err != nil {
				return // os.Root has its own words for it
			}
			wantError(t, err, ErrChanged)
		})
	}
}

func TestOpenNames(t *testing.T) {
	dir := goroot(t)
	t.Chdir(t.TempDir())
	if err := os.Symlink(dir, "1.23.3"); err != nil {
		t.Fatal(err)
	}
	write(t, "go1.23.3.linux-armv6l.tar.gz", string(gz(makeTar(t, true, versionHdr()))), 0o644)
	off := Options{Getenv: func(k string) string { return map[string]string{"GOPROXY": "off"}[k] }}
	for _, tt := range []struct {
		arg  string
		want error
	}{
		{"./1.23.3", nil},
		{"1.23.3", ErrProxyOff}, // a version, though a folder is called so
		{"stable", ErrProxyOff},
		{"go1.24rc1.darwin-arm64", ErrProxyOff},
		{"go1.23.3.linux-armv6l.tar.gz", nil},
		{"none.tar.gz", fs.ErrNotExist},
		{"./none", fs.ErrNotExist},
		{"nonsense", fs.ErrNotExist},
		{"", nil},
		{"ftp://host/x", nil},
	} {
		src, err := Open(t.Context(), tt.arg, off)
		switch {
		case tt.want != nil:
			wantError(t, err, tt.want)
		case tt.arg == "" || strings.HasPrefix(tt.arg, "ftp:"):
			if err == nil {
				t.Errorf("%q was opened", tt.arg)
			}
		case err != nil:
			t.Error(err)
		}
		if err == nil {
			if tt.arg == "go1.23.3.linux-armv6l.tar.gz" {
				if v, p, _ := src.Release(); v != "1.23.3" || p != "linux-arm" {
					t.Errorf("Release() = %s %s", v, p)
				}
			}
			src.Close()
		}
	}
}

// Opening a named pipe that nobody writes to ends with ctx.
func TestOpenPipeCancel(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "a.tar.gz")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := Open(ctx, fifo, Options{})
		done <- err
	}()
	cancel()
	wantError(t, <-done, context.Canceled)
	if w, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil { // lets the open go
		w.Close()
	}
}
