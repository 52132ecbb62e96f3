package goprog

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"

	"gofs/internal/goprogtest"
)

// TestRealStreams sees that every compressed section is inflated. Releases up to 1.20 have such.
func TestRealStreams(t *testing.T) {
	found := 0
	programs(t, func(name string, b []byte) {
		img, err := parse(b)
		if err != nil {
			return
		}
		found += len(img.streams)
		filtered, err := forward(b, limitOf(b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if n := len(listed(t, filtered).list); n != len(img.streams) {
			t.Errorf("%s: %d of %d streams", name, n, len(img.streams))
		}
	})
	t.Logf("%d streams", found)
}

// parts are those of a filtered program.
type parts struct {
	img        *image // of the body
	list       []stream
	head, rest []byte // what lies before the streams and behind
}

// listed takes a filtered program apart.
func listed(t testing.TB, filtered []byte) (p parts) {
	t.Helper()
	r := reader{b: filtered[1:]}
	body := r.bytes(r.uvarint())
	p.head = filtered[:len(filtered)-len(r.b)]
	var err error
	if p.img, err = parse(bytes.Clone(body)); err == nil {
		p.list, err = p.img.readStreams(&r)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.rest = r.b
	return p
}

// tinyListed takes a small program with streams apart.
func tinyListed(t testing.TB) (plain, filtered []byte, p parts) {
	t.Helper()
	plain = goprogtest.TinyDWARF(elf.EM_X86_64, 1)
	filtered, ok := Forward(plain, limitOf(plain))
	if !ok {
		t.Fatal("not filtered")
	}
	return plain, filtered, listed(t, filtered)
}

// with is the filtered program with another list of streams: numbers, and bytes behind their length.
func (p parts) with(list ...any) []byte {
	b := bytes.Clone(p.head)
	for _, v := range list {
		switch v := v.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(v))
		case []byte:
			b = appendBytes(b, v)
		}
	}
	return append(b, p.rest...)
}

func TestStreams(t *testing.T) {
	plain, filtered, p := tinyListed(t)
	if len(p.list) != 2 || !bytes.Equal(p.list[0].plain, goprogtest.DebugInfo()) || string(p.list[1].plain) != "abc\x01" {
		t.Fatalf("streams %+v", p.list)
	}
	for _, s := range p.list {
		if b := p.img.b[s.off:s.end()]; !bytes.Equal(b, make([]byte, s.n)) {
			t.Errorf("at %d the body has %x", s.off, b)
		}
	}

	// What makes the filtered program too long stays compressed.
	less := len(filtered) - 1
	shorter, ok := Forward(plain, less)
	if !ok || len(shorter) > less {
		t.Fatalf("%d bytes filtered, allowed %d", len(shorter), less)
	}
	if p := listed(t, shorter); len(p.list) != 1 {
		t.Errorf("%d streams in %d bytes", len(p.list), less)
	}
	if _, ok := Forward(plain, len(plain)); ok {
		t.Error("filtered in as many bytes as the program has")
	}
}

// TestForeignStreams leaves alone what would become another stream.
func TestForeignStreams(t *testing.T) {
	plain := goprogtest.TinyDWARF(elf.EM_X86_64, 1)
	img, err := parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	first, second := img.streams[0], img.streams[1]
	for _, c := range []struct {
		name   string
		change func(b []byte)
		want   int
	}{
		{"none", func([]byte) {}, 2},
		{"header", func(b []byte) { b[first.off] = 0 }, 1},
		{"level", func(b []byte) { copy(b[first.off:], "\x78\x9c") }, 1},
		{"content", func(b []byte) { b[first.off+40] ^= 1 }, 1},
		{"checksum", func(b []byte) { b[first.end()-1] ^= 1 }, 1},
		{"method", func(b []byte) { b[first.off-24] = 2 }, 1},
		{"no magic", func(b []byte) { b[second.off-12] = 'z' }, 1},
		{"shorter", func(b []byte) { binary.LittleEndian.PutUint64(b[first.off-16:], first.size-1) }, 1},
		{"longer", func(b []byte) { binary.LittleEndian.PutUint64(b[first.off-16:], first.size+1) }, 1},
		{"huge", func(b []byte) { binary.LittleEndian.PutUint64(b[first.off-16:], 1<<39) }, 1},
		{"huge, without a flag", func(b []byte) { binary.BigEndian.PutUint64(b[second.off-8:], math.MaxUint64) }, 1},
	} {
		b := bytes.Clone(plain)
		c.change(b)
		filtered, ok := Forward(b, limitOf(b))
		if !ok {
			t.Errorf("%s: not filtered", c.name)
		} else if n := len(listed(t, filtered).list); n != c.want {
			t.Errorf("%s: %d streams, want %d", c.name, n, c.want)
		}
	}
}

func TestHostileStreams(t *testing.T) {
	plain, _, p := tinyListed(t)
	first, second := p.list[0], p.list[1]
	code := p.img.section(".text")
	free := second.end() // nothing but headers lies behind; places cannot overlap, their distances count from an end
	zeros := make([]byte, 40<<20)
	for _, c := range []struct {
		name string
		list []any
		ok   bool
	}{
		{"sound", []any{2, first.off, first.n, first.plain, second.off - first.end(), second.n, second.plain}, true},
		{"none", []any{0}, true},
		{"other content", []any{1, second.off, second.n, []byte("abcd")}, true},
		{"the number only", []any{1}, false},
		{"too many", slices.Concat([]any{maxStreams + 1}, slices.Repeat([]any{second.off, second.n, second.plain}, maxStreams+1)), false},
		{"very many", []any{math.MaxInt}, false},
		{"in the code", []any{1, code.off, code.size, second.plain}, false},
		{"into the code", []any{1, code.off - 1, 2, second.plain}, false},
		{"over all", []any{1, 0, len(plain), first.plain}, false},
		{"in the symbols", []any{1, p.img.symtab.off, second.n, second.plain}, false},
		{"in their names", []any{1, p.img.strtab.off, 10, second.plain}, false},
		{"behind the end", []any{1, len(plain) + 1, 0, second.plain}, false},
		{"over the end", []any{1, len(plain) - 2, second.n, second.plain}, false},
		{"around the end", []any{2, first.off, first.n, first.plain, math.MaxInt, math.MaxInt, second.plain}, false},
		{"no place", []any{1, free, 0, []byte{}}, false},
		{"less place", []any{1, second.off, second.n - 1, second.plain}, false},
		{"more place", []any{1, second.off, second.n + 1, second.plain}, false},
		{"length of the plain bytes", []any{1, second.off, second.n, 1 << 40}, false},
		{"much in little place", []any{1, first.off, first.n, zeros}, false},
		{"much in many places", slices.Concat([]any{4}, []any{first.off, 10, zeros[:len(zeros)/4]}, slices.Repeat([]any{0, 10, zeros[:len(zeros)/4]}, 3)), false},
	} {
		b := p.with(c.list...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Inverse(b, len(plain))
		runtime.ReadMemStats(&after)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
			t.Errorf("%s: %d bytes of memory", c.name, took)
		}
	}
}
