package hostile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"gofs/blobstore"
	"gofs/index"
	"gofs/internal/goprogtest"
)

const (
	damaged = "damaged"
	noIndex = "the index is damaged"
	noTree  = "not a valid tree"
)

// as names the victim as the content of a record that decodes to something else,
// or to nothing.
func as(r record, length uint32) record {
	r.parts = []part{{blobstore.Sum(victim), length}}
	return r
}

// edited is a sound record of the victim with a field of its header changed.
func edited(at int, v uint32) record {
	r := rawOf(victim)
	r.edit = func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) }
	return r
}

// patch is a delta to bases of a length, see package delta. Streams are plain.
func patch(plain, bases uint64, streams ...[]byte) []byte {
	b := binary.AppendUvarint([]byte{1}, plain)
	b = binary.AppendUvarint(b, bases)
	for i := range 6 {
		var s []byte
		if i < len(streams) {
			s = streams[i]
		}
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = binary.AppendUvarint(b, uint64(len(s))<<1)
		b = append(b, s...)
	}
	return b
}

func stores() []Case {
	var list []Case
	add := func(name, want string, m maker) {
		list = append(list, Case{Name: name + ".zip", Want: want, Data: m.store()})
	}
	add("sound", "", maker{})
	add("compact-base-of-itself", "its depth", ofItself())
	n := uint32(len(victim))

	// Headers.
	for name, h := range map[string]struct {
		at   int
		v    uint32
		want string
	}{
		"magic": {0, 0, "no record"}, "encoding": {4, 9, "unknown pack format"}, "kind": {4, 7 << 8, "unknown pack format"},
		"depth": {4, 1 << 16, "record bases"}, "depth-255": {4, 255 << 16, "record bases"},
		"plain-most": {8, math.MaxUint32, "record lengths"}, "plain-64MiB": {8, 64<<20 + 1, "record lengths"}, "plain-more": {8, n + 1, "record lengths"},
		"stored-most": {12, math.MaxUint32, "record lengths"}, "stored-more": {12, n + 1, "record lengths"}, "stored-less": {12, n - 1, "record lengths"},
		"blobs-none": {16, 0, "record lengths"}, "blobs-most": {16, math.MaxUint32, "record lengths"}, "blobs-65536": {16, 1 << 16, "outside the pack"},
		"bases": {20, 1, "record bases"}, "bases-most": {20, math.MaxUint32, "record bases"}, "bases-4096": {20, 4096, "record bases"},
		"first-length": {64, n + 1, "record lengths"},
	} {
		add("record-"+name, h.want, maker{records: []record{edited(h.at, h.v)}})
	}
	long := rawOf(victim)
	long.edit = func(b []byte) {
		for _, at := range []int{8, 12, 64} {
			binary.LittleEndian.PutUint32(b[at:], 60<<20)
		}
	}
	add("record-past-end", "outside the pack", maker{records: []record{long}})
	wrap := rawOf(victim, []byte("x"))
	wrap.edit = func(b []byte) {
		binary.LittleEndian.PutUint32(b[64:], math.MaxUint32)
		binary.LittleEndian.PutUint32(b[100:], n+2)
	}
	add("record-lengths-wrap", "record lengths", maker{records: []record{wrap}, victim: partOf(victim)})
	bad := rawOf(victim)
	bad.badSum = true
	add("record-sum", "checksum of the stored bytes", maker{records: []record{bad}})
	add("record-other-bytes", "checksum of a blob", maker{records: []record{as(rawOf(bytes.ToUpper(victim)), n)}})
	add("pack-cut", damaged, maker{pack: func(b []byte) []byte { return b[:len(b)-100] }})
	add("pack-empty", damaged, maker{pack: func([]byte) []byte { return nil }})
	add("pack-longer", damaged, maker{pack: func(b []byte) []byte { return append(b, b...) }})
	add("pack-trailer", "trailer", maker{pack: func(b []byte) []byte { return flip(b, -3) }})
	add("pack-trailer-count", "trailer", maker{pack: func(b []byte) []byte { return flip(b, -9) }})
	add("pack-newer", "unknown pack format", maker{pack: func(b []byte) []byte { b[8] = 2; return b }})
	add("pack-zeros", "no pack", maker{pack: func(b []byte) []byte { return make([]byte, len(b)) }})

	// Frames.
	frame := zst(victim)
	zstd := func(stored []byte, length uint32) record {
		return as(record{encoding: zstandard, stored: stored}, length)
	}
	for name, c := range map[string]struct {
		r    record
		want string
	}{
		"garbage": {zstd([]byte("this is no frame at all"), n), damaged},
		"empty":   {zstd(nil, n), damaged},
		"longer":  {zstd(frame, n-1), damaged}, "shorter": {zstd(frame, n+1), damaged},
		"cut":    {zstd(frame[:len(frame)/2], n), damaged},
		"window": {zstd(append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff}, frame[6:]...), n), damaged},
		"size":   {zstd(append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40}, frame[6:]...), n), damaged},
		"bomb":   {zstd(zeros(1<<30, window64), 64<<20), damaged},
		"zeros":  {zstd(zeros(64<<20, window64), 64<<20), "checksum of a blob"},
	} {
		add("zstd-"+name, c.want, maker{records: []record{c.r}})
	}
	list = append(list, chains()...)
	list = append(list, programs()...)
	list = append(list, trees()...)
	list = append(list, versions()...)
	list = append(list, indexes()...)
	return append(list, databases()...)
}

// on is a record that is a delta to bases. It takes nothing of them, so that
// any with their length will do.
func on(blob []byte, depth byte, total int, bases ...[]byte) record {
	r := record{encoding: delta, depth: depth, parts: []part{partOf(blob)}}
	for _, base := range bases {
		r.bases = append(r.bases, blobstore.Sum(base))
	}
	// Stored bytes are no longer than plain ones.
	packed := zst(blob)
	r.stored = patch(uint64(len(blob)), uint64(total))
	r.stored = binary.AppendUvarint(r.stored[:len(r.stored)-2], uint64(len(blob)))
	r.stored = append(binary.AppendUvarint(r.stored, uint64(len(packed))<<1|1), packed...)
	return r
}

// big is a record of 60 MiB in little room, whose first blob is a byte.
func big(i byte) (record, []byte) {
	const n = 60 << 20
	one := []byte{i}
	rest := part{blobstore.Sum(bytes.Repeat(one, n-1)), n - 1}
	return record{encoding: zstandard, stored: filled(n, i), parts: []part{partOf(one), rest}}, one
}

// spread is the victim with n big records as bases.
func spread(n int) []record {
	var list []record
	var bases [][]byte
	for i := range n {
		r, one := big(byte(i + 1))
		list, bases = append(list, r), append(bases, one)
	}
	return append(list, on(victim, 1, n, bases...))
}

// filled is zeros for another byte.
func filled(n int, with byte) []byte {
	b := zeros(n, window64)
	for at := 9; at < len(b); at += 4 {
		b[at] = with
	}
	return b
}

// chains are records that lie about their bases.
func chains() []Case {
	var list []Case
	add := func(name, want string, m maker) {
		list = append(list, Case{Name: "chain-" + name + ".zip", Want: want, Data: m.store()})
	}
	a, b := []byte(strings.Repeat("one base\n", 30)), []byte(strings.Repeat("another\n", 30))
	plain := uint64(len(victim))
	add("sound", "", maker{records: []record{rawOf(a), on(victim, 1, len(a), a)}})
	add("itself", "its depth is 1", maker{records: []record{on(victim, 1, len(victim), victim)}})
	add("loop", "its depth is", maker{records: []record{on(a, 1, len(victim), victim), on(victim, 1, len(a), a)}})
	add("loop-deeper", "its depth is", maker{records: []record{on(a, 2, len(victim), victim), on(victim, 1, len(a), a)}})
	add("loop-of-three", "its depth is", maker{records: []record{on(a, 2, len(b), b), on(b, 1, len(victim), victim), on(victim, 3, len(a), a)}})
	add("same-depth", "its depth is 1", maker{records: []record{rawOf(a), on(b, 1, len(a), a), on(victim, 1, len(b), b)}})
	add("too-deep", "record bases", maker{records: []record{rawOf(a), on(victim, 17, len(a), a)}})
	deepest := []record{rawOf([]byte(fmt.Sprintf("%0200d", 0)))}
	for i := range 16 {
		deepest = append(deepest, on(fmt.Appendf(nil, "%0200d", i+1), byte(i+1), 200, fmt.Appendf(nil, "%0200d", i)))
	}
	add("deepest", "", maker{records: deepest})
	add("missing", "blob not found", maker{records: []record{on(victim, 1, len(a), a)}})
	dict := record{encoding: dictionary, depth: 1, parts: []part{partOf(victim)}, bases: []blobstore.ID{blobstore.Sum(a)}, stored: []byte("\x28\xb5\x2f\xfd\x21\x01\x00no frame")}
	add("dictionary-missing", "blob not found", maker{records: []record{dict}})
	add("dictionary-garbage", damaged, maker{records: []record{rawOf(a), dict}})
	add("other-base", damaged, maker{records: []record{as(rawOf(a), uint32(len(a))), on(a, 1, len(a), victim)}, victim: partOf(a)})
	add("other-length", "other bases", maker{records: []record{rawOf(a), on(victim, 1, len(a)+1, a)}})
	add("no-program", "it is no program", maker{records: []record{rawOf(a), {encoding: programDelta, depth: 1, inner: 1000, bases: []blobstore.ID{blobstore.Sum(a)}, parts: []part{partOf(victim)}, stored: []byte("x")}}})

	// What takes memory: bases that are a byte of a large record each.
	add("wide", "", maker{records: spread(5)})
	var tall []record
	under := a
	tall = append(tall, rawOf(a))
	for i := range 5 {
		r, one := big(byte(i + 1))
		next := []byte(fmt.Sprintf("%0200d", i))
		if i == 4 {
			next = victim
		}
		tall = append(tall, r, on(next, byte(i+1), 1+len(under), one, under))
		under = next
	}
	add("tall", "", maker{records: tall})
	half, other := make([]byte, 33<<20), bytes.Repeat([]byte{1}, 33<<20)
	add("bases-too-large", "bases of", maker{records: []record{
		{encoding: zstandard, stored: zeros(33<<20, window64), parts: []part{partOf(half)}},
		{encoding: zstandard, stored: filled(33<<20, 1), parts: []part{partOf(other)}},
		on(victim, 1, 66<<20, half, other)}})

	// Patches.
	for name, p := range map[string][]byte{
		"garbage": []byte("garbage"), "empty": nil, "version": {9, 1, 1}, "no-streams": patch(plain, uint64(len(a)))[:4],
		"plain-lies": patch(plain+1, uint64(len(a))), "plain-2^60": patch(1<<60, uint64(len(a))), "bases-2^60": patch(plain, 1<<60),
		"outside":     patch(plain, uint64(len(a)), []byte{0}, binary.AppendUvarint(nil, plain), []byte{0}),
		"far":         patch(plain, uint64(len(a)), []byte{0}, []byte{9}, binary.AppendUvarint(nil, math.MaxUint64)),
		"copy-0":      patch(plain, uint64(len(a)), make([]byte, 100), make([]byte, 100), make([]byte, 100)),
		"literals":    patch(plain, uint64(len(a)), []byte{200, 1}, []byte{9}, []byte{0}, nil, nil, []byte("few")),
		"gaps":        patch(plain, uint64(len(a)), []byte{0}, []byte{9}, []byte{0}, bytes.Repeat([]byte{0}, 50), []byte{1}),
		"differences": patch(plain, uint64(len(a)), nil, nil, nil, bytes.Repeat([]byte{0}, 50), bytes.Repeat([]byte{1}, 50), victim[:50]),
		"stream-2^60": append(binary.AppendUvarint(slices.Clone(patch(plain, uint64(len(a))))[:4], 1<<60), 1),
	} {
		r := record{encoding: delta, depth: 1, bases: []blobstore.ID{blobstore.Sum(a)}, parts: []part{partOf(victim)}, stored: p}
		add("patch-"+name, damaged, maker{records: []record{rawOf(a), r}})
	}
	bomb := binary.AppendUvarint([]byte{1}, 64<<20)
	bomb = binary.AppendUvarint(bomb, uint64(len(a)))
	for range 6 {
		s := zeros(64<<20, window64)
		bomb = binary.AppendUvarint(bomb, 64<<20)
		bomb = append(binary.AppendUvarint(bomb, uint64(len(s))<<1|1), s...)
	}
	add("patch-bomb", damaged, maker{records: []record{rawOf(a), as(record{encoding: delta, depth: 1, bases: []blobstore.ID{blobstore.Sum(a)}, stored: bomb}, 64<<20)}})
	return list
}

// changed is a store of one program with one byte changed, at each place that
// matters and some that do not, in a record each.
func changed(name string, plain []byte, of func(filtered []byte) record) Case {
	filtered := value(filteredOf(plain))
	m := maker{records: []record{rawOf(victim)}}
	for at := 3; at < len(filtered); at += 1 + at/100 {
		r := of(flip(filtered, at))
		r.parts = []part{{blobstore.Sum(fmt.Append(nil, at)), uint32(len(plain))}}
		m.records = append(m.records, r)
		m.more = append(m.more, r.parts[0])
	}
	m.victim = partOf(victim)
	return Case{Name: name, Want: damaged, Data: m.store()}
}

// programs are records of filtered programs that are none, or were changed.
func programs() []Case {
	var list []Case
	add := func(name, want string, records ...record) {
		list = append(list, Case{Name: "program-" + name + ".zip", Want: want, Data: maker{records: records}.store()})
	}
	plain := goprogtest.Tiny(elf.EM_X86_64, 1)
	filtered, ok := blobstore.Filter(plain)
	if !ok {
		panic("the program is none")
	}
	of := func(filtered []byte) record {
		return record{encoding: program, effort: 2, inner: uint32(len(filtered)), parts: []part{partOf(plain)}, stored: zst(filtered)}
	}
	add("sound", "", of(filtered))
	add("inner", "filtered program", func() record { r := of(filtered); r.inner++; return r }())
	add("inner-most", "length of the filtered program", func() record { r := of(filtered); r.inner = math.MaxUint32; return r }())
	add("unfiltered", damaged, of(plain))
	add("cut", damaged, of(filtered[:len(filtered)/2]))
	add("longer", damaged, of(append(bytes.Clone(filtered), "more"...)))
	add("garbage", damaged, of([]byte(strings.Repeat("garbage", 100))))
	add("length", damaged, of(append([]byte{2, 0xff, 0xff, 0xff, 0xff, 0x7f}, filtered[3:]...)))
	add("other", damaged, of(value(filteredOf(goprogtest.Tiny(elf.EM_AARCH64, 1)))))
	list = append(list, changed("program-bytes.zip", plain, of),
		changed("program-bytes-dwarf.zip", goprogtest.TinyDWARF(elf.EM_X86_64, 1), of),
		changed("program-bytes-macho.zip", goprogtest.TinyMachO(elf.EM_AARCH64, 1), of),
		changed("program-bytes-pe.zip", goprogtest.TinyPE(elf.EM_X86_64, 1), of))
	whole := of(filtered)
	half := len(plain) / 2
	whole.parts = []part{partOf(plain), partOf(plain[:half]), {partOf(plain[half:]).id, uint32(len(plain) - half + 1)}}
	whole.plain = uint32(len(plain))
	add("parts", "record lengths", whole)
	// The body has a place of 100 bytes for what 34 MiB are deflated to.
	wide := append(bytes.Clone(plain), make([]byte, 26<<20)...)
	filtered = value(filteredOf(wide))
	streams := len(binary.AppendUvarint([]byte{2}, uint64(len(wide)))) + len(wide)
	inflated := append(bytes.Clone(filtered[:streams]), 1)
	for _, n := range []int{len(plain), 100, 34 << 20} {
		inflated = binary.AppendUvarint(inflated, uint64(n))
	}
	inflated = append(append(inflated, make([]byte, 34<<20)...), filtered[streams+1:]...)
	large := of(inflated)
	large.parts = []part{partOf(wide)}
	add("inflated", damaged, large)
	bomb := record{encoding: program, inner: 64 << 20, parts: []part{{blobstore.Sum(plain), 64 << 20}}, stored: zeros(64<<20, window64)}
	add("bomb", damaged, bomb)
	return list
}

func filteredOf(plain []byte) ([]byte, error) {
	b, ok := blobstore.Filter(plain)
	if !ok {
		return nil, fmt.Errorf("a program of %d bytes is not filtered", len(plain))
	}
	return b, nil
}

// rawTree encodes numbers as varints, and strings with their length.
func rawTree(parts ...any) []byte {
	b := []byte("gofstree\x01")
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(p))
		case string:
			b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// trees are trees that cannot be.
func trees() []Case {
	var list []Case
	add := func(name, want string, b []byte) {
		list = append(list, Case{Name: "tree-" + name + ".zip", Want: want, Data: maker{tree: b}.store()})
	}
	const file, folder, symlink, mode = 0, 1, 2, 0o644
	id := blobstore.Sum(victim)
	named := func(name string) []byte { return rawTree(0o755, 1, 1, 1, 1, file, mode, name, len(victim), 1, id[:]) }
	add("sound", "", named("victim"))
	for name, bad := range map[string]string{"empty": "", "dot": ".", "dotdot": "..", "slash": "../../x", "nul": "a\x00b", "long": strings.Repeat("x", 256)} {
		add("name-"+name, noTree, named(bad))
	}
	add("name-odd", "", named("\x1b[2J\xff\n"))
	add("twice", noTree, rawTree(0o755, 1, 2, 0, 2, file, mode, "a", 0, 0, file, mode, "a", 0, 0))
	add("unsorted", noTree, rawTree(0o755, 1, 2, 0, 2, file, mode, "b", 0, 0, file, mode, "a", 0, 0))
	add("setuid", noTree, rawTree(0o755, 1, 1, 0, 1, file, 0o4755, "a", 0, 0))
	add("kind", noTree, rawTree(0o755, 1, 1, 0, 1, 3, mode, "a", 0, 0))
	add("link-empty", noTree, rawTree(0o755, 1, 1, 0, 1, symlink, 0o777, "a", ""))
	add("link-long", noTree, rawTree(0o755, 1, 1, 0, 1, symlink, 0o777, "a", strings.Repeat("x", 4096)))
	add("link-out", "", rawTree(0o755, 1, 1, 0, 1, symlink, 0o777, "a", "../../../../etc/passwd"))
	add("blob-missing", damaged, rawTree(0o755, 1, 1, 1, 1, file, mode, "a", 10, 1, make([]byte, 32)))
	add("blob-length", "unreadable", rawTree(0o755, 1, 1, 1, 1, file, mode, "a", 10, 1, id[:]))
	add("size-2^62", noTree, rawTree(0o755, 1, 1, 1, 1, file, mode, "a", 1<<62, 1, id[:]))
	add("blobs-fewer", noTree, rawTree(0o755, 1, 1, 1, 1, file, mode, "a", 20, 2, 10, 10, id[:]))
	add("counts", noTree, rawTree(0o755, 1<<20, 1<<20, 1<<30, 0))
	add("counts-most", noTree, rawTree(0o755, 1<<62, 1<<62, 1<<62, 0))
	add("counts-wrap", noTree, rawTree(0o755, 1<<17, 1<<17, 1<<58, 0))
	add("entries-more", noTree, rawTree(0o755, 1, 0, 0, 1, file, mode, "a", 0, 0))
	add("folders-more", noTree, rawTree(0o755, 1, 1, 0, 1, folder, mode, "d", 0))
	add("folders-fewer", noTree, rawTree(0o755, 3, 1, 0, 1, folder, mode, "d", 0, 0))
	deep := []any{0o755, 2000, 1999, 0}
	for range 1999 { // the closest that a tree can come to a loop
		deep = append(deep, 1, folder, 0o755, "d")
	}
	add("loop", noTree, rawTree(append(deep, 0)...))
	nested := []any{0o755, 1001, 1000, 0}
	for range 1000 {
		nested = append(nested, 1, folder, 0o755, strings.Repeat("d", 250))
	}
	add("deep", noTree, rawTree(append(nested, 0)...))
	most := []any{0o755, 1025, 1024, 0}
	for range 1024 {
		most = append(most, 1, folder, 0o755, "dd")
	}
	add("deepest", "", rawTree(append(most, 0)...))
	add("number", noTree, append(rawTree(), bytes.Repeat([]byte{0xff}, 20)...))
	add("empty", noTree, rawTree())
	add("text", noTree, []byte("this is no tree"))
	// The same blob a hundred thousand times: a file of 130 MB in a tree of 3 MB.
	const times = 100_000
	again := []any{0o755, 1, 1, times, 1, file, mode, "a", times * len(victim), times}
	for range times {
		again = append(again, len(victim))
	}
	b := rawTree(again...)
	for range times {
		b = append(b, id[:]...)
	}
	r := record{encoding: zstandard, kind: tree, parts: []part{partOf(b)}, stored: zst(b)}
	list = append(list, Case{Name: "tree-again.zip", Want: "", Data: maker{records: []record{rawOf(victim), r}, victim: partOf(victim), version: func(v *index.Version) { v.Tree = r.parts[0].id }, nodes: oneNode()}.store()})
	return list
}

func oneNode() []byte {
	return append(binary.AppendVarint(binary.AppendVarint([]byte{1}, 5), rootNode+1000), 0)
}

// versions are descriptions and inode numbers that cannot be.
func versions() []Case {
	var list []Case
	add := func(name, want string, m maker) {
		list = append(list, Case{Name: "version-" + name + ".zip", Want: want, Data: m.store()})
	}
	text := func(change func(map[string]any)) []byte {
		v := map[string]any{"name": name, "release": name, "platform": "linux-amd64", "tree": blobstore.ID{}, "root_node": rootNode}
		change(v)
		return value(json.Marshal(v))
	}
	add("no-json", noIndex, maker{text: []byte("{")})
	add("deep-json", noIndex, maker{text: []byte(strings.Repeat("[", 100_000))})
	add("other-name", noIndex, maker{text: text(func(v map[string]any) { v["name"] = "1.22.9" })})
	for what, bad := range map[string]string{"out": "../../x", "bin": "bin", "latest": "latest", "empty": "", "long": strings.Repeat("1", 200)} {
		if bad == "" {
			continue // no key of the database
		}
		add("name-"+what, noIndex, maker{version: func(v *index.Version) { v.Name = bad }})
	}
	add("no-tree", "tree of 1.22.8", maker{version: func(v *index.Version) { v.Tree = blobstore.ID{} }})
	add("tree-is-file", noTree, maker{version: func(v *index.Version) { v.Tree = blobstore.Sum(victim) }})
	add("escapes", "", maker{version: func(v *index.Version) {
		v.Source, v.Platform, v.Provenance, v.Release = "\x1b]0;x\x07\n", "linux\x1b[2J", "sumdb \r\x1b[2J", "1.22.8\x1b"
	}})
	add("numbers", noIndex, maker{version: func(v *index.Version) {
		v.Files, v.Folders, v.Bytes, v.New, v.Time = -1, math.MinInt, math.MinInt64, math.MaxInt64, math.MaxInt64
	}})
	add("root-low", noIndex, maker{version: func(v *index.Version) { v.RootNode = 1 }})
	add("root-high", noIndex, maker{version: func(v *index.Version) { v.RootNode = math.MaxUint64 }})
	add("root-last", noIndex, maker{version: func(v *index.Version) { v.RootNode = 1<<48 - 1 }})
	add("root-in-files", "", maker{version: func(v *index.Version) { v.RootNode = rootNode + 1000 }})
	add("nodes-none", "inodes of", maker{nodes: []byte{}})
	add("nodes-fewer", "inodes of", maker{nodes: oneNode()})
	add("nodes-times", "inodes of", maker{nodes: binary.AppendUvarint(nil, 1<<60)})
	same := binary.AppendVarint([]byte{1}, 5)
	for i := range 4 {
		step := int64(0)
		if i == 0 {
			step = rootNode + 1000
		}
		same = append(binary.AppendVarint(same, step), 0)
	}
	add("nodes-same", "", maker{nodes: same})
	back := binary.AppendVarint([]byte{1}, 5)
	for range 4 {
		back = append(binary.AppendVarint(back, math.MinInt64), 0)
	}
	add("nodes-wrap", "inodes of", maker{nodes: back})
	add("two", "", maker{index: func(tx *bolt.Tx) { // two that claim the same folders
		b := tx.Bucket([]byte("versions")).Get([]byte(name))
		other := bytes.ReplaceAll(b[:len(b)-4], []byte(`"name":"1.22.8"`), []byte(`"name":"1.22.9"`))
		set(tx, "versions", "1.22.9", seal(other))
		set(tx, "nodes", "1.22.9", bytes.Clone(tx.Bucket([]byte("nodes")).Get([]byte(name))))
	}})
	return list
}

// ofItself is a store in which the empty blob is its own base, and that of the victim. A
// second version has another file of the victim's path, for a compaction to make a
// delta of the victim.
func ofItself() maker {
	nothing := partOf(nil)
	label, other := []byte("go1.22.9\ntime 2024-10-01T16:22:24Z\n"), []byte("package victim // another\n")
	t := value(index.EncodeTree([]index.Item{
		{Path: "VERSION", Mode: 0o644, Size: int64(len(label)), Blobs: []index.Ref{{ID: blobstore.Sum(label), Length: uint32(len(label))}}},
		{Path: "src/victim.go", Mode: 0o644, Size: int64(len(other)), Blobs: []index.Ref{{ID: blobstore.Sum(other), Length: uint32(len(other))}}},
	}))
	second := rawOf(t)
	second.kind = tree
	m := maker{records: []record{
		{encoding: delta, depth: 1, effort: 3, parts: []part{nothing}, bases: []blobstore.ID{nothing.id}},
		rawOf(label, other), second,
		{encoding: delta, depth: 2, effort: 3, parts: []part{partOf(victim)}, bases: []blobstore.ID{nothing.id}, stored: []byte("x")},
	}}
	m.index = func(tx *bolt.Tx) {
		const name = "1.22.9"
		v := index.Version{
			Name: name, Release: name, Platform: "linux-amd64", Tree: blobstore.Sum(t), Time: 1727799744,
			Source: "test", Imported: time.Unix(1_800_000_000, 0).UTC(), Files: 2, Folders: 2, Bytes: 60, RootNode: 2 * rootNode,
		}
		set(tx, "versions", name, seal(value(json.Marshal(v))))
		nodes := maker{tree: t}
		set(tx, "nodes", name, seal(nodes.rightNodes()))
	}
	return m
}

// indexes are databases that bbolt reads, and that lie.
func indexes() []Case {
	var list []Case
	add := func(name, want string, m maker) {
		list = append(list, Case{Name: "index-" + name + ".zip", Want: want, Data: m.store()})
	}
	where := func(change func(l *blobstore.Location)) maker {
		return maker{place: func(blobs map[blobstore.ID]*blobstore.Location) { change(blobs[blobstore.Sum(victim)]) }}
	}
	const lost = "is not where the index says"
	add("offset-1", lost, where(func(l *blobstore.Location) { l.Record++ }))
	add("offset-past-end", lost, where(func(l *blobstore.Location) { l.Record += 1 << 20 }))
	add("offset-2^62", lost, where(func(l *blobstore.Location) { l.Record = 1 << 62 }))
	add("offset-header", lost, where(func(l *blobstore.Location) { l.Record = 0 }))
	add("offset-other", lost, where(func(l *blobstore.Location) { l.Record = 16 }))
	add("inside-1", lost, where(func(l *blobstore.Location) { l.Offset = 1 }))
	add("inside-past-end", lost, where(func(l *blobstore.Location) { l.Offset = 64 << 20 }))
	add("length-less", "unreadable", where(func(l *blobstore.Location) { l.Length-- }))
	add("length-most", lost, where(func(l *blobstore.Location) { l.Length = 64 << 20 }))
	add("length-too-large", noIndex, where(func(l *blobstore.Location) { l.Length = math.MaxUint32 }))
	add("pack-unknown", noIndex, where(func(l *blobstore.Location) { l.Pack = 9 }))
	tx := func(name, want string, change func(tx *bolt.Tx)) { add(name, want, maker{index: change}) }
	key := string([]byte{0, 0, 0, 1})
	rename := func(to func(size []byte, name string) []byte) func(tx *bolt.Tx) {
		return func(tx *bolt.Tx) {
			b := tx.Bucket([]byte("packs")).Get([]byte(key))
			_, n := binary.Uvarint(b)
			set(tx, "packs", key, seal(to(slices.Clone(b[:n]), string(b[n:len(b)-4]))))
		}
	}
	tx("pack-out", noIndex, rename(func(size []byte, _ string) []byte { return append(size, "../../../../etc/passwd"...) }))
	tx("pack-other", "missing", rename(func(size []byte, _ string) []byte { return append(size, strings.Repeat("0", 64)...) }))
	tx("pack-size", damaged, rename(func(_ []byte, name string) []byte { return append(binary.AppendUvarint(nil, 1<<62), name...) }))
	tx("pack-size-most", noIndex, rename(func(_ []byte, name string) []byte { return append(binary.AppendUvarint(nil, math.MaxUint64), name...) }))
	tx("pack-twice", "", func(tx *bolt.Tx) {
		set(tx, "packs", string([]byte{0, 0, 0, 2}), bytes.Clone(tx.Bucket([]byte("packs")).Get([]byte(key))))
	})
	tx("pack-key", noIndex, func(tx *bolt.Tx) { set(tx, "packs", "x", bytes.Clone(tx.Bucket([]byte("packs")).Get([]byte(key)))) })
	tx("blob-key", noIndex, func(tx *bolt.Tx) { set(tx, "blobs", "x", []byte{1, 16, 0, 1}) })
	tx("blob-value", noIndex, func(tx *bolt.Tx) { set(tx, "blobs", strings.Repeat("x", 32), []byte{1, 0xff}) })
	tx("newer", "made by a newer gofs", func(tx *bolt.Tx) { set(tx, "meta", "format", number(99)) })
	tx("format-short", noIndex, func(tx *bolt.Tx) { set(tx, "meta", "format", seal([]byte{1})) })
	tx("generation-most", "", func(tx *bolt.Tx) { set(tx, "meta", "generation", number(math.MaxUint64)) })
	tx("generation-older", "", func(tx *bolt.Tx) { set(tx, "meta", "generation", number(1)) })
	tx("node-most", "", func(tx *bolt.Tx) { set(tx, "meta", "node", number(math.MaxUint64)) })
	tx("node-in-use", "", func(tx *bolt.Tx) { set(tx, "meta", "node", number(rootNode)) })
	tx("packs-most", "", func(tx *bolt.Tx) { set(tx, "meta", "pack", number(math.MaxUint32)) })
	tx("packs-in-use", "", func(tx *bolt.Tx) { set(tx, "meta", "pack", number(1)) })
	for _, bucket := range buckets {
		tx("no-"+bucket, noIndex, func(tx *bolt.Tx) {
			if bucket != "meta" { // which gets the sums
				must(tx.DeleteBucket([]byte(bucket)))
			}
		})
	}
	tx("nested", noIndex, func(tx *bolt.Tx) {
		v := tx.Bucket([]byte("versions"))
		must(v.Delete([]byte(name)))
		value(v.CreateBucket([]byte(name)))
	})
	add("sum", noIndex, maker{summed: func(tx *bolt.Tx) { set(tx, "meta", "sum of blobs", number(0)) }})
	add("sum-none", noIndex, maker{summed: func(tx *bolt.Tx) { must(tx.Bucket([]byte("meta")).Delete([]byte("sum of packs"))) }})
	add("seal", noIndex, maker{index: func(tx *bolt.Tx) { set(tx, "versions", name, []byte("{}....")) }})
	list = slices.DeleteFunc(list, func(c Case) bool { return c.Name == "index-no-meta.zip" })
	for name, files := range map[string]map[string]string{
		"format-garbage": {"format": "\x00\xff"}, "format-negative": {"format": "gofs store -1\n"}, "format-newer": {"format": "gofs store 99999999999\n"}, "format-empty": {"format": ""},
		"generation-garbage": {"generation": strings.Repeat("9", 60)}, "generation-newer": {"generation": "77\n"}, "lock-garbage": {"lock": "\x1b[2J" + strings.Repeat("x", 5000)},
		"damage-garbage": {"damage": strings.Repeat("\x1b[2J", 50_000)}, "pack-garbage": {"packs/garbage.pack": "x", "packs/new-x": "x"},
	} {
		want := ""
		if strings.HasPrefix(name, "format") {
			want = "no store|newer|is empty"
		}
		list = append(list, Case{Name: "file-" + name + ".zip", Want: want, Data: maker{files: func(all map[string][]byte) {
			for file, text := range files {
				all[file] = []byte(text)
			}
		}}.store()})
	}
	return list
}

// databases are files that bbolt should not have been given.
func databases() []Case {
	var list []Case
	// Enough keys for pages below pages.
	fill := func(tx *bolt.Tx) {
		for i := range 300 {
			id := blobstore.Sum(fmt.Append(nil, i))
			set(tx, "blobs", string(id[:]), []byte{1, 16, 0, 1})
		}
	}
	add := func(name string, change func(b []byte) []byte) {
		list = append(list, Case{Name: "bbolt-" + name + ".zip", Want: noIndex, Data: maker{index: fill, bytes: change}.store()})
	}
	in := func(name string, change func(b []byte)) { add(name, func(b []byte) []byte { change(b); return b }) }
	u16 := func(b []byte, at int, v uint16) { binary.LittleEndian.PutUint16(b[at:], v) }
	u64 := func(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	add("empty", func([]byte) []byte { return nil })
	add("text", func([]byte) []byte { return bytes.Repeat([]byte("this is no database "), 1000) })
	in("zeros", func(b []byte) { clear(b) })
	add("cut-page", func(b []byte) []byte { return b[:len(b)/2/pageSize*pageSize] })
	add("cut-meta", func(b []byte) []byte { return b[:100] })
	in("meta-garbage", func(b []byte) {
		for i := range 2 * pageSize {
			b[i] = byte(i * 37)
		}
	})
	in("meta-root", func(b []byte) { setMeta(b, metaRoot, 1<<40) })
	in("meta-root-meta", func(b []byte) { setMeta(b, metaRoot, 0) })
	in("meta-root-free", func(b []byte) { setMeta(b, metaRoot, getMeta(b, metaFree)) })
	in("meta-free", func(b []byte) { setMeta(b, metaFree, 1<<40) })
	in("meta-free-root", func(b []byte) { setMeta(b, metaFree, getMeta(b, metaRoot)) })
	in("meta-pages", func(b []byte) { setMeta(b, metaPages, 1<<50) })
	in("meta-pages-few", func(b []byte) { setMeta(b, metaPages, 2) })
	first := func(kind uint16, change func(page []byte, number int)) func(b []byte) {
		return func(b []byte) {
			for _, i := range pagesOf(b, kind) {
				change(b[i*pageSize:(i+1)*pageSize], i)
			}
		}
	}
	in("branch-loop", first(branchPage, func(p []byte, i int) { u64(p, 16+8, uint64(i)) }))
	in("branch-out", first(branchPage, func(p []byte, i int) { u64(p, 16+8, 1<<40) }))
	in("branch-meta", first(branchPage, func(p []byte, i int) { u64(p, 16+8, 0) }))
	in("branch-count", first(branchPage, func(p []byte, i int) { u16(p, pageCount, 0xffff) }))
	in("branch-none", first(branchPage, func(p []byte, i int) { u16(p, pageCount, 0) }))
	in("branch-key", first(branchPage, func(p []byte, i int) { binary.LittleEndian.PutUint32(p[16:], math.MaxUint32) }))
	in("branch-run", first(branchPage, func(p []byte, i int) { binary.LittleEndian.PutUint32(p[pageMore:], 17) }))
	in("leaf-count", first(leafPage, func(p []byte, i int) { u16(p, pageCount, 0xffff) }))
	in("leaf-key", first(leafPage, func(p []byte, i int) { binary.LittleEndian.PutUint32(p[16+4:], math.MaxUint32) }))
	in("leaf-value", first(leafPage, func(p []byte, i int) { binary.LittleEndian.PutUint32(p[16+12:], math.MaxUint32) }))
	in("leaf-run", first(leafPage, func(p []byte, i int) { binary.LittleEndian.PutUint32(p[pageMore:], math.MaxUint32) }))
	in("leaf-flags", first(leafPage, func(p []byte, i int) { u16(p, pageFlags, 0x7f) }))
	in("leaf-number", first(leafPage, func(p []byte, i int) { u64(p, 0, 3) }))
	in("leaf-is-bucket", first(leafPage, func(p []byte, i int) { binary.LittleEndian.PutUint32(p[16:], 1) }))
	in("leaf-garbage", first(leafPage, func(p []byte, i int) {
		for k := range p[16:] {
			p[16+k] = byte(k * 41)
		}
	}))
	in("free-in-use", first(freePage, func(p []byte, i int) { u16(p, pageCount, 1); u64(p, 16, uint64(i)) }))
	in("free-count", first(freePage, func(p []byte, i int) { u16(p, pageCount, 0xffff); u64(p, 16, 1<<60) }))
	in("free-zeros", first(freePage, func(p []byte, i int) { clear(p) }))
	// Files with holes: long, and nothing in them.
	const long = 3 << 30
	sparse := func(name string, size int64, change func(b []byte)) {
		m := maker{index: fill, bytes: func(b []byte) []byte { change(b); return b }, holes: map[string]int64{"index.db": size}}
		list = append(list, Case{Name: "bbolt-" + name + ".zip", Want: noIndex, Data: m.store()})
	}
	sparse("hole-root", long, func(b []byte) { setMeta(b, metaPages, long/pageSize); setMeta(b, metaRoot, long/pageSize-1) })
	sparse("hole-run", long, func(b []byte) {
		setMeta(b, metaPages, long/pageSize)
		first(leafPage, func(p []byte, i int) { binary.LittleEndian.PutUint32(p[pageMore:], long/pageSize-100) })(b)
	})
	sparse("hole-free", long, func(b []byte) {
		setMeta(b, metaPages, long/pageSize)
		first(freePage, func(p []byte, i int) {
			binary.LittleEndian.PutUint32(p[pageMore:], long/pageSize-100)
			u16(p, pageCount, 0xffff)
			u64(p, 16, long/8/2)
		})(b)
	})
	sparse("hole-pages", 1<<40, func(b []byte) { setMeta(b, metaPages, 1<<40/pageSize) })
	return list
}

// largeStores are made when they are needed.
func largeStores() []Case {
	return []Case{{Name: "large-records.zip", make: func() []byte {
		var records []record
		var more []part
		for i := range 5 {
			r := record{encoding: zstandard, stored: filled(64<<20, byte(i+1)), parts: []part{{blobstore.Sum(bytes.Repeat([]byte{byte(i + 1)}, 64<<20)), 64 << 20}}}
			records, more = append(records, r), append(more, r.parts[0])
		}
		return maker{records: records, more: more[1:], victim: more[0]}.store()
	}}, {Name: "large-chain.zip", Want: "a chain of", make: func() []byte {
		return maker{records: spread(15)}.store()
	}}, {Name: "large-tree.zip", make: func() []byte {
		// As many entries as a tree may have, all different.
		parts := []any{0o755, 2, 1 << 17, 0, 1, 1, 0o755, "d", 1<<17 - 1}
		for i := range 1<<17 - 1 {
			parts = append(parts, 2, 0o777, fmt.Sprintf("%06d%s", i, strings.Repeat("n", 100)), fmt.Sprintf("%s%d", strings.Repeat("t", 100), i))
		}
		b := rawTree(parts...)
		r := record{encoding: zstandard, kind: tree, parts: []part{partOf(b)}, stored: zst(b)}
		nodes := binary.AppendVarint([]byte{1}, 5)
		for i := range 1<<17 - 1 {
			step := int64(1)
			if i == 0 {
				step = 1 << 20
			}
			nodes = append(binary.AppendVarint(nodes, step), 0)
		}
		return maker{records: []record{rawOf(victim), r}, victim: partOf(victim), version: func(v *index.Version) { v.Tree = r.parts[0].id }, nodes: nodes}.store()
	}}}
}
