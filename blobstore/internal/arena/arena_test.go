package arena

import (
	"bytes"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// TestArena takes and gives back buffers of many sizes, each full of its own
// bytes: none changes while it is taken, and in the end all is one piece again.
func TestArena(t *testing.T) {
	const size = 32 << 20
	a := New(size)
	r := rand.New(rand.NewPCG(1, 2))
	type buffer struct {
		b    []byte
		mark byte
	}
	var taken []buffer
	refused := 0
	for i := range 20_000 {
		if len(taken) > 0 && r.IntN(100) < 45 {
			k := r.IntN(len(taken))
			b := taken[k]
			if n := bytes.Count(b.b, []byte{b.mark}); n != len(b.b) {
				t.Fatalf("step %d: %d of %d bytes changed", i, len(b.b)-n, len(b.b))
			}
			a.Put(b.b[:0])
			taken[k] = taken[len(taken)-1]
			taken = taken[:len(taken)-1]
			continue
		}
		n := 1 + r.IntN(300<<10)
		if i%50 == 0 {
			n = 1 + r.IntN(8<<20)
		}
		b := a.Get(n)
		if b == nil {
			refused++
			continue
		}
		if len(b) != 0 || cap(b) < n || cap(b) >= n+granule {
			t.Fatalf("room for %d bytes: %d of %d", n, len(b), cap(b))
		}
		if a.used+a.idle > size {
			t.Fatalf("step %d: %d bytes used, %d idle", i, a.used, a.idle)
		}
		b = b[:cap(b)]
		mark := byte(i)
		b[0] = mark
		for k := 1; k < len(b); k *= 2 {
			copy(b[k:], b[:k])
		}
		taken = append(taken, buffer{b, mark})
	}
	if refused == 0 {
		t.Error("never full")
	}
	for _, b := range taken {
		a.Put(b.b)
	}
	for i, f := range a.free {
		if i > 0 && (a.free[i-1].to != f.from || a.free[i-1].touched == f.touched) {
			t.Errorf("free: %v", a.free)
		}
	}
	if a.Used() != 0 || len(a.taken) != 0 || a.idle > size {
		t.Errorf("%d bytes used, %d idle, %d buffers", a.Used(), a.idle, len(a.taken))
	}
	a.Trim()
	if len(a.free) != 1 || a.free[0] != (span{0, spread * size, false}) || a.idle != 0 {
		t.Errorf("free: %v, %d idle", a.free, a.idle)
	}
	if a.Get(size) == nil || a.Get(1) != nil {
		t.Error("not all of it, or more")
	}
}

func TestLargeComeFromAbove(t *testing.T) {
	a := New(16 << 20)
	low, high := a.Get(1), a.Get(large)
	if d := distance(high, low); d != spread*16<<20-large {
		t.Errorf("%d bytes apart", d)
	}
}

// TestFewAddresses has room for the bytes, but not for the spread.
func TestFewAddresses(t *testing.T) {
	const size = 1 << 45
	a := New(size)
	if b := a.Get(1); b == nil || len(a.mem) != size {
		t.Errorf("%d bytes of addresses", len(a.mem))
	}
}

// TestScattered has half of the room free in pieces of a granule.
func TestScattered(t *testing.T) {
	a := New(16 << 20)
	var all [][]byte
	for b := a.Get(1); b != nil; b = a.Get(1) {
		all = append(all, b)
	}
	for i := 0; i < len(all); i += 2 {
		a.Put(all[i])
	}
	if a.Used() != 8<<20 || a.Get(8<<20) == nil || a.Get(1) != nil || a.idle != 0 {
		t.Errorf("%d bytes used, %d idle", a.Used(), a.idle)
	}
}

// TestPutOfOthers gives back what the arena has not handed out, or not now.
func TestPutOfOthers(t *testing.T) {
	a := New(16 << 20)
	a.Put(make([]byte, 10))
	a.Put(nil)
	b, c := a.Get(100), a.Get(100)
	a.Put(make([]byte, granule))
	a.Put(b[:0:10])
	a.Put(c[:1][1:])
	if a.Used() != 2*granule {
		t.Errorf("%d bytes used", a.Used())
	}
	a.Put(b)
	a.Put(b)
	if a.Used() != granule {
		t.Errorf("%d bytes used after one was given back twice", a.Used())
	}
}

func TestSizes(t *testing.T) {
	a := New(1)
	for _, n := range []int{-1, 0, hugePage + 1, 1 << 62} {
		if a.Get(n) != nil {
			t.Errorf("room for %d bytes", n)
		}
	}
	if b := a.Get(hugePage); cap(b) != hugePage || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%hugePage != 0 {
		t.Error("a huge page is none")
	}
	none := New(1 << 62)
	for range 2 {
		if none.Get(1) != nil {
			t.Error("more than the system has")
		}
	}
	none.Put(make([]byte, 10))
	none.Trim()
}

// TestTrim looks at what the system has given.
func TestTrim(t *testing.T) {
	a := New(64 << 20)
	a.Trim()
	kept, b := a.Get(1<<20), a.Get(40<<20)
	kept, b = kept[:cap(kept)], b[:cap(b)]
	for i := range kept {
		kept[i] = 7
	}
	for i := range b {
		b[i] = 7
	}
	before := resident(t)
	a.Put(b)
	a.Trim()
	if after := resident(t); before-after < 36<<20 {
		t.Errorf("%d bytes resident, before %d", after, before)
	}
	if bytes.Count(kept, []byte{7}) != len(kept) {
		t.Error("a buffer in use has changed")
	}
	runtime.KeepAlive(a)
}

// TestUnreachable has the room go back to the system with its arena.
func TestUnreachable(t *testing.T) {
	a := New(64 << 20)
	b := a.Get(60 << 20)
	b = b[:cap(b)]
	for i := range b {
		b[i] = 7
	}
	before := resident(t)
	runtime.KeepAlive(a)
	a, b = nil, nil
	for deadline := time.Now().Add(30 * time.Second); before-resident(t) < 56<<20; {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes resident, before %d", resident(t), before)
		}
		runtime.GC()
	}
}

func TestConcurrent(t *testing.T) {
	a := New(8 << 20)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				b := a.Get(1 + (i*7919+g)%(200<<10))
				if b == nil {
					continue
				}
				b = b[:cap(b)]
				b[0], b[len(b)-1] = byte(g), byte(g)
				runtime.Gosched()
				if b[0] != byte(g) || b[len(b)-1] != byte(g) {
					t.Error("changed")
				}
				a.Put(b)
			}
		})
	}
	wg.Wait()
	if a.Used() != 0 {
		t.Errorf("%d bytes used", a.Used())
	}
}

func distance(a, b []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(a))) - uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// resident is how much memory the process has of the system, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
