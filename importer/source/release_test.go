package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gofs/internal/testrelease"
)

// listing renders what a source yields as a line a name: mode, path, size,
// and the SHA-256 of the content. Folders are left out: a zip of the module
// has none.
func listing(t testing.TB, src Source) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := src.Walk(t.Context(), func(e Entry, open Opener) error {
		line := fmt.Sprintf("%s %o %d %s", e.Kind, e.Mode, e.Size, e.Target)
		switch e.Kind {
		case Dir:
			return nil
		case File:
			r, err := open()
			if err != nil {
				return err
			}
			defer r.Close()
			h := sha256.New()
			n, err := io.Copy(h, r)
			if err != nil {
				return err
			}
			if n != e.Size {
				return fmt.Errorf("%s: read %d of %d bytes", e.Path, n, e.Size)
			}
			line += hex.EncodeToString(h.Sum(nil))
		}
		got[e.Path] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func openT(t testing.TB, arg string, o Options) Source {
	t.Helper()
	src, err := Open(t.Context(), arg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Errorf("close %s: %v", arg, err)
		}
	})
	return src
}

func diff(t *testing.T, wantName, gotName string, want, got map[string]string) {
	t.Helper()
	if len(want) < 1000 {
		t.Errorf("%s has only %d files", wantName, len(want))
	}
	for p, w := range want {
		if g, ok := got[p]; !ok {
			t.Errorf("%s is missing in the %s", p, gotName)
		} else if g != w {
			t.Errorf("%s: %s in the %s, %s in the %s", p, w, wantName, g, gotName)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s is in the %s only", p, gotName)
		}
	}
}

// A release is the same tree whichever way it comes: tarball, module zip,
// standard input, folder.
func TestRealRelease(t *testing.T) {
	tarball, zipFile := testrelease.Tarball(t, "1.22.8"), testrelease.Zip(t, "1.22.8")
	src := openT(t, tarball, Options{})
	if v, p, ok := src.Release(); v != "1.22.8" || p != "linux-amd64" || !ok {
		t.Errorf("Release() of the tarball = %s, %s, %v", v, p, ok)
	}
	if !src.Sequential() || src.Origin() != tarball {
		t.Errorf("tarball: Sequential() = %v, Origin() = %s", src.Sequential(), src.Origin())
	}
	want := listing(t, src)
	if src.Read() != src.Size() {
		t.Errorf("tarball: read %d of %d bytes", src.Read(), src.Size())
	}

	t.Run("zip", func(t *testing.T) {
		src := openT(t, zipFile, Options{})
		if v, p, ok := src.Release(); v != "1.22.8" || p != "linux-amd64" || !ok {
			t.Errorf("Release() = %s, %s, %v", v, p, ok)
		}
		if m, v, ok := src.Module(); m != modulePath || v != "v0.0.1-go1.22.8.linux-amd64" || !ok {
			t.Errorf("Module() = %s, %s, %v", m, v, ok)
		}
		if src.Sequential() {
			t.Error("Sequential() = true")
		}
		diff(t, "tarball", "zip", want, listing(t, src))
	})
	t.Run("zip on standard input", func(t *testing.T) {
		f, err := os.Open(zipFile)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		src := openT(t, "-", Options{Stdin: f, TempDir: t.TempDir()})
		diff(t, "tarball", "zip", want, listing(t, src))
	})
	t.Run("folder", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := exec.Command("tar", "-xzf", tarball, "-C", dir).CombinedOutput(); err != nil {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		src := openT(t, filepath.Join(dir, "go"), Options{})
		diff(t, "tarball", "folder", want, listing(t, src))
	})
}

// Every file of a module zip has the time of the release, as in the tarball.
func TestRealReleaseTimes(t *testing.T) {
	want := time.Date(2024, 11, 6, 18, 46, 45, 0, time.UTC)
	for _, arg := range []string{testrelease.Tarball(t, "1.23.3"), testrelease.Zip(t, "1.23.3")} {
		err := openT(t, arg, Options{}).Walk(t.Context(), func(e Entry, _ Opener) error {
			if !e.ModTime.Equal(want) {
				return fmt.Errorf("%s is of %v, not of %v", e.Path, e.ModTime, want)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(arg), err)
		}
	}
}

// A cut or flipped byte anywhere in a real tarball is noticed.
func TestRealReleaseDamaged(t *testing.T) {
	whole, err := os.ReadFile(testrelease.Tarball(t, "1.22.8"))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"cut in the middle": func(b []byte) []byte { return b[:len(b)/2] },
		"last byte cut":     func(b []byte) []byte { return b[:len(b)-1] },
		"flipped bit":       func(b []byte) []byte { b[len(b)/3] ^= 4; return b },
		"wrong CRC":         func(b []byte) []byte { b[len(b)-8]++; return b },
	} {
		t.Run(name, func(t *testing.T) {
			bad := damage(append([]byte(nil), whole...))
			src := openT(t, "-", Options{Stdin: strings.NewReader(string(bad))})
			wantError(t, drain(t.Context(), src), ErrTruncated, ErrCorrupt)
		})
	}
}

// drain reads all of a source.
func drain(ctx context.Context, src Source) error {
	buf := make([]byte, 256<<10)
	return src.Walk(ctx, func(e Entry, open Opener) error {
		if open == nil {
			return nil
		}
		r, err := open()
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
		return err
	})
}

func benchmarkWalk(b *testing.B, arg string) {
	var size int64
	for b.Loop() {
		src, err := Open(b.Context(), arg, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := drain(b.Context(), src); err != nil {
			b.Fatal(err)
		}
		size = 228_731_904
		src.Close()
	}
	b.SetBytes(size)
}

func BenchmarkTarball(b *testing.B) { benchmarkWalk(b, testrelease.Tarball(b, "1.23.3")) }
func BenchmarkZip(b *testing.B)     { benchmarkWalk(b, testrelease.Zip(b, "1.23.3")) }
