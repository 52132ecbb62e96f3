// Package arena keeps the memory of decoded records apart from the garbage
// collector's.
//
// Records are decoded into buffers of every size between some KiB and the 50 MiB
// of a filtered program, live for a moment or for minutes, and are let go of
// explicitly. Out of the Go heap each buffer that was not at hand meant
// memory that the runtime cleared, that the system gave page by page, and that
// the collector found and the scavenger gave back: that was a third of the time
// in which a mount read a compacted release.
package arena

import (
	"os"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// granule is what the sizes and places of buffers are multiples of, in bytes: of
// whole pages, since the system takes no less back. Some have pages of 64 KiB.
var granule = max(16<<10, os.Getpagesize())

const (
	// large buffers come from the upper end. Small ones stay for long, in a cache;
	// one of them in the middle of the room for a program would keep that from
	// being had in one piece.
	large = 2 << 20

	// hugePage is the size that the system's large pages have.
	hugePage = 2 << 20
)

// spread is how many times as many addresses as bytes an arena has, if it can: pages that are
// free but lie between others that are not can be given back to the system, and
// be had elsewhere in one piece.
const spread = 4

// Arena hands out memory, up to a number of bytes that the system is asked for
// when they are used for the first time. Its memory is not cleared: a buffer has
// what the last one left there.
//
// Buffers must not be looked at when the arena cannot be reached any more: the
// garbage collector does not see that they are its own.
//
// Safe for concurrent use.
type Arena struct {
	size int // bytes that the system has given at most

	mu    sync.Mutex
	mem   []byte
	bad   bool        // the system has no room
	free  []span      // ascending; those that adjoin differ in touched
	taken map[int]int // size by place
	used  int         // bytes taken
	idle  int         // bytes free and touched
}

// span is a free piece of the memory.
type span struct {
	from, to int
	touched  bool // the system has given it, or may have
}

func (f span) size() int { return f.to - f.from }

// New returns an arena of size bytes, of which none are taken from the system
// yet.
func New(size int) *Arena {
	return &Arena{size: (size + hugePage - 1) / hugePage * hugePage}
}

// Get returns an empty buffer with a capacity of at least n bytes, nil where the
// arena has not so many left.
func (a *Arena) Get(n int) []byte {
	if n <= 0 || n > a.size {
		return nil
	}
	n = (n + granule - 1) / granule * granule
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.used+n > a.size || a.mem == nil && !a.open() {
		return nil
	}
	i := a.find(n, true)
	if i < 0 {
		if over := a.used + a.idle + n - a.size; over > 0 {
			a.trim(over)
		}
		if i = a.find(n, false); i < 0 {
			return nil
		}
	}
	at := a.cut(i, n)
	a.taken[at] = n
	a.used += n
	return a.mem[at : at : at+n]
}

// open takes the addresses from the system; a.mu is held.
func (a *Arena) open() bool {
	if a.bad {
		return false
	}
	size := spread * a.size
	var as unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_AS, &as) != nil || as.Cur != unix.RLIM_INFINITY {
		size = a.size // ulimit -v; others need some as well
	}
	b, err := reserve(size)
	if err != nil && size > a.size { // perhaps a system that does not overcommit
		size = a.size
		b, err = reserve(size)
	}
	if err != nil {
		a.bad = true
		return false
	}
	from := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (hugePage - 1))
	a.mem = b[from:][:size:size]
	_ = unix.Madvise(a.mem, unix.MADV_HUGEPAGE) // an error means small pages
	runtime.AddCleanup(a, func(b []byte) { _ = unix.Munmap(b) }, b)
	a.free = []span{{0, size, false}}
	a.taken = map[int]int{}
	return true
}

// reserve maps size bytes, and a huge page more, to begin at the edge of one.
func reserve(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size+hugePage, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
}

// find returns a free span of n bytes or more, or -1.
func (a *Arena) find(n int, touched bool) int {
	fits := func(f span) bool { return f.touched == touched && f.size() >= n }
	if n < large {
		return slices.IndexFunc(a.free, fits)
	}
	for i, f := range slices.Backward(a.free) {
		if fits(f) {
			return i
		}
	}
	return -1
}

// cut takes n bytes out of a free span and returns their place: the first ones
// for a small buffer, the last for a large one.
func (a *Arena) cut(i, n int) (at int) {
	f := &a.free[i]
	if f.touched {
		a.idle -= n
	}
	if n < large {
		at = f.from
		f.from += n
	} else {
		f.to -= n
		at = f.to
	}
	if f.size() == 0 {
		a.free = slices.Delete(a.free, i, i+1)
	}
	return at
}

// Put takes a buffer back that Get has returned, and nobody looks at any more. It
// leaves others alone.
func (a *Arena) Put(b []byte) {
	if cap(b) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mem == nil {
		return
	}
	at := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(a.mem))))
	n, ok := a.taken[at]
	if !ok || n != cap(b) {
		return
	}
	delete(a.taken, at)
	a.used -= n
	a.idle += n
	i, _ := slices.BinarySearchFunc(a.free, at, func(f span, at int) int { return f.from - at })
	a.free = slices.Insert(a.free, i, span{at, at + n, true})
	a.join(i)
}

// join makes one of a free span and those before and behind it that are like it,
// and returns its index.
func (a *Arena) join(i int) int {
	for _, k := range []int{i + 1, i} {
		if k > 0 && k < len(a.free) && a.free[k-1].to == a.free[k].from && a.free[k-1].touched == a.free[k].touched {
			a.free[k-1].to = a.free[k].to
			a.free = slices.Delete(a.free, k, k+1)
			i = min(i, k-1)
		}
	}
	return i
}

// Trim gives what is free back to the system.
func (a *Arena) Trim() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trim(a.idle)
}

// trim gives at least n free bytes back where there are so many; a.mu is held.
func (a *Arena) trim(n int) {
	for i := len(a.free) - 1; i >= 0 && n > 0; i-- {
		f := &a.free[i]
		if !f.touched {
			continue
		}
		_ = unix.Madvise(a.mem[f.from:f.to], unix.MADV_DONTNEED) // an error means that it stays
		f.touched = false
		n -= f.size()
		a.idle -= f.size()
		i = a.join(i)
	}
}

// Used returns how many bytes are taken.
func (a *Arena) Used() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}
