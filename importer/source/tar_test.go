package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
)

// file, link and folder are headers for makeTar. A file's content is its name
// repeated up to its size.
func file(name string, size int) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(size), Mode: 0o644, ModTime: time.Unix(1e9, 0)}
}

func link(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

func folderHdr(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
}

func versionHdr() tar.Header { return file("go/VERSION", 9) }

// makeTar builds a tar archive without its end marker if end is false.
func makeTar(t testing.TB, end bool, hdrs ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range hdrs {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(tw, strings.Repeat("x", int(h.Size)))
		}
	}
	if err := tw.Flush(); err != nil {
		t.Fatal(err)
	}
	if end {
		tw.Close()
	}
	return buf.Bytes()
}

// patched is one header block with bytes of it replaced and a right checksum,
// for what archive/tar does not write.
func patched(t testing.TB, h tar.Header, at int, with string) []byte {
	b := makeTar(t, false, h)
	copy(b[at:], with)
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func gz(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func zst(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// readAll opens archive as standard input and reads it to the end, in the
// small pieces of a slow pipe.
func readAll(t testing.TB, archive []byte, o Options) ([]Entry, error) {
	t.Helper()
	o.Stdin = iotest.HalfReader(bytes.NewReader(archive))
	if o.TempDir == "" {
		o.TempDir = t.TempDir()
	}
	src, err := Open(t.Context(), "-", o)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	var got []Entry
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
		b, err := io.ReadAll(r)
		if err == nil && int64(len(b)) != e.Size {
			err = fmt.Errorf("%s: %d bytes, not %d", e.Path, len(b), e.Size)
		}
		return err
	})
	return got, err
}

func TestTarEntries(t *testing.T) {
	long := "go/" + strings.Repeat("long/", 60) + "name"
	hdrs := []tar.Header{
		{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}},
		folderHdr("go/"),
		{Typeflag: tar.TypeReg, Name: "go/VERSION", Size: 9, Mode: 0o6755, ModTime: time.Unix(1e9, 0)},
		folderHdr("go/bin/"),
		file("go/bin/go", 3000),
		link("go/bin/gofmt", "../pkg/gofmt"),
		link("go/dangling", "not/there"),
		file("go/pkg/gofmt", 0),
		folderHdr("go/pkg/"),
		file("go/Readme", 1), file("go/README", 1),
		{Typeflag: tar.TypeReg, Name: long, Size: 1, Mode: 0o600, Format: tar.FormatGNU},
		{Typeflag: tar.TypeReg, Name: long + "2", Size: 1, Mode: 0o600, Format: tar.FormatPAX},
	}
	plain := makeTar(t, true, hdrs...)
	for name, archive := range map[string][]byte{
		"tar": plain, "gzip": gz(plain), "zstd": zst(t, plain),
		"tape blocks": gz(append(plain[:len(plain):len(plain)], make([]byte, 10<<10)...)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(t, archive, Options{})
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, e := range got {
				lines = append(lines, fmt.Sprintf("%s %s %o %d %s", e.Path, e.Kind, e.Mode, e.Size, e.Target))
			}
			want := []string{
				"VERSION file 755 9 ",
				"bin folder 755 0 ",
				"bin/go file 644 3000 ",
				"bin/gofmt symbolic link 777 0 ../pkg/gofmt",
				"dangling symbolic link 777 0 not/there",
				"pkg/gofmt file 644 0 ",
				"pkg folder 755 0 ",
				"Readme file 644 1 ", "README file 644 1 ",
				long[3:] + " file 600 1 ", long[3:] + "2 file 600 1 ",
			}
			if strings.Join(lines, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
			}
			if !got[0].ModTime.Equal(time.Unix(1e9, 0)) {
				t.Errorf("ModTime = %v", got[0].ModTime)
			}
		})
	}
}

func TestHostileTar(t *testing.T) {
	tarOf := func(hdrs ...tar.Header) []byte { return makeTar(t, true, append(hdrs, versionHdr())...) }
	join := func(parts ...[]byte) []byte { return append(bytes.Join(parts, nil), makeTar(t, true, versionHdr())...) }
	typed := func(flag byte, linkname string) []byte {
		return join(patched(t, link("go/x", "target"), 156, string(flag)+linkname))
	}
	whole := makeTar(t, true, file("go/a", 5000), versionHdr())
	zipped := gz(whole)
	for _, tt := range []struct {
		name    string
		archive []byte
		want    error
	}{
		{"empty", nil, ErrNotRelease},
		{"text", []byte("hello, I am no archive"), ErrNotRelease},
		{"HTML", []byte("<!DOCTYPE html><html>"), ErrNotRelease},
		{"xz", []byte("\xfd7zXZ\x00 and more"), ErrNotRelease},
		{"gzip of text", gz([]byte("hello")), ErrTruncated},
		{"gzip of long text", gz(bytes.Repeat([]byte("hello "), 1000)), ErrNotRelease},
		{"gzip of nothing", gz(nil), ErrTruncated},
		{"no release", makeTar(t, true, file("go/README", 3)), ErrNotRelease},
		{"VERSION is a folder", makeTar(t, true, folderHdr("go/VERSION/")), ErrNotRelease},
		{"other top folder", tarOf(file("rust/README", 3)), ErrNotRelease},
		{"dot before top", tarOf(file("./go/README", 3)), ErrNotRelease},
		{"top is a file", tarOf(file("go", 3)), ErrUnsafe},
		{"top twice", tarOf(folderHdr("go/"), folderHdr("go")), ErrUnsafe},

		{"absolute", tarOf(file("/etc/passwd", 3)), ErrUnsafe},
		{"absolute below top", tarOf(file("go//etc/passwd", 3)), ErrUnsafe},
		{"dot dot", tarOf(file("../x", 3)), ErrUnsafe},
		{"dot dot below top", tarOf(file("go/../x", 3)), ErrUnsafe},
		{"dot dot at end", tarOf(folderHdr("go/a/../..")), ErrUnsafe},
		{"dot", tarOf(file("go/./x", 3)), ErrUnsafe},
		{"empty element", tarOf(file("go/a//x", 3)), ErrUnsafe},
		{"file with a slash at its end", tarOf(tar.Header{Typeflag: tar.TypeSymlink, Name: "go/x/", Linkname: "y"}), ErrUnsafe},
		{"backslash", tarOf(file(`go/..\x`, 3)), ErrUnsafe},
		{"not UTF-8", join(patched(t, file("go/xy", 0), 4, "\xff")), ErrUnsafe},
		{"element too long", tarOf(file("go/"+strings.Repeat("x", 256), 3)), ErrUnsafe},
		{"path too long", tarOf(file("go/"+strings.Repeat("x/", 2100)+"x", 3)), ErrUnsafe},

		{"duplicate file", tarOf(file("go/a", 3), file("go/a", 3)), ErrUnsafe},
		{"duplicate folder", tarOf(folderHdr("go/a/"), folderHdr("go/a/")), ErrUnsafe},
		{"file where a folder is", tarOf(file("go/a/b", 3), file("go/a", 3)), ErrUnsafe},
		{"folder where a file is", tarOf(file("go/a", 3), folderHdr("go/a/")), ErrUnsafe},
		{"below a file", tarOf(file("go/a", 3), file("go/a/b", 3)), ErrUnsafe},
		{"below a link", tarOf(link("go/a", "b"), file("go/a/b", 3)), ErrUnsafe},

		{"absolute link", tarOf(link("go/a", "/etc")), ErrUnsafe},
		{"link out", tarOf(link("go/a", "../b")), ErrUnsafe},
		{"link out from below", tarOf(link("go/d/a", "../../b")), ErrUnsafe},
		{"link out and in again", tarOf(link("go/a", "../go/b")), ErrUnsafe},
		{"link out over a link", tarOf(link("go/d/up", ".."), link("go/out", "d/up/../x")), ErrUnsafe},
		{"links in a circle", tarOf(link("go/a", "b"), link("go/b", "a")), ErrUnsafe},
		{"link to itself", tarOf(link("go/a", "a/a")), ErrUnsafe},
		{"empty link", typed('2', "\x00"), ErrUnsafe},

		{"hard link", typed('1', "go/VERSION"), ErrUnsafe},
		{"character device", typed('3', ""), ErrUnsafe},
		{"block device", typed('4', ""), ErrUnsafe},
		{"named pipe", typed('6', ""), ErrUnsafe},
		{"contiguous file", typed('7', ""), ErrUnsafe},
		{"unknown type", typed('Z', ""), ErrUnsafe},
		{"GNU volume header", typed('V', ""), ErrUnsafe},
		{"GNU sparse file", sparseGNU(t), ErrUnsafe},
		{"PAX sparse file", sparsePAX(t), ErrUnsafe},
		{"PAX name with NUL", paxName(t, "go/a\x00b"), ErrCorrupt},
		{"PAX name that leads out", paxName(t, "go/../../x"), ErrUnsafe},
		{"PAX size that lies", paxRecord(t, "size", "99999999999999"), ErrTooLarge},
		{"negative size", join(makeTar(t, false, file("go/first", 1)), patched(t, file("go/a", 0), 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), ErrCorrupt},
		{"bad header checksum", append(append(makeTar(t, false, versionHdr()), bytes.Repeat([]byte("x"), 512)...), make([]byte, 1024)...), ErrCorrupt},

		{"no end marker", gz(makeTar(t, false, versionHdr())), ErrTruncated},
		{"half an end marker", gz(append(makeTar(t, false, versionHdr()), make([]byte, 512)...)), ErrTruncated},
		{"zeros for content are no end marker", gz(makeTar(t, true, versionHdr(), file("go/a", 4096))[:2*512+512+4096]), ErrTruncated},
		{"something after the end", gz(append(whole[:len(whole):len(whole)], "extra"...)), ErrCorrupt},
		{"two archives", gz(append(whole[:len(whole):len(whole)], whole...)), ErrCorrupt},
		{"endless zeros after the end", gz(append(whole[:len(whole):len(whole)], make([]byte, 2<<20)...)), ErrCorrupt},
		{"cut in a file", gz(whole[:2000]), ErrTruncated},
		{"cut in a header", gz(whole[:5120+512+700]), ErrTruncated},
		{"gzip cut", zipped[:len(zipped)/2], ErrTruncated},
		{"gzip without its last byte", zipped[:len(zipped)-1], ErrTruncated},
		{"gzip without its sum", zipped[:len(zipped)-8], ErrTruncated},
		{"gzip with a wrong CRC", flip(zipped, len(zipped)-8), ErrCorrupt},
		{"gzip with a wrong length", flip(zipped, len(zipped)-1), ErrCorrupt},
		{"gzip with a bad header", flip(zipped, 2), ErrCorrupt},
		{"gzip with garbage behind", append(zipped[:len(zipped):len(zipped)], "garbage"...), ErrCorrupt},
		{"gzip of two members", append(zipped[:len(zipped):len(zipped)], zipped...), ErrCorrupt},
		{"zstd cut", zst(t, whole)[:40], ErrTruncated},
		{"zstd with a wrong sum", flip(zst(t, whole), len(zst(t, whole))-1), ErrCorrupt},
		{"zstd with garbage behind", append(zst(t, whole), "garbage"...), ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readAll(t, tt.archive, Options{})
			wantError(t, err, tt.want)
			if !strings.HasPrefix(err.Error(), "standard input: ") {
				t.Errorf("error %q does not start with the source", err)
			}
			if strings.Count(err.Error(), "standard input") > 1 {
				t.Errorf("error %q names the source twice", err)
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	b[at] ^= 0xff
	return b
}

func sparseGNU(t testing.TB) []byte {
	h := file("go/x", 0)
	h.Format = tar.FormatGNU
	return append(patched(t, h, 156, "S"), makeTar(t, true, versionHdr())...)
}

func sparsePAX(t testing.TB) []byte {
	return paxRecords(t, "22 GNU.sparse.major=1\n", "22 GNU.sparse.minor=0\n", "28 GNU.sparse.name=go/holes\n", "25 GNU.sparse.realsize=8\n")
}

func paxName(t testing.TB, name string) []byte { return paxRecord(t, "path", name) }

func paxRecord(t testing.TB, key, value string) []byte {
	rec := fmt.Sprintf(" %s=%s\n", key, value)
	n := len(rec) + 2
	return paxRecords(t, fmt.Sprintf("%d%s", n, rec))
}

// paxRecordsOf is an entry whose name and target are in PAX records, where any
// bytes can be.
func paxRecordsOf(t testing.TB, flag byte, values map[string]string) []byte {
	body := ""
	for key, value := range values {
		rec := fmt.Sprintf(" %s=%s\n", key, value)
		n := len(rec) + 1
		for len(fmt.Sprint(n))+len(rec) != n {
			n++
		}
		body += fmt.Sprint(n) + rec
	}
	head := patched(t, file("PaxHeader", len(body)), 156, "x")[:512]
	padded := make([]byte, (len(body)+511)/512*512)
	copy(padded, body)
	return bytes.Join([][]byte{head, padded, patched(t, file("go/plain", 0), 156, string(flag))}, nil)
}

// paxRecords is an archive whose first file has a PAX header of raw records.
func paxRecords(t testing.TB, records ...string) []byte {
	body := strings.Join(records, "")
	head := patched(t, file("PaxHeader", len(body)), 156, "x")[:512]
	padded := make([]byte, (len(body)+511)/512*512)
	copy(padded, body)
	content := append([]byte("1\n0\n8\n"), make([]byte, 506)...)
	plain := makeTar(t, false, file("go/plain", 520))[:512]
	return bytes.Join([][]byte{makeTar(t, false, file("go/first", 1)), head, padded, plain, content, make([]byte, 512), makeTar(t, true, versionHdr())}, nil)
}

func TestTarLimits(t *testing.T) {
	many := []tar.Header{versionHdr()}
	for i := range 20 {
		many = append(many, file(fmt.Sprintf("go/%d", i), 1000))
	}
	deep := []tar.Header{versionHdr(), file("go/"+strings.Repeat("d/", 30)+"f", 1)}
	bomb := gz(append(makeTar(t, false, versionHdr()), makeTar(t, true, file("go/bomb", 64<<20))...))
	for _, tt := range []struct {
		name    string
		archive []byte
		o       Options
		ok      bool
	}{
		{"size reached", makeTar(t, true, many...), Options{MaxSize: 20009}, true},
		{"size passed", makeTar(t, true, many...), Options{MaxSize: 20008}, false},
		{"names reached", makeTar(t, true, many...), Options{MaxEntries: 21}, true},
		{"names passed", makeTar(t, true, many...), Options{MaxEntries: 20}, false},
		{"implied folders count", makeTar(t, true, deep...), Options{MaxEntries: 20}, false},
		{"bomb", bomb, Options{MaxSize: 1 << 20}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readAll(t, tt.archive, tt.o)
			if tt.ok && err != nil {
				t.Error(err)
			} else if !tt.ok {
				wantError(t, err, ErrTooLarge)
			}
		})
	}
}

// Many small global headers are many entries, though none is a file.
func TestTarHeaderFlood(t *testing.T) {
	flood := []tar.Header{versionHdr()}
	for range 50 {
		flood = append(flood, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}})
	}
	_, err := readAll(t, makeTar(t, true, flood...), Options{MaxEntries: 40})
	wantError(t, err, ErrTooLarge)
}

func TestTarChecksum(t *testing.T) {
	archive := gz(makeTar(t, true, versionHdr()))
	sum := sha256.Sum256(archive)
	right := hex.EncodeToString(sum[:])
	if _, err := readAll(t, archive, Options{SHA256: strings.ToUpper(right)}); err != nil {
		t.Error(err)
	}
	_, err := readAll(t, archive, Options{SHA256: strings.Repeat("0", 64)})
	wantError(t, err, ErrChecksum)
	if _, err := readAll(t, archive, Options{SHA256: "abc"}); err == nil {
		t.Error("a checksum of three digits was taken")
	}
}

func TestTarOpener(t *testing.T) {
	archive := makeTar(t, true, versionHdr(), file("go/a", 100), file("go/b", 100))
	src := openT(t, "-", Options{Stdin: bytes.NewReader(archive)})
	var late Opener
	seen := 0
	err := src.Walk(t.Context(), func(e Entry, open Opener) error {
		seen++
		switch e.Path {
		case "VERSION": // not opened at all
		case "a":
			late = open
			if _, err := open(); err != nil {
				return err
			}
			if _, err := open(); err == nil {
				t.Error("a file could be opened twice")
			}
		}
		return nil
	})
	if err != nil || seen != 3 {
		t.Errorf("Walk: %v after %d entries", err, seen)
	}
	if _, err := late(); err == nil {
		t.Error("a file could be opened after yield had returned")
	}
}

func TestTarYieldError(t *testing.T) {
	stop := errors.New("stop")
	src := openT(t, "-", Options{Stdin: bytes.NewReader(gz(makeTar(t, true, versionHdr(), file("go/a", 1))))})
	if err := src.Walk(t.Context(), func(Entry, Opener) error { return stop }); err != stop {
		t.Errorf("Walk = %v, want %v itself", err, stop)
	}
}

// Cancelling ends a walk although standard input never says another word.
func TestTarCancel(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		pr, pw := io.Pipe()
		archive := makeTar(t, false, versionHdr(), file("go/big", 4<<20))
		if compressed {
			archive = gz(archive)
			archive = archive[:len(archive)-20]
		}
		go pw.Write(archive) // and then nothing, and no end
		ctx, cancel := context.WithCancel(t.Context())
		src, err := Open(ctx, "-", Options{Stdin: pr})
		if err != nil {
			t.Fatal(err)
		}
		err = src.Walk(ctx, func(e Entry, open Opener) error {
			cancel()
			return nil
		})
		wantError(t, err, context.Canceled)
		if err := src.Close(); err != nil {
			t.Error(err)
		}
		pr.Close()
	}
}
