package source

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const modTop = "golang.org/toolchain@v0.0.1-go1.23.3.linux-amd64/"

// zfile is an entry for makeZip.
type zfile struct {
	name    string
	content string
	mode    fs.FileMode // 0 for an entry without Unix modes
	method  uint16
	edit    func(*zip.FileHeader) // lies to be told
}

func makeZip(t testing.TB, files ...zfile) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: f.method, Modified: time.Date(2024, 1, 2, 3, 4, 6, 0, time.UTC)}
		if f.mode != 0 {
			h.SetMode(f.mode)
		}
		if f.edit == nil {
			fw, err := w.CreateHeader(h)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(fw, f.content)
			continue
		}
		h.CRC32 = crc32.ChecksumIEEE([]byte(f.content))
		h.CompressedSize64 = uint64(len(f.content))
		h.UncompressedSize64 = uint64(len(f.content))
		f.edit(h)
		fw, err := w.CreateRaw(h)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(fw, f.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func modVersion() zfile {
	return zfile{name: modTop + "VERSION", content: "go1.23.3\ntime 2024-11-06T18:46:45Z\n"}
}

// readZip reads archive twice, as a file and from standard input, and wants
// the same of both.
func readZip(t testing.TB, archive []byte, o Options) ([]Entry, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.zip")
	if err := os.WriteFile(file, archive, 0o644); err != nil {
		t.Fatal(err)
	}
	streamed, serr := readAll(t, archive, o)
	var got []Entry
	src, err := Open(t.Context(), file, o)
	if err == nil {
		defer src.Close()
		err = src.Walk(t.Context(), func(e Entry, open Opener) error {
			got = append(got, e)
			if open == nil {
				return nil
			}
			r, err := open()
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.ReadFull(r, make([]byte, e.Size)) // never asks for the end
			return err
		})
	}
	if (err == nil) != (serr == nil) || err == nil && fmt.Sprint(got) != fmt.Sprint(streamed) {
		t.Errorf("file: %v, %v\nstream: %v, %v", got, err, streamed, serr)
	}
	return got, err
}

func TestZipEntries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []zfile
		want  []string
	}{
		{"module", []zfile{
			{name: modTop + "src/_go.mod", content: "module std\n", method: zip.Deflate},
			modVersion(),
			{name: modTop + "bin/go", content: "x", mode: 0o600},
			{name: modTop + "pkg/tool/linux_amd64/asm", content: "x"},
			{name: modTop + "src/make.bash", content: "x"},
			{name: modTop + "lib/wasm/go_js_wasm_exec", content: "x"},
			{name: modTop + "misc/x.pl", content: ""},
		}, []string{
			"src/go.mod file 644 11 ", "VERSION file 644 35 ", "bin/go file 755 1 ", "pkg/tool/linux_amd64/asm file 755 1 ",
			"src/make.bash file 755 1 ", "lib/wasm/go_js_wasm_exec file 755 1 ", "misc/x.pl file 755 0 ",
		}},
		{"Windows zip", []zfile{
			{name: "go/", mode: fs.ModeDir | 0o755},
			{name: "go/VERSION", content: "go1.23.3", mode: 0o640, method: zip.Deflate},
			{name: "go/bin/", mode: fs.ModeDir | 0o700},
			{name: "go/bin/go.exe", content: "x", mode: 0o755},
			{name: "go/link", content: "bin/go.exe", mode: fs.ModeSymlink | 0o777},
			{name: "go/src/_go.mod", content: "x", mode: 0o644},
		}, []string{
			"VERSION file 640 8 ", "bin folder 700 0 ", "bin/go.exe file 755 1 ", "link symbolic link 777 0 bin/go.exe", "src/_go.mod file 644 1 ",
		}},
		{"zip without modes", []zfile{
			{name: "go/VERSION", content: "go1.23.3"},
			{name: "go/src/"},
			{name: "go/pkg/x.exe", content: "x"},
		}, []string{"VERSION file 644 8 ", "src folder 755 0 ", "pkg/x.exe file 755 1 "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readZip(t, makeZip(t, tt.files...), Options{})
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, e := range got {
				lines = append(lines, fmt.Sprintf("%s %s %o %d %s", e.Path, e.Kind, e.Mode, e.Size, e.Target))
				when := time.Date(2024, 1, 2, 3, 4, 6, 0, time.UTC)
				if tt.name == "module" {
					when = time.Date(2024, 11, 6, 18, 46, 45, 0, time.UTC)
				}
				if !e.ModTime.Equal(when) {
					t.Errorf("%s is of %v", e.Path, e.ModTime)
				}
			}
			if strings.Join(lines, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestHostileZip(t *testing.T) {
	with := func(files ...zfile) []byte { return makeZip(t, append([]zfile{modVersion()}, files...)...) }
	lie := func(edit func(*zip.FileHeader)) []byte {
		return with(zfile{name: modTop + "a", content: "content of a", edit: edit})
	}
	deflated := func(edit func(*zip.FileHeader)) []byte { // twelve bytes, deflated
		return with(zfile{name: modTop + "a", content: "\x4b\xac\x00\x82\x2c\x08\x05\x00", edit: func(h *zip.FileHeader) {
			h.Method = zip.Deflate
			h.UncompressedSize64 = 12
			edit(h)
		}})
	}
	whole := with(zfile{name: modTop + "a", content: "content of a"})
	for _, tt := range []struct {
		name    string
		archive []byte
		want    error
	}{
		{"empty zip", makeZip(t), ErrNotRelease},
		{"other top folder", makeZip(t, zfile{name: "rust/README"}), ErrNotRelease},
		{"other module", makeZip(t, zfile{name: "golang.org/x/mod@v0.1.0/go.mod"}), ErrNotRelease},
		{"no version in the module", makeZip(t, zfile{name: "golang.org/toolchain@v0.0.1/VERSION"}), ErrNotRelease},
		{"two top folders", with(zfile{name: "go/x"}), ErrNotRelease},
		{"no release", makeZip(t, zfile{name: modTop + "README"}), ErrNotRelease},
		{"absolute", with(zfile{name: "/etc/passwd"}), ErrUnsafe},
		{"dot dot", with(zfile{name: modTop + "../x"}), ErrUnsafe},
		{"dot dot at once", with(zfile{name: "../x"}), ErrUnsafe},
		{"backslash", with(zfile{name: modTop + `..\x`}), ErrUnsafe},
		{"NUL", with(zfile{name: modTop + "a\x00b"}), ErrUnsafe},
		{"empty element", with(zfile{name: modTop + "a//b"}), ErrUnsafe},
		{"two slashes at end", with(zfile{name: modTop + "a//"}), ErrUnsafe},
		{"not UTF-8", with(zfile{name: modTop + "\xff\xfe"}), ErrUnsafe},
		{"element too long", with(zfile{name: modTop + strings.Repeat("x", 256)}), ErrUnsafe},
		{"duplicate", with(zfile{name: modTop + "a"}, zfile{name: modTop + "a"}), ErrUnsafe},
		{"go.mod and _go.mod", with(zfile{name: modTop + "go.mod"}, zfile{name: modTop + "_go.mod"}), ErrUnsafe},
		{"below a file", with(zfile{name: modTop + "a"}, zfile{name: modTop + "a/b"}), ErrUnsafe},
		{"link out", with(zfile{name: modTop + "a", content: "../x", mode: fs.ModeSymlink | 0o777}), ErrUnsafe},
		{"absolute link", with(zfile{name: modTop + "a", content: "/x", mode: fs.ModeSymlink | 0o777}), ErrUnsafe},
		{"long link", with(zfile{name: modTop + "a", content: strings.Repeat("x", 5000), mode: fs.ModeSymlink | 0o777}), ErrUnsafe},
		{"device", with(zfile{name: modTop + "a", mode: fs.ModeDevice | 0o666}), ErrUnsafe},
		{"named pipe", with(zfile{name: modTop + "a", mode: fs.ModeNamedPipe | 0o666}), ErrUnsafe},
		{"encrypted", lie(func(h *zip.FileHeader) { h.Flags |= 1 }), ErrUnsafe},
		{"unknown method", lie(func(h *zip.FileHeader) { h.Method = 12 }), ErrUnsafe},
		{"wrong CRC", lie(func(h *zip.FileHeader) { h.CRC32++ }), ErrCorrupt},
		{"CRC of zero", lie(func(h *zip.FileHeader) { h.CRC32 = 0 }), ErrCorrupt},
		{"two sizes", lie(func(h *zip.FileHeader) { h.UncompressedSize64++ }), ErrCorrupt},
		{"body past the end", lie(func(h *zip.FileHeader) { h.CompressedSize64 += 1 << 20; h.UncompressedSize64 += 1 << 20 }), ErrTruncated},
		{"bad deflate", deflated(func(h *zip.FileHeader) { h.CRC32 = 1 }), ErrCorrupt},
		{"longer than its size", deflatedBomb(t, 1000, 10), ErrCorrupt},
		{"shorter than its size", deflatedBomb(t, 10, 1000), ErrTruncated},
		{"size 0 but content", deflatedBomb(t, 1000, 0), ErrCorrupt},
		{"size past the limit", deflatedBomb(t, 10, 1<<60), ErrTooLarge},
		{"overlapping entries", overlapping(t), ErrUnsafe},
		{"cut", whole[:len(whole)-30], ErrTruncated},
		{"half", whole[:len(whole)/2], ErrTruncated},
		{"header only", whole[:10], ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readZip(t, tt.archive, Options{})
			wantError(t, err, tt.want)
		})
	}
}

// deflatedBomb has an entry of real bytes whose header says claimed.
func deflatedBomb(t testing.TB, size, claimed int) []byte {
	plain := strings.Repeat("x", size)
	packed := makeZip(t, zfile{name: "x", content: plain, method: zip.Deflate})
	zr, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := zr.File[0].OpenRaw()
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(raw)
	if err != nil {
		t.Fatal(err)
	}
	return makeZip(t, modVersion(), zfile{name: modTop + "a", content: string(body), edit: func(h *zip.FileHeader) {
		h.Method = zip.Deflate
		h.CRC32 = crc32.ChecksumIEEE([]byte(plain))
		h.UncompressedSize64 = uint64(claimed)
	}})
}

// overlapping makes the second entry's body that of the first.
func overlapping(t testing.TB) []byte {
	b := makeZip(t, modVersion(), zfile{name: modTop + "a", content: "aaaa"}, zfile{name: modTop + "b", content: "aaaa"})
	entry := bytes.LastIndex(b, []byte("PK\x01\x02"))
	first := bytes.Index(b, []byte(modTop+"a")) - 30
	binary.LittleEndian.PutUint32(b[entry+42:], uint32(first))
	return b
}

func TestZipLimits(t *testing.T) {
	var many []zfile
	many = append(many, zfile{name: "go/VERSION", content: "go1.23.3"})
	for i := range 20 {
		many = append(many, zfile{name: fmt.Sprintf("go/%d", i), content: strings.Repeat("x", 1000), method: zip.Deflate})
	}
	archive := makeZip(t, many...)
	for _, tt := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"size reached", Options{MaxSize: 20008}, true},
		{"size passed", Options{MaxSize: 20007}, false},
		{"names reached", Options{MaxEntries: 21}, true},
		{"names passed", Options{MaxEntries: 20}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readZip(t, archive, tt.o)
			if tt.ok && err != nil {
				t.Error(err)
			} else if !tt.ok {
				wantError(t, err, ErrTooLarge)
			}
		})
	}
}

// A directory of millions of entries is refused while it is parsed.
func TestZipHugeDirectory(t *testing.T) {
	var files []zfile
	for i := range 300 {
		files = append(files, zfile{name: fmt.Sprintf("go/%d/%s", i, strings.Repeat("x", 65000))})
	}
	_, err := readZip(t, makeZip(t, files...), Options{})
	wantError(t, err, ErrTooLarge)
}

func TestZipChecksum(t *testing.T) {
	_, err := readZip(t, makeZip(t, modVersion()), Options{SHA256: strings.Repeat("a", 64)})
	wantError(t, err, ErrChecksum)
}

// Openers of a zip work after yield has returned, all at once.
func TestZipConcurrent(t *testing.T) {
	files := []zfile{modVersion()}
	for i := range 50 {
		files = append(files, zfile{name: fmt.Sprintf("%s%d", modTop, i), content: strings.Repeat(fmt.Sprint(i), 10000), method: zip.Deflate})
	}
	file := filepath.Join(t.TempDir(), "a.zip")
	if err := os.WriteFile(file, makeZip(t, files...), 0o644); err != nil {
		t.Fatal(err)
	}
	src := openT(t, file, Options{})
	openers := make(map[string]Opener)
	if err := src.Walk(t.Context(), func(e Entry, open Opener) error {
		openers[e.Path] = open
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for p, open := range openers {
		wg.Go(func() {
			r, err := open()
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			if err != nil || p != "VERSION" && string(b) != strings.Repeat(p, 10000) {
				t.Errorf("%s: %d bytes, %v", p, len(b), err)
			}
		})
	}
	wg.Wait()
	if src.Read() == 0 || src.Read() > src.Size() {
		t.Errorf("read %d of %d bytes", src.Read(), src.Size())
	}
}

func TestZipCancel(t *testing.T) {
	archive := makeZip(t, modVersion(), zfile{name: modTop + "a", content: strings.Repeat("x", 1000)})
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	go pw.Write(archive[:len(archive)-1])
	src, err := Open(ctx, "-", Options{Stdin: pr, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	defer pr.Close()
	cancel()
	wantError(t, src.Walk(ctx, func(Entry, Opener) error { return nil }), context.Canceled)
}

// A temporary file has no name in its folder.
func TestTempFile(t *testing.T) {
	dir := t.TempDir()
	f, err := tempFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("the temporary file has a name: %v", left)
	}
	if fi, err := f.Stat(); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if _, err := tempFile(filepath.Join(dir, "none")); err == nil {
		t.Error("a temporary file in no folder")
	}
}
