package blobstore

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"
)

// TestRelease decodes records with a cache that keeps nothing. The memory of
// one that is released serves the next, that of one in use does not.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	plain := [][]byte{text(1, 100<<10), text(2, 100<<10), text(3, 100<<10)}
	refs, loc := number(store(t, dir, group(plain[0]), group(plain[1]), group(plain[2])), 1)
	v := openView(t, dir, refs, loc)
	get := func(i int, record func(context.Context, ID) (*Decoded, int, error)) *Decoded {
		t.Helper()
		d, k, err := record(t.Context(), Sum(plain[i]))
		if err != nil || !bytes.Equal(d.Bytes(k), plain[i]) {
			t.Fatalf("record %d: %v", i, err)
		}
		return d
	}
	used, released := get(0, v.RecordOnce), get(1, v.RecordOnce)
	memory := &released.Plain[0]
	released.Release()
	if released.Plain != nil {
		t.Error("the bytes can be looked at after their release")
	}
	next := get(2, v.RecordOnce)
	if &next.Plain[0] != memory {
		t.Error("the memory of a released record does not serve the next")
	}
	if !bytes.Equal(used.Plain, plain[0]) {
		t.Error("a record in use has changed")
	}

	// One that the cache keeps goes back when the cache drops it, and not
	// before its last user lets go.
	next.Release()
	kept := get(1, v.Record)
	kept.Release()
	if again := get(1, v.Record); again != kept {
		t.Error("not kept")
	}
	v.cache.Clear()
	if kept.Plain == nil {
		t.Error("dropped under a user")
	}
	kept.Release()
	if kept.Plain != nil {
		t.Error("still there when nobody uses it")
	}
	used.Release()
}

func TestRecordOnceIsNotKept(t *testing.T) {
	dir := t.TempDir()
	data := text(1, 100<<10)
	refs, loc := number(store(t, dir, group(data)), 1)
	v := openView(t, dir, refs, loc)
	for range 2 {
		d, _, err := v.RecordOnce(t.Context(), Sum(data))
		if err != nil {
			t.Fatal(err)
		}
		d.Release()
	}
	if st := v.cache.Stats(); st.Decodes != 2 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}

	// What somebody had kept is not needed any more.
	kept, _, err := v.Record(t.Context(), Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	kept.Release()
	once, _, err := v.RecordOnce(t.Context(), Sum(data))
	if err != nil || once != kept || once.Plain == nil {
		t.Fatalf("not the one in memory: %v", err)
	}
	once.Release()
	if st := v.cache.Stats(); st.Decodes != 3 || st.Bytes != 0 || kept.Plain != nil {
		t.Errorf("%+v", st)
	}
}

// TestSharedBase decodes a record of two bases of which one is a base of the
// other: its memory must not serve that one's decoding while the record's own is
// to come.
func TestSharedBase(t *testing.T) {
	dir := t.TempDir()
	// What all need makes the bases' needs equal, so that they are decoded in the
	// order of the record.
	root := noise(1, 1<<20)
	base := slices.Concat(root[:300<<10], text(1, 5000))
	middle := slices.Concat(base[1000:], text(2, 5000))
	last := slices.Concat(middle[:100<<10], text(3, 5000), base[:200<<10])
	based := func(depth int, plain []byte, bases ...[]byte) *Record {
		g := group(plain)
		g.Depth = depth - 1
		return dense(t, g, bases...)
	}
	p := copyIn(t, dir, based(3, last, base, middle), based(2, middle, base), based(1, base, root), dense(t, group(root)))
	refs, loc := number([]Pack{p}, 1)
	v, err := OpenView(dir, refs, loc, NewCache(0)) // it drops all that it is not bound to hold
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for range 3 {
		checkBlob(t, v, last)
	}
	checkReleased(t, v.cache)
}

// TestProgramOnce reads the parts of a small program one after the other, as a
// mount pushes it: it is decoded once.
func TestProgramOnce(t *testing.T) {
	dir := t.TempDir()
	r, _ := program(t, tiny(1), 3)
	refs, loc := number([]Pack{copyIn(t, dir, r)}, 1)
	v := openView(t, dir, refs, loc)
	for _, m := range r.header.blobs[1:] {
		d, _, err := v.RecordOnce(t.Context(), m.id)
		if err != nil {
			t.Fatal(err)
		}
		d.Release()
	}
	if st := v.cache.Stats(); st.Decodes != 1 {
		t.Errorf("decoded %d times", st.Decodes)
	}
}

// TestBuffers has more in use than the arena has room for.
func TestBuffers(t *testing.T) {
	for _, b := range []buffers{{}, newBuffers(0)} {
		var all [][]byte
		for _, n := range []int{0, 1, 1 << 20, 20 << 20, workRoom, 1} {
			buf := b.get(n)
			if len(buf) != 0 || cap(buf) < n+bufferSlack {
				t.Errorf("room for %d bytes: %d", n, cap(buf))
			}
			all = append(all, buf)
		}
		for _, buf := range all {
			b.put(buf)
		}
		if b.used() != 0 {
			t.Errorf("%d bytes used", b.used())
		}
		b.trim()
	}
}

// TestBuffersOfManyBytes is a cache larger than any machine.
func TestBuffersOfManyBytes(t *testing.T) {
	c := NewCache(math.MaxInt64)
	if buf := c.buffers.get(1000); cap(buf) < 1000 {
		t.Error("no memory")
	}
}
