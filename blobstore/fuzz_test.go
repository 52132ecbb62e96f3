package blobstore

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"gofs/blobstore/internal/delta"
)

// cleanError says whether err is one that hostile bytes may cause.
func cleanError(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrFormat) }

func FuzzRecordHeader(f *testing.F) {
	for _, h := range []header{
		{plain: 3, stored: 3, blobs: []member{{Sum(nil), 0}, {Sum([]byte("abc")), 3}}},
		{enc: encDict, depth: 2, plain: 9, stored: 4, blobs: []member{{Sum([]byte("x")), 9}}, bases: []ID{Sum(nil), {1}}},
		{enc: encProgram, effort: 2, plain: 9, stored: 4, inner: 12, blobs: []member{{Sum([]byte("x")), 9}}},
		{enc: encProgramDelta, effort: 1, depth: 1, plain: 9, stored: 4, inner: 7, blobs: []member{{Sum([]byte("x")), 9}, {ID{}, 4}, {ID{2}, 5}}, bases: []ID{{1}}},
		{enc: encZstd, kind: Version, plain: MaxRecord, stored: 20, blobs: []member{{ID{}, MaxRecord}}},
	} {
		f.Add(h.append(nil), uint8(h.stored))
	}
	f.Fuzz(func(t *testing.T, b []byte, more uint8) {
		pack := slices.Concat(appendPackHeader(nil), b, make([]byte, more))
		h, err := readHeader(bytes.NewReader(pack), packHeader, int64(len(pack)))
		if err != nil {
			if !cleanError(err) {
				t.Fatal(err)
			}
			return
		}
		if again := h.append(nil); !bytes.Equal(again, b[:len(again)]) {
			t.Error("encodes to other bytes")
		}
		sum := uint64(0)
		for _, m := range h.blobs {
			sum += uint64(m.length)
		}
		if h.whole() {
			sum -= uint64(h.plain)
		}
		if h.inner > maxInner(h.plain) {
			t.Errorf("accepted %+v", h)
		}
		if sum != uint64(h.plain) || h.stored > h.plain || h.plain > MaxRecord || h.depth > MaxDepth || (h.depth > 0) != (len(h.bases) > 0) {
			t.Errorf("accepted %+v", h)
		}
	})
}

func FuzzPack(f *testing.F) {
	dir := f.TempDir()
	base := noise(1, 90)
	based := group(slices.Concat(base, noise(1, 90)))
	based.Bases = []Blob{blob(base)}
	p := store(f, dir, group(base), group(text(1, 150), nil), based)[0]
	f.Add(readPack(f, dir, p.Name), int64(packHeader), uint32(0))
	one, oneProgram := program(f, tiny(1), 2)
	two, _ := program(f, tiny(2), 2, oneProgram)
	p = copyIn(f, dir, one, two)
	f.Add(readPack(f, dir, p.Name), int64(packHeader), uint32(0))
	f.Add(appendTrailer(appendPackHeader(nil), 0, packHeader+packTrailer), int64(0), uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, record int64, offset uint32) {
		dir := t.TempDir()
		if err := os.WriteFile(packPath(dir, "p"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		loc := locator{Sum(base): {Pack: 1, Length: 90, Offset: offset, Record: record}}
		if pr, err := OpenPack(dir, "p"); err == nil {
			for r, err := range pr.Records(true) {
				if err != nil && !cleanError(err) {
					t.Error(err)
				}
				if err != nil {
					break
				}
				for _, b := range r.Placed() {
					b.Location.Pack = 1
					loc[b.ID] = b.Location
				}
			}
			pr.Close()
		} else if !cleanError(err) {
			t.Error(err)
		}
		v := openView(t, dir, []PackRef{{1, "p", int64(len(b))}}, loc)
		for id := range loc {
			got, err := v.Blob(t.Context(), id)
			if err != nil && !cleanError(err) {
				t.Error(err)
			}
			if err == nil && Sum(got) != id {
				t.Error("wrong bytes")
			}
		}
		for _, d := range verify(t, v, "p") {
			if !cleanError(d.Err) {
				t.Error(d.Err)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	enc, err := newEncoders(LevelImport, 1)
	if err != nil {
		f.Fatal(err)
	}
	defer enc.Close()
	dict := noise(1, 500)
	plain := slices.Concat(dict[100:300], text(1, 100), dict[:50])
	stored, err := enc.encodeDict(plain, dict)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored, dict, uint32(len(plain)), uint8(encDict))
	e, stored := enc.encode(text(1, 1000), false)
	f.Add(stored, []byte(nil), uint32(1000), uint8(e))
	f.Add([]byte("abc"), []byte(nil), uint32(3), uint8(encRaw))
	f.Add(delta.Encode(nil, plain, [][]byte{dict}, delta.Options{}), dict, uint32(len(plain)), uint8(3))
	dec, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	from := newBuffers(0)
	f.Fuzz(func(t *testing.T, stored, dict []byte, plain uint32, enc uint8) {
		h := &header{enc: []encoding{encRaw, encZstd, encDict, encDelta}[enc%4], plain: plain % (1 << 20), stored: uint32(len(stored))}
		d, err := (&Record{header: h, stored: stored}).decode(dec, [][]byte{dict}, from)
		if err != nil && !cleanError(err) {
			t.Fatal(err)
		}
		if err == nil {
			if len(d.Plain) != int(h.plain) {
				t.Errorf("%d bytes instead of %d", len(d.Plain), h.plain)
			}
			d.refs.Store(1)
			d.Release()
		}
		if n := from.used(); n != 0 {
			t.Errorf("%d bytes are never released", n)
		}
	})
}

func BenchmarkViewBlob(b *testing.B) {
	dir := b.TempDir()
	var groups []Group
	var ids []ID
	for i := range 64 {
		g := group()
		for j := range 32 {
			g.Blobs = append(g.Blobs, blob(text(100*i+j, 8<<10)))
			ids = append(ids, g.Blobs[j].ID)
		}
		groups = append(groups, g)
	}
	refs, loc := number(store(b, dir, groups...), 1)
	for name, limit := range map[string]int64{"cold": 0, "warm": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			v, err := OpenView(dir, refs, loc, NewCache(limit))
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			b.SetBytes(8 << 10)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := v.Blob(b.Context(), ids[i*37%len(ids)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
