package hostile

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const block = 512

// header is a block of a tar archive with a right checksum.
func header(name string, flag byte, size int64, link string, edit ...func(b []byte)) []byte {
	b := make([]byte, block)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00", size))
	copy(b[136:], "07346545000\x00")
	b[156] = flag
	copy(b[157:], link)
	copy(b[257:], "ustar\x0000")
	for _, e := range edit {
		e(b)
	}
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// put is an edit of a header.
func put(at int, s string) func([]byte) { return func(b []byte) { copy(b[at:], s) } }

// gnu makes a header one of GNU tar.
var gnu = put(257, "ustar  \x00")

func padded(content string) []byte {
	return append([]byte(content), make([]byte, (block-len(content)%block)%block)...)
}

func file(name, content string) []byte {
	return append(header(name, '0', int64(len(content)), ""), padded(content)...)
}

func folder(name string) []byte       { return header(name, '5', 0, "") }
func link(name, target string) []byte { return header(name, '2', 0, target) }

// pax is the extended header for the entry behind it.
func pax(flag byte, records ...string) []byte {
	body := ""
	for _, r := range records {
		n := len(r) + 3
		for len(fmt.Sprintf("%d %s\n", n, r)) != n {
			n++
		}
		body += fmt.Sprintf("%d %s\n", n, r)
	}
	return append(header("PaxHeader", flag, int64(len(body)), ""), padded(body)...)
}

// long is what GNU tar writes before an entry with a long name ('L') or target ('K').
func long(flag byte, name string) []byte {
	return append(header("././@LongLink", flag, int64(len(name)+1), "", gnu), padded(name+"\x00")...)
}

var end = make([]byte, 2*block)

// release is what makes a tar archive a release.
func release() []byte {
	return bytes.Join([][]byte{
		file("go/VERSION", "go1.22.8\ntime 2024-10-01T16:22:24Z\n"),
		file("go/bin/go", "the go command\n"), file("go/pkg/tool/linux_amd64/compile", "the compiler\n"),
		file("go/src/a.go", "package a\n"),
	}, nil)
}

// tarball is a release with entries before its own.
func tarball(parts ...[]byte) []byte {
	return bytes.Join(append(parts, release(), end), nil)
}

func gz(parts ...[]byte) []byte {
	var out bytes.Buffer
	w := value(gzip.NewWriterLevel(&out, gzip.BestCompression))
	for _, p := range parts {
		value(w.Write(p))
	}
	must(w.Close())
	return out.Bytes()
}

func zst(b []byte, o ...zstd.EOption) []byte {
	w := value(zstd.NewWriter(nil, o...))
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// zeros is a zstd frame of n bytes of zero, without a sum, in 4 bytes for
// each 128 KiB.
func zeros(n int, window byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, window}
	for n > 0 {
		k := min(n, 128<<10)
		n -= k
		h := uint32(k)<<3 | 1<<1 // an RLE block
		if n == 0 {
			h |= 1
		}
		b = append(b, byte(h), byte(h>>8), byte(h>>16), 0)
	}
	return b
}

// The descriptors of windows of 64 and 128 MiB, the most that a record and a
// tarball may have.
const (
	window64  = (26 - 10) << 3
	window128 = (27 - 10) << 3
)

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[(at+len(b))%len(b)] ^= 0xff
	return b
}

func archives() []Case {
	var list []Case
	add := func(name, want string, data []byte, flags ...string) {
		list = append(list, Case{Name: name, Want: want, Data: data, Flags: flags})
	}
	// entry is a release in a gzipped tarball, with something odd before it.
	entry := func(name, want string, parts ...[]byte) { add(name+".tar.gz", want, gz(tarball(parts...))) }

	const unsafe, corrupt, truncated, large, foreign = "unsafe entry", "corrupt archive", "truncated", "too large", "not a Go release"
	for name, bad := range map[string]string{
		"absolute": "/etc/passwd", "dotdot": "../x", "dotdot-below": "go/../../x", "dotdot-end": "go/src/..", "dot": "go/./x",
		"empty-element": "go/src//x", "absolute-below": "go//etc/passwd", "backslash": `go\..\x`, "backslash-below": `go/..\..\x`, "drive": `go/c:\x`,
		"not-utf8": "go/\xff\xfe", "half-utf8": "go/\xe2\x82",
	} {
		want := unsafe
		if name == "backslash" {
			want = foreign
		}
		entry("name-"+name, want, file(bad, "x"))
	}
	entry("name-pax-out", unsafe, pax('x', "path=go/../../x"), file("go/x", "x"))
	entry("name-pax-nul", corrupt, file("go/first", ""), pax('x', "path=go/a\x00b"), file("go/x", "x"))
	entry("name-pax-empty", "", pax('x', "path="), file("go/x", "x"))
	entry("name-gnu-out", unsafe, long('L', "go/../../x"), header("go/x", '0', 0, "", gnu))
	entry("name-gnu-long", unsafe, long('L', "go/"+strings.Repeat("d/", 2100)+"x"), header("go/x", '0', 0, "", gnu))
	entry("name-gnu-element", unsafe, long('L', "go/"+strings.Repeat("x", 256)), header("go/x", '0', 0, "", gnu))
	entry("name-gnu-twice", unsafe, long('L', "go/y"), long('L', "go/../x"), header("go/x", '0', 0, "", gnu))
	entry("name-gnu-alone", "has no VERSION", long('L', "go/y"))
	entry("name-case", "", file("go/src/README", "upper"), file("go/src/readme", "lower"), file("go/SRC/readme", "x"))
	entry("name-odd", "", file("go/src/\x1b[2J\u202egpj.exe\n", "x"))

	for name, target := range map[string]string{
		"absolute": "/etc/passwd", "out": "../../x", "out-and-in": "../../go/src/a.go", "empty": "", "not-utf8": "\xff",
	} {
		entry("link-"+name, unsafe, link("go/src/l", target))
	}
	entry("link-gnu-out", unsafe, long('K', strings.Repeat("../", 200)+"etc/passwd"), header("go/l", '2', 0, "", gnu))
	entry("link-gnu-long", unsafe, long('K', strings.Repeat("x", 5000)), header("go/l", '2', 0, "", gnu))
	entry("link-pax-nul", corrupt, file("go/first", ""), pax('x', "linkpath=a\x00b"), link("go/l", "x"))
	entry("link-over-link", unsafe, link("go/d/up", ".."), link("go/out", "d/up/../x"))
	entry("link-circle", unsafe, link("go/a", "b"), link("go/b", "a"))
	entry("link-self", unsafe, link("go/a", "a/a"))
	var maze [][]byte
	for i := range 60 { // each follows the next twice
		maze = append(maze, link(fmt.Sprintf("go/m%d", i), fmt.Sprintf("m%d/../m%[1]d", i+1)))
	}
	entry("link-maze", unsafe, maze...)
	entry("below-link", unsafe, link("go/a", "src"), file("go/a/x", "x"))
	entry("below-file", unsafe, file("go/a", "x"), file("go/a/x", "x"))
	entry("twice", unsafe, file("go/a", "x"), file("go/a", "y"))
	entry("twice-version", unsafe, file("go/VERSION", "go1.22.7"))
	entry("twice-folder", unsafe, folder("go/a/"), folder("go/a/"))
	entry("file-over-folder", unsafe, file("go/a/x", "x"), file("go/a", "x"))
	entry("folder-over-file", unsafe, file("go/a", "x"), folder("go/a/"))
	entry("top-is-file", unsafe, file("go", "x"))
	entry("top-is-link", unsafe, link("go", "/etc"))
	entry("two-tops", foreign, file("rust/a", "x"))

	for _, flag := range []byte("1346789ADEIKLMNSVXZghjxz\xff\x01") {
		want := unsafe
		switch flag {
		case 'K', 'L': // of no content: the next entry's name or target is empty
			want = ""
		case 'x', 'g':
			want = ""
		case 'S': // is none of the older formats'
			want = corrupt
		}
		if flag == '1' {
			entry("type-hardlink", unsafe, header("go/x", '1', 0, "go/VERSION"))
			continue
		}
		entry(fmt.Sprintf("type-%02x", flag), want, file("go/first", ""), header("go/x", flag, 0, ""))
	}
	entry("sparse-gnu", unsafe, header("go/x", 'S', 0, "", gnu))
	entry("sparse-gnu-map", "unsafe entry|corrupt archive", header("go/x", 'S', block, "", gnu, put(386, "00000000000\x0000000001000\x00"), put(483, "77777777777\x00")), make([]byte, block))
	entry("sparse-gnu-endless", "unsafe entry|corrupt archive", file("go/first", ""), header("go/x", 'S', 0, "", gnu, put(482, "\x01"), put(483, "00000001000\x00")), bytes.Repeat([]byte("1"), block))
	entry("sparse-pax-0.0", "unsafe entry|corrupt archive", pax('x', "GNU.sparse.size=9223372036854775807", "GNU.sparse.numblocks=1", "GNU.sparse.offset=0", "GNU.sparse.numbytes=1"), file("go/x", "x"))
	entry("sparse-pax-0.1", "unsafe entry|corrupt archive", pax('x', "GNU.sparse.size=1000000000000", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1"), file("go/x", "x"))
	entry("sparse-pax-1.0", "unsafe entry|corrupt archive", pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=go/holes", "GNU.sparse.realsize=4611686018427387904"), file("go/x", "1\n4611686018427387903\n1\n"+strings.Repeat("\x00", 490)+"x"))

	entry("size-pax", large, pax('x', "size=99999999999999"), header("go/x", '0', 0, ""))
	entry("size-pax-negative", corrupt, file("go/first", ""), pax('x', "size=-1"), header("go/x", '0', 0, ""))
	entry("size-pax-word", corrupt, file("go/first", ""), pax('x', "size=many"), header("go/x", '0', 0, ""))
	entry("size-negative", corrupt, header("go/first", '0', 0, ""), header("go/x", '0', 0, "", put(124, strings.Repeat("\xff", 12))))
	entry("size-huge", "too large|corrupt archive", header("go/first", '0', 0, ""), header("go/x", '0', 0, "", put(124, "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")))
	entry("size-word", corrupt, header("go/first", '0', 0, ""), header("go/x", '0', 0, "", put(124, "size of x  \x00")))
	entry("size-swallows", truncated, header("go/x", '0', 1<<20, ""))
	entry("folder-with-content", corrupt, header("go/d/", '5', block, ""), make([]byte, block))
	entry("link-with-content", corrupt, header("go/l", '2', block, "VERSION"), make([]byte, block))
	entry("pax-length-lies", corrupt, file("go/first", ""), header("PaxHeader", 'x', 20, ""), padded("99999 path=go/x\n...."), file("go/x", "x"))
	entry("pax-length-overflows", corrupt, file("go/first", ""), header("PaxHeader", 'x', 40, ""), padded("99999999999999999999999999 path=go/x\n..."), file("go/x", "x"))
	entry("pax-long", corrupt, file("go/first", ""), pax('x', "path=go/"+strings.Repeat("x", 2<<20)), file("go/x", "x"))
	entry("pax-many", "", pax('x', strings.Split(strings.Repeat("comment=x,", 3000)+"comment=y", ",")...), file("go/x", "x"))
	entry("gnu-long-long", corrupt, file("go/first", ""), long('L', strings.Repeat("x", 2<<20)), header("go/x", '0', 0, "", gnu))
	entry("checksum", corrupt, file("go/first", ""), flip(header("go/x", '0', 0, ""), 3))
	add("version-long.tar.gz", foreign, gz(file("go/VERSION", "go1.22.8\n"+strings.Repeat("x", 5000)), file("go/bin/go", "x"), end))
	add("version-out.tar.gz", "does not name a release", gz(file("go/VERSION", "go1.22.8/../../x\n"), file("go/bin/go", "x"), file("go/pkg/tool/linux_amd64/compile", "x"), end))
	add("version-escape.tar.gz", "does not name a release", gz(file("go/VERSION", "go1.22.8\x1b[2J\n"), file("go/bin/go", "x"), file("go/pkg/tool/linux_amd64/compile", "x"), end))

	// Truncated and changed.
	whole := tarball()
	for _, n := range []int{1, 100, 511, 512, 700, 1024, 1536, 2048, 3000, 4096, 4608} {
		add(fmt.Sprintf("cut-%d.tar", n), "truncated|not a Go release", whole[:n])
	}
	add("cut-end.tar", truncated, whole[:len(whole)-len(end)])
	add("cut-half-end.tar", truncated, whole[:len(whole)-block])
	packed := gz(whole)
	for _, n := range []int{1, 2, 3, 9, 10, 11, 50, len(packed) / 2, len(packed) - 9, len(packed) - 8, len(packed) - 4, len(packed) - 1} {
		add(fmt.Sprintf("cut-%d.tar.gz", n), "truncated|not a Go release", packed[:n])
	}
	frame := zst(whole)
	for _, n := range []int{1, 3, 4, 5, 6, 10, len(frame) / 2, len(frame) - 5, len(frame) - 4, len(frame) - 1} {
		add(fmt.Sprintf("cut-%d.tar.zst", n), "truncated|not a Go release|corrupt", frame[:n])
	}
	add("empty", foreign, nil)
	add("gzip-crc.tar.gz", corrupt, flip(packed, -8))
	add("gzip-length.tar.gz", corrupt, flip(packed, -1))
	add("gzip-header.tar.gz", corrupt, flip(packed, 2))
	add("gzip-body.tar.gz", "corrupt|truncated", flip(packed, len(packed)/2))
	add("gzip-twice.tar.gz", corrupt, append(bytes.Clone(packed), packed...))
	add("gzip-tail.tar.gz", corrupt, append(bytes.Clone(packed), "more"...))
	add("gzip-name.tar.gz", "corrupt|truncated", append([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3}, bytes.Repeat([]byte("x"), 8<<10)...))
	add("gzip-of-gzip.tar.gz", foreign, gz(packed, make([]byte, block)))
	add("zstd-crc.tar.zst", corrupt, flip(frame, -1))
	add("zstd-tail.tar.zst", corrupt, append(bytes.Clone(frame), "more"...))
	add("zstd-window.tar.zst", corrupt, append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff}, frame[6:]...))
	add("zstd-dictionary.tar.zst", corrupt, []byte("\x28\xb5\x2f\xfd\x01\x58\x07\x01\x00\x00"))
	add("zstd-reserved.tar.zst", "corrupt|truncated", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x08, 0x58}, 0x07, 0, 0))
	add("after-end.tar.gz", corrupt, gz(whole, []byte("more")))
	add("after-end-tar.tar.gz", corrupt, gz(whole, whole))
	add("after-end-zeros.tar.zst", corrupt, append(bytes.Clone(frame), zeros(64<<20, window128)...))

	// Bombs.
	bomb := "--max-size=64MiB"
	add("bomb-header.tar.gz", large, gz(header("go/VERSION", '0', 8<<30, ""), make([]byte, 1<<20)))
	add("bomb-file.tar.zst", large, bombOf(1), bomb)
	add("bomb-files.tar.zst", large, bombOf(64), bomb)
	add("bomb-tar.tar.zst", "too large|corrupt|truncated", bytes.Join([][]byte{zst(bytes.Join([][]byte{release()}, nil)), zeros(1<<30, window128)}, nil), bomb)
	add("bomb-window.tar.zst", truncated, slices.Concat(zst(slices.Concat(release(), header("go/src/bomb", '0', 300<<20, ""))), zeros(300<<20, window128)))
	return append(list, zips()...)
}

// bombOf is a tarball of a GiB of zeros in so many files, each frame for itself.
func bombOf(files int) []byte {
	out := zst(release())
	for i := range files {
		size := int64(1<<30) / int64(files)
		out = append(out, zst(header(fmt.Sprintf("go/src/bomb%d", i), '0', size, ""))...)
		out = append(out, zeros(int(size), window128)...)
	}
	return append(out, zst(end)...)
}

const module = "golang.org/toolchain@v0.0.1-go1.22.8.linux-amd64/"

// zipped is an entry of a zip. Edits are of its header, in the directory and
// before its content alike.
type zipped struct {
	name, content string
	edit          func(*zip.FileHeader)
}

func zipFile(top string, entries ...zipped) []byte {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	entries = append([]zipped{
		{name: top + "VERSION", content: "go1.22.8\ntime 2024-10-01T16:22:24Z\n"},
		{name: top + "bin/go", content: "the go command\n"}, {name: top + "pkg/tool/linux_amd64/compile", content: "the compiler\n"},
	}, entries...)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, CRC32: crc32.ChecksumIEEE([]byte(e.content)),
			CompressedSize64: uint64(len(e.content)), UncompressedSize64: uint64(len(e.content))}
		if e.edit != nil {
			e.edit(h)
		}
		f := value(w.CreateRaw(h))
		value(f.Write([]byte(e.content)))
	}
	must(w.Close())
	return out.Bytes()
}

// deflated are n bytes of zero as a deflate stream.
func deflated(n int) string {
	packed := gz(make([]byte, n))
	return string(packed[10 : len(packed)-8])
}

func zips() []Case {
	var list []Case
	add := func(name, want string, data []byte, flags ...string) {
		list = append(list, Case{Name: "zip-" + name + ".zip", Want: want, Data: data, Flags: flags})
	}
	const unsafe, corrupt, truncated, large, foreign = "unsafe entry", "corrupt archive", "truncated", "too large", "not a Go release"
	for name, bad := range map[string]string{
		"absolute": "/etc/passwd", "dotdot": "../x", "dotdot-below": module + "../../x", "backslash": module + `..\x`, "nul": module + "a\x00b",
		"empty-element": module + "a//b", "not-utf8": module + "\xff", "long": module + strings.Repeat("x", 256), "folder-with-slashes": module + "a//",
	} {
		add("name-"+name, unsafe, zipFile(module, zipped{name: bad}))
	}
	mode := func(m fs.FileMode) func(*zip.FileHeader) { return func(h *zip.FileHeader) { h.SetMode(m) } }
	one := func(name, want, content string, edit func(*zip.FileHeader)) {
		add(name, want, zipFile(module, zipped{module + "a", content, edit}))
	}
	one("link-out", unsafe, "../x", mode(fs.ModeSymlink|0o777))
	one("link-absolute", unsafe, "/etc/passwd", mode(fs.ModeSymlink|0o777))
	one("link-long", unsafe, strings.Repeat("x", 5000), mode(fs.ModeSymlink|0o777))
	one("device", unsafe, "", mode(fs.ModeDevice|0o666))
	one("pipe", unsafe, "", mode(fs.ModeNamedPipe|0o666))
	one("setuid", "", "x", mode(fs.ModeSetuid|0o755))
	one("encrypted", unsafe, "x", func(h *zip.FileHeader) { h.Flags |= 1 })
	one("method", unsafe, "x", func(h *zip.FileHeader) { h.Method = 99 })
	one("crc", corrupt, "x", func(h *zip.FileHeader) { h.CRC32++ })
	one("two-sizes", corrupt, "x", func(h *zip.FileHeader) { h.UncompressedSize64++ })
	one("past-end", truncated, "x", func(h *zip.FileHeader) { h.CompressedSize64, h.UncompressedSize64 = 1<<20, 1<<20 })
	one("size-2^60", large, "x", func(h *zip.FileHeader) { h.CompressedSize64, h.UncompressedSize64 = 1<<60, 1<<60 })
	one("deflate", corrupt, "\xff\xff\xff\xff", func(h *zip.FileHeader) { h.Method, h.UncompressedSize64 = zip.Deflate, 10 })
	longer := func(claimed uint64) func(*zip.FileHeader) {
		return func(h *zip.FileHeader) {
			h.Method, h.UncompressedSize64, h.CRC32 = zip.Deflate, claimed, crc32.ChecksumIEEE(make([]byte, 1<<20))
		}
	}
	one("longer", corrupt, deflated(1<<20), longer(1000))
	one("shorter", truncated, deflated(1<<20), longer(2<<20))
	one("none-but-content", corrupt, deflated(1<<20), longer(0))
	one("folder-with-content", "", "x", mode(fs.ModeDir|0o755))
	add("bomb", large, zipFile(module, zipped{module + "a", deflated(32 << 20), func(h *zip.FileHeader) {
		h.Method, h.UncompressedSize64 = zip.Deflate, 32<<20
	}}), "--max-size=16MiB")
	add("twice", unsafe, zipFile(module, zipped{name: module + "a"}, zipped{name: module + "a"}))
	add("twice-gomod", unsafe, zipFile(module, zipped{name: module + "go.mod"}, zipped{name: module + "_go.mod"}))
	add("two-tops", unsafe+"|"+foreign, zipFile(module, zipped{name: "go/x"}))
	add("below-file", unsafe, zipFile(module, zipped{name: module + "a"}, zipped{name: module + "a/b"}))
	add("case", "", zipFile(module, zipped{name: module + "src/A"}, zipped{name: module + "src/a"}))

	whole := zipFile(module, zipped{module + "a", "aaaa", nil}, zipped{module + "b", "aaaa", nil})
	entry := func(i int) int { // of the directory
		at := bytes.Index(whole, []byte("PK\x01\x02"))
		for range i {
			at += 4 + bytes.Index(whole[at+4:], []byte("PK\x01\x02"))
		}
		return at
	}
	tail := bytes.LastIndex(whole, []byte("PK\x05\x06"))
	edit := func(name, want string, at int, bits int, v uint64) {
		b := bytes.Clone(whole)
		if bits == 16 {
			binary.LittleEndian.PutUint16(b[at:], uint16(v))
		} else {
			binary.LittleEndian.PutUint32(b[at:], uint32(v))
		}
		add(name, want, b)
	}
	local := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(whole[entry(i)+42:])) }
	edit("overlap", unsafe, entry(4)+42, 32, local(3))
	edit("overlap-part", "unsafe|corrupt|truncated", entry(4)+42, 32, local(3)+4)
	edit("offset", "corrupt|truncated", entry(4)+42, 32, 1<<31)
	edit("local-name", "", int(local(4))+30, 16, uint64('x'))
	edit("local-name-length", "corrupt|truncated|unsafe", int(local(4))+26, 16, 0xffff)
	edit("count-more", "corrupt|truncated", tail+10, 16, 100)
	edit("count-less", "corrupt|truncated|unsafe", tail+10, 16, 1)
	edit("directory-offset", "corrupt|truncated", tail+16, 32, 0xfffffff0)
	edit("directory-size", "corrupt|truncated", tail+12, 32, 0xfffffff0)
	edit("directory-in-content", "corrupt|truncated", tail+16, 32, 0)
	edit("comment-lies", "corrupt|truncated", tail+20, 16, 1000)
	edit("extra-lies", "corrupt|truncated", entry(1)+30, 16, 0xffff)
	// Two directories: which one counts?
	add("two-directories", "", append(bytes.Clone(whole), whole[entry(0):]...))
	zip64 := append(bytes.Clone(whole[:tail]), "PK\x06\x06\x2c\x00\x00\x00\x00\x00\x00\x00\x2d\x00\x2d\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	for range 4 { // entries here, entries, size, offset
		zip64 = binary.LittleEndian.AppendUint64(zip64, 1<<62)
	}
	zip64 = append(zip64, "PK\x06\x07\x00\x00\x00\x00"...)
	zip64 = binary.LittleEndian.AppendUint64(zip64, uint64(tail))
	zip64 = append(zip64, 1, 0, 0, 0)
	add("zip64-lies", "corrupt|truncated", append(zip64, "PK\x05\x06\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00"...))
	for _, n := range []int{4, 10, 29, 40, entry(0) - 3, entry(0), entry(0) + 20, entry(2), tail, tail + 4, len(whole) - 1} {
		add(fmt.Sprintf("cut-%d", n), "truncated|corrupt|not a Go release", whole[:n])
	}
	return list
}

// largeArchives are made when they are needed.
func largeArchives() []Case {
	names := func(n int, entry func(i int) []byte) func() []byte {
		return func() []byte {
			var out bytes.Buffer
			w := value(zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedFastest)))
			value(w.Write(release()))
			for i := range n {
				value(w.Write(entry(i)))
			}
			value(w.Write(end))
			must(w.Close())
			return out.Bytes()
		}
	}
	return []Case{
		{Name: "large-files.tar.zst", Want: "too large", make: names(101_000, func(i int) []byte { return header(fmt.Sprintf("go/src/%d", i), '0', 0, "") })},
		{Name: "large-folders.tar.zst", Want: "too large", make: names(101_000, func(i int) []byte { return header(fmt.Sprintf("go/src/%d/", i), '5', 0, "") })},
		{Name: "large-names.tar.zst", Want: "too large", make: names(6_000, func(i int) []byte {
			return append(long('L', fmt.Sprintf("go/%s%d", strings.Repeat(strings.Repeat("x", 200)+"/", 19), i)), header("go/x", '0', 0, "", gnu)...)
		})},
		{Name: "large-most.tar.zst", make: names(45_000, func(i int) []byte { return header(fmt.Sprintf("go/src/%d/f", i), '0', 0, "") })},
		{Name: "large-directory.zip", Want: "too large", make: func() []byte {
			var entries []zipped
			for i := range 300 {
				entries = append(entries, zipped{name: fmt.Sprintf("%s%d/%s", module, i, strings.Repeat("x", 65000))})
			}
			return zipFile(module, entries...)
		}},
	}
}
