package blobstore

import (
	"bytes"
	"context"
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
}

func TestRecordOnceIsNotKept(t *testing.T) {
	dir := t.TempDir()
	data := text(1, 100<<10)
	refs, loc := number(store(t, dir, group(data)), 1)
	v := openView(t, dir, refs, loc)
	for range 2 {
		if _, _, err := v.RecordOnce(t.Context(), Sum(data)); err != nil {
			t.Fatal(err)
		}
	}
	if st := v.cache.Stats(); st.Decodes != 2 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestBuffers(t *testing.T) {
	var b buffers
	for _, n := range []int{0, 1, bufferStep, bufferStep + 1, bufferStep * bufferClasses, bufferStep*bufferClasses + 1} {
		if got := b.get(n); len(got) != 0 || cap(got) < n {
			t.Errorf("room for %d bytes: %d", n, cap(got))
		}
	}
	for range 2 * buffersHeld / bufferStep {
		b.put(make([]byte, 0, bufferStep))
	}
	if b.held > buffersHeld {
		t.Errorf("%d bytes held", b.held)
	}
}
