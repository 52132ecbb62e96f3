package blobstore

import (
	"bytes"
	"debug/elf"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"gofs/blobstore/internal/delta"
	"gofs/internal/goprogtest"
)

// tiny is a small program of a release.
func tiny(release byte) []byte { return goprogtest.Tiny(elf.EM_X86_64, release) }

// program encodes a small program in n parts, with bases.
func program(t testing.TB, plain []byte, n int, bases ...*Program) (*Record, *Program) {
	t.Helper()
	filtered, ok := Filter(plain)
	if !ok {
		t.Fatal("not filtered")
	}
	var blobs []Blob
	for i := range n {
		blobs = append(blobs, blob(plain[i*len(plain)/n:(i+1)*len(plain)/n]))
	}
	r, p, err := EncodeProgram(2, blobs, plain, filtered, bases)
	if err != nil || r == nil {
		t.Fatalf("program of %d bytes: record %v, %v", len(plain), r, err)
	}
	return r, p
}

// dense encodes a group with bases.
func dense(t testing.TB, g Group, bases ...[]byte) *Record {
	t.Helper()
	g.Bases = group(bases...).Blobs
	r, err := EncodeGroup(2, g)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// copyIn writes records to a pack of dir.
func copyIn(t testing.TB, dir string, records ...*Record) Pack {
	t.Helper()
	w := newWriter(t, dir, WriterOptions{})
	for _, r := range records {
		if err := w.Copy(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	return finish(t, w)[0]
}

func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	old, oldProgram := program(t, tiny(1), 1)
	next, nextProgram := program(t, tiny(2), 3, oldProgram)
	last, lastProgram := program(t, tiny(3), 2, nextProgram, oldProgram)
	p := copyIn(t, dir, last, next, old) // bases may lie anywhere
	refs, loc := number([]Pack{p}, 1)
	for _, limit := range []int64{0, 1 << 20} {
		v, err := OpenView(dir, refs, loc, NewCache(limit))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []*Program{oldProgram, nextProgram, lastProgram} {
			plain := tiny(byte(i + 1))
			checkBlob(t, v, plain)
			got, err := v.Program(t.Context(), Sum(plain))
			if err != nil || got.ID != want.ID || got.Depth != i || want.Depth != i || !bytes.Equal(got.Filtered, want.Filtered) {
				t.Errorf("program %d: %v", i, err)
			}
		}
		n := len(tiny(2))
		checkBlob(t, v, tiny(2)[:n/3])
		checkBlob(t, v, tiny(2)[n/3:2*n/3])
		if _, err := v.Program(t.Context(), Sum(tiny(2)[:n/3])); !errors.Is(err, ErrNotFound) {
			t.Errorf("a part as program: %v", err)
		}
		if found := verify(t, v, p.Name); found != nil {
			t.Errorf("found %+v", found)
		}
		v.Close()
		checkReleased(t, v.cache)
	}
	for _, test := range []struct {
		r     *Record
		enc   encoding
		blobs int
		parts int
	}{{old, encProgram, 1, 1}, {next, encProgramDelta, 4, 3}, {last, encProgramDelta, 3, 2}} {
		if test.r.header.enc != test.enc || len(test.r.Blobs()) != test.blobs || len(test.r.Parts()) != test.parts || test.r.Effort() != 2 || !test.r.IsProgram() {
			t.Errorf("record %+v", test.r.header)
		}
		sum := int64(0)
		for _, b := range test.r.Placed() {
			sum += int64(b.Stored)
		}
		if sum > test.r.Size() || sum < test.r.Size()-int64(test.blobs) {
			t.Errorf("shares of %d bytes in a record of %d", sum, test.r.Size())
		}
	}
	if next.Size() > old.Size()+100 || last.header.stored > old.header.stored/2 {
		t.Errorf("a delta takes %d bytes, the program %d", last.header.stored, old.header.stored)
	}
}

// What is no Go program, or would not become smaller, is left to other encodings.
func TestNoProgram(t *testing.T) {
	for _, b := range [][]byte{nil, text(1, 5000), noise(1, 5000), tiny(1)[:1000]} {
		if filtered, ok := Filter(b); ok && len(filtered) > int(maxInner(uint32(len(b)))) {
			t.Errorf("%d bytes are filtered to %d", len(b), len(filtered))
		}
	}
	plain := noise(1, 5000)
	r, p, err := EncodeProgram(2, group(plain).Blobs, plain, plain, nil)
	if r != nil || p != nil || err != nil {
		t.Errorf("noise as program: %v, %v", r, err)
	}
}

func TestEncodeGroup(t *testing.T) {
	old := noise(1, 20_000)
	changed := slices.Clone(old)
	for i := 100; i < len(changed); i += 97 {
		changed[i]++
	}
	for name, test := range map[string]struct {
		group Group
		bases [][]byte
		want  encoding
	}{
		"text":             {group(text(1, 3000), text(2, 3000)), nil, encZstd},
		"noise":            {group(noise(1, 3000)), nil, encRaw},
		"empty":            {group(nil), nil, encRaw},
		"foreign base":     {group(noise(1, 3000)), [][]byte{noise(2, 3000)}, encRaw},
		"moved in a base":  {group(slices.Concat(noise(3, 10), old[5000:], old[:5000])), [][]byte{old}, encDict},
		"changes in bytes": {group(changed), [][]byte{noise(2, 100), old}, encDelta},
	} {
		t.Run(name, func(t *testing.T) {
			for effort := Effort(1); effort <= MaxEffort; effort++ {
				dir := t.TempDir()
				test.group.Bases = group(test.bases...).Blobs
				r, err := EncodeGroup(effort, test.group)
				if err != nil {
					t.Fatal(err)
				}
				if enc := r.header.enc; enc != test.want && !(enc.based() && test.want.based()) || r.Effort() != effort || r.IsProgram() {
					t.Errorf("effort %d: encoding %v, want %v", effort, enc, test.want)
				}
				if want := min(len(r.Bases()), 1); r.Depth() != want {
					t.Errorf("depth %d, want %d", r.Depth(), want)
				}
				base := store(t, dir, group(old), group(noise(2, 100)), group(noise(2, 3000)))[0]
				refs, loc := number([]Pack{base, copyIn(t, dir, r)}, 1)
				v := openView(t, dir, refs, loc)
				for _, b := range test.group.Blobs {
					checkBlob(t, v, b.Data)
				}
			}
		})
	}
	// Too deep for one more.
	g := group(changed)
	g.Bases, g.Depth = group(old).Blobs, MaxDepth
	if r, err := EncodeGroup(2, g); err != nil || r.Depth() != 0 {
		t.Errorf("below the deepest: %v, %v", r, err)
	}
}

// rawDense is a record as it could be written, for a test to change.
func rawDense(r *Record) rawRecord { return rawRecord{*r.header, r.stored} }

func TestHostilePrograms(t *testing.T) {
	one, oneProgram := program(t, tiny(1), 2)
	two, _ := program(t, tiny(2), 2, oneProgram)
	single, _ := program(t, tiny(2), 1, oneProgram)
	plain, foreign := rawBlob(tiny(1)), goprogtest.Tiny(elf.EM_AARCH64, 1)
	change := func(r *Record, f func(*rawRecord)) rawRecord {
		c := rawDense(r)
		c.blobs, c.bases = slices.Clone(c.blobs), slices.Clone(c.bases)
		f(&c)
		return c
	}
	compressed := func(b []byte) []byte {
		c, err := compress(zstd.SpeedFastest, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	bomb := compressed(make([]byte, MaxRecord))
	for name, test := range map[string]struct {
		records []rawRecord // the first part of the last one is read
		why     string
	}{
		"base is no program": {[]rawRecord{plain, change(two, func(r *rawRecord) {})}, "no program"},
		"base is a part": {[]rawRecord{rawDense(one), change(two, func(r *rawRecord) {
			r.bases[0] = one.header.blobs[1].id
		})}, "no program"},
		"base is itself":  {[]rawRecord{change(two, func(r *rawRecord) { r.bases[0] = r.blobs[0].id })}, "its depth is 1"},
		"base is missing": {[]rawRecord{rawDense(two)}, "not found"},
		"base is another": {[]rawRecord{func() rawRecord {
			r, _ := program(t, foreign, 2)
			return rawDense(r)
		}(), change(single, func(r *rawRecord) { r.bases[0] = Sum(foreign) })}, ""},
		"without bases":     {[]rawRecord{change(two, func(r *rawRecord) { r.bases, r.depth = nil, 0 })}, "record bases"},
		"bases for nothing": {[]rawRecord{change(one, func(r *rawRecord) { r.bases, r.depth = []ID{{1}}, 1 })}, "record bases"},
		"inner too long":    {[]rawRecord{change(one, func(r *rawRecord) { r.inner = maxInner(r.plain) + 1 })}, "length of the filtered"},
		"inner is less":     {[]rawRecord{change(one, func(r *rawRecord) { r.inner-- })}, ""},
		"inner is more":     {[]rawRecord{change(one, func(r *rawRecord) { r.inner++ })}, "filtered program: record decodes to"},
		"delta's inner":     {[]rawRecord{rawDense(one), change(two, func(r *rawRecord) { r.inner-- })}, ""},
		"whole is shorter":  {[]rawRecord{change(one, func(r *rawRecord) { r.blobs[0].length-- })}, "record lengths"},
		"parts are shorter": {[]rawRecord{change(one, func(r *rawRecord) { r.blobs[1].length-- })}, "record lengths"},
		"plain is more": {[]rawRecord{change(one, func(r *rawRecord) {
			r.plain++
			r.blobs[0].length++
			r.blobs[1].length++
		})}, ""},
		"not filtered": {[]rawRecord{change(one, func(r *rawRecord) {
			r.stored = compressed(tiny(1))
			r.inner = uint32(len(tiny(1)))
		})}, "corrupt filtered program"},
		"no zstd":  {[]rawRecord{change(one, func(r *rawRecord) { r.stored = noise(1, 100) })}, ""},
		"no delta": {[]rawRecord{rawDense(one), change(two, func(r *rawRecord) { r.stored = noise(1, 100) })}, "corrupt delta"},
		"a bomb":   {[]rawRecord{change(one, func(r *rawRecord) { r.stored, r.plain = bomb, MaxRecord; r.blobs = []member{{Sum(tiny(1)), MaxRecord}} })}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := craft(t, dir, test.records...)
			refs, loc := number([]Pack{p}, 1)
			v := openView(t, dir, refs, loc)
			last := test.records[len(test.records)-1].blobs
			for _, m := range last {
				if _, err := v.Blob(t.Context(), m.id); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.why) {
					t.Errorf("error %v, want one with %q", err, test.why)
				}
			}
			if found := verify(t, v, p.Name); found == nil {
				t.Error("not found by VerifyPack")
			}
		})
	}
}

// The blob of all parts is read rarely and so checked when it is.
func TestWrongWhole(t *testing.T) {
	dir := t.TempDir()
	one, _ := program(t, tiny(1), 2)
	r := rawDense(one)
	r.blobs = slices.Clone(r.blobs)
	r.blobs[0].id = Sum([]byte("another"))
	p := craft(t, dir, r)
	refs, loc := number([]Pack{p}, 1)
	v := openView(t, dir, refs, loc)
	checkBlob(t, v, tiny(1)[:len(tiny(1))/2])
	if _, err := v.Blob(t.Context(), r.blobs[0].id); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
	if found := verify(t, v, p.Name); len(found) != 1 || !slices.Equal(found[0].Blobs, []ID{r.blobs[0].id}) {
		t.Errorf("found %+v", found)
	}
}

// Whatever a record of a program stores, decoding it ends with bytes of the length it says or with
// an error that names the damage.
func FuzzProgram(f *testing.F) {
	one, oneProgram := program(f, tiny(1), 2)
	two, _ := program(f, tiny(2), 2, oneProgram)
	f.Add(one.stored, []byte(nil), one.header.plain, one.header.inner, false)
	f.Add(two.stored, oneProgram.Filtered, two.header.plain, two.header.inner, true)
	// The filter is met with bytes that need not be compressed first.
	f.Add(delta.Encode(nil, oneProgram.Filtered, nil, delta.Options{Level: zstd.SpeedFastest}), []byte(nil), one.header.plain, one.header.inner, true)
	dec, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	from := newBuffers(0)
	f.Fuzz(func(t *testing.T, stored, base []byte, plain, inner uint32, based bool) {
		plain %= 1 << 20
		h := &header{enc: encProgram, plain: plain, inner: min(inner, maxInner(plain)), blobs: []member{{ID{}, plain}}}
		if based {
			h.enc = encProgramDelta
		}
		r := h.record(stored)
		filtered, err := r.unpack(dec, [][]byte{base}, from)
		var d *Decoded
		if err == nil {
			d, err = r.restore(filtered)
		}
		if err != nil && !cleanError(err) {
			t.Fatal(err)
		}
		if err == nil && (len(d.Plain) != int(plain) || d.Sound(0)) {
			t.Errorf("%d bytes instead of %d", len(d.Plain), plain)
		}
		if err == nil {
			d.refs.Store(1)
			d.Release()
		}
		if n := from.used(); n != 0 {
			t.Errorf("%d bytes are never released", n)
		}
	})
}

// A part that two programs share is taken from the one in memory, wherever the
// index says that it lies.
func TestSharedPart(t *testing.T) {
	dir := t.TempDir()
	one, _ := program(t, tiny(1), 2)
	two, _ := program(t, tiny(2), 2)
	half := len(tiny(1)) / 2
	shared := -1
	for i := range 2 {
		if bytes.Equal(tiny(1)[i*half:(i+1)*half], tiny(2)[i*half:(i+1)*half]) {
			shared = i
		}
	}
	if shared < 0 {
		t.Fatal("nothing is shared")
	}
	refs, loc := number([]Pack{copyIn(t, dir, one, two)}, 1) // it lies in two
	for _, test := range []struct {
		limit   int64
		decodes uint64
	}{{1 << 20, 1}, {0, 2}} {
		v, err := OpenView(dir, refs, loc, NewCache(test.limit))
		if err != nil {
			t.Fatal(err)
		}
		own := 1 - shared
		checkBlob(t, v, tiny(1)[own*half:][:half])
		checkBlob(t, v, tiny(1)[shared*half:][:half])
		if st := v.cache.Stats(); st.Decodes != test.decodes {
			t.Errorf("limit %d: %d records were decoded, want %d", test.limit, st.Decodes, test.decodes)
		}
		v.cache.Clear()
		if d, _ := v.cache.holds(Sum(tiny(1)[shared*half:][:half])); d != nil {
			t.Error("a cleared cache holds something")
		}
		v.Close()
		checkReleased(t, v.cache)
	}
}
