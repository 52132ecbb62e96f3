package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gofs/internal/testrelease"
)

// listing renders what a source yields as a line a name: kind, mode, size,
// time, and the SHA-256 of the content. Folders are left out: a zip of the module
// has none.
func listing(t testing.TB, src Source) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := src.Walk(t.Context(), func(e Entry, open Opener) error {
		line := fmt.Sprintf("%s %o %d %s %d ", e.Kind, e.Mode, e.Size, e.Target, e.ModTime.Unix())
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

// A release is the same tree whichever way it comes: tarball, module zip or
// folder.
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
	t.Run("folder", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := exec.Command("tar", "-xzf", tarball, "-C", dir).CombinedOutput(); err != nil {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		src := openT(t, filepath.Join(dir, "go"), Options{})
		diff(t, "tarball", "folder", want, listing(t, src))
	})
}

// A flipped bit in a real tarball is noticed, at the latest by its checksum.
func TestRealReleaseDamaged(t *testing.T) {
	whole, err := os.ReadFile(testrelease.Tarball(t, "1.22.8"))
	if err != nil {
		t.Fatal(err)
	}
	src := openT(t, "-", Options{Stdin: bytes.NewReader(flip(whole, len(whole)/3))})
	wantError(t, drain(t.Context(), src), ErrTruncated, ErrCorrupt, ErrUnsafe)
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
