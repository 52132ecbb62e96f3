package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	bolt "go.etcd.io/bbolt"
)

// bbolt trusts its file. A damaged branch page that leads back to itself makes
// it walk in a circle until memory is out, a damaged free list makes the next
// commit write over pages in use, and either can panic in a goroutine of its
// own. So the pages that a transaction can reach are walked here before bbolt
// does. The layout is that of go.etcd.io/bbolt/internal/common: native byte
// order, and a page is
//
//	uint64 its number, uint16 flags, uint16 number of elements n,
//	uint32 number of pages that continue it
//	branch:    n times uint32 offset of the key from here, uint32 length of
//	           the key, uint64 page below
//	leaf:      n times uint32 flags, uint32 offset of the key from here,
//	           uint32 lengths of key and value, which lie behind one another
//	free list: n times uint64 number of a page; n of 0xffff means that the
//	           first of these is n
//	meta:      at metaRoot and behind it, uint64 root page, sequence, page of the
//	           free list, number of pages
//
// The value of a leaf element with flag 1 is a bucket: uint64 root page, uint64
// sequence, and for root page 0 a leaf page without a number of its own.
const (
	pageHead   = 16
	metaRoot   = pageHead + 16
	bucketHead = 16

	branchPage = 1
	leafPage   = 2
	freePage   = 16

	maxPageDepth = 64

	// Bounds on what a sparse file can claim without taking room: the database
	// (twelve releases have 10 MB), what continues one page (a version's inode
	// numbers or the free list), and what continues a branch (its keys are
	// short).
	maxDatabase = 4 << 30
	maxPageRun  = 16 << 20
	maxBranch   = 64 << 10
)

// checkPages walks the pages of the database in f that tx can reach.
func checkPages(tx *bolt.Tx, f io.ReaderAt, size int64) error {
	ps := int64(tx.DB().Info().PageSize)
	if ps < 512 || ps > 1<<24 || size < 2*ps {
		return fmt.Errorf("page size %d of %d bytes: %w", ps, size, ErrIndex)
	}
	var meta [metaRoot + 32]byte
	if _, err := f.ReadAt(meta[:], int64(tx.ID()%2)*ps); err != nil {
		return fmt.Errorf("meta page: %w: %w", err, ErrIndex)
	}
	number := func(off int) uint64 { return binary.NativeEndian.Uint64(meta[metaRoot+off:]) }
	root, free, pages := number(0), number(16), number(24)
	if size > maxDatabase {
		return fmt.Errorf("%d bytes, more than %d: %w", size, int64(maxDatabase), ErrIndex)
	}
	if pages > uint64(size/ps) {
		return fmt.Errorf("%d pages in %d bytes: %w", pages, size, ErrIndex)
	}
	w := &pageWalk{f: f, size: ps, seen: make([]bool, pages)}
	w.tree(root, nil, nil, 0)
	w.freeList(free)
	if w.err != nil {
		return fmt.Errorf("page %d: %w: %w", w.at, w.err, ErrIndex)
	}
	return nil
}

// pageWalk stops at the first error.
type pageWalk struct {
	f    io.ReaderAt
	size int64
	seen []bool   // by page number
	room [][]byte // for a page of each depth
	at   uint64
	err  error
}

func (w *pageWalk) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// read returns a page with those that continue it, until another of its depth is
// read. Nothing may be reached twice.
func (w *pageWalk) read(id uint64, depth int) []byte {
	w.at = id
	if id < 2 || id >= uint64(len(w.seen)) {
		w.fail("is outside the file")
		return nil
	}
	b := w.page(depth)
	if _, err := w.f.ReadAt(b, int64(id)*w.size); err != nil {
		w.fail("%w", err)
		return nil
	}
	more := uint64(binary.NativeEndian.Uint32(b[12:]))
	run := uint64(maxPageRun)
	if binary.NativeEndian.Uint16(b[8:])&branchPage != 0 {
		run = maxBranch // all on the way down are held at a time
	}
	if binary.NativeEndian.Uint64(b) != id || more >= uint64(len(w.seen))-id || more > run/uint64(w.size) {
		w.fail("has a wrong head")
		return nil
	}
	for i := id; i <= id+more; i++ {
		if w.seen[i] {
			w.fail("is used twice")
			return nil
		}
		w.seen[i] = true
	}
	if more > 0 {
		b = append(b[:w.size:w.size], make([]byte, int64(more)*w.size)...)
		if _, err := w.f.ReadAt(b[w.size:], int64(id+1)*w.size); err != nil {
			w.fail("%w", err)
			return nil
		}
	}
	return b
}

// page returns the memory for a page of a depth. A page each was most of the
// memory that opening a store touched.
func (w *pageWalk) page(depth int) []byte {
	for len(w.room) <= depth {
		w.room = append(w.room, make([]byte, w.size))
	}
	return w.room[depth]
}

// tree walks the pages below id, whose keys must be from low, below high and in
// order; nil is no bound.
func (w *pageWalk) tree(id uint64, low, high []byte, depth int) {
	b := w.read(id, depth)
	if w.err != nil {
		return
	}
	flags, n := binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:]))
	switch {
	case depth > maxPageDepth:
		w.fail("lies too deep")
	case flags == leafPage:
		w.leaf(b, low, high, depth)
	case flags == branchPage && n > 0 && pageHead+16*n <= len(b):
		w.branch(id, b, n, low, high, depth)
	default:
		w.fail("has flags %#x with %d elements", flags, n)
	}
}

func (w *pageWalk) branch(id uint64, b []byte, n int, low, high []byte, depth int) {
	keys, below := make([][]byte, n+1), make([]uint64, n)
	for i := range n {
		e := pageHead + 16*i
		keys[i] = w.slice(b, e, binary.NativeEndian.Uint32(b[e:]), uint64(binary.NativeEndian.Uint32(b[e+4:])))
		below[i] = binary.NativeEndian.Uint64(b[e+8:])
		w.order(keys[max(i-1, 0)], keys[i], i, low, high)
	}
	keys[n] = high
	for i := 0; i < n && w.err == nil; i++ {
		w.tree(below[i], keys[i], keys[i+1], depth+1)
		if w.err == nil {
			w.at = id
		}
	}
}

func (w *pageWalk) leaf(b, low, high []byte, depth int) {
	n := int(binary.NativeEndian.Uint16(b[10:]))
	if pageHead+16*n > len(b) {
		w.fail("has %d elements", n)
		return
	}
	var last, key []byte
	for i := 0; i < n && w.err == nil; i, last = i+1, key {
		e := pageHead + 16*i
		u := func(off int) uint32 { return binary.NativeEndian.Uint32(b[e+off:]) }
		key = w.slice(b, e, u(4), uint64(u(8)))
		value := w.slice(b, e, u(4), uint64(u(8))+uint64(u(12)))
		w.order(last, key, i, low, high)
		if w.err != nil || u(0)&1 == 0 {
			continue
		}
		if value = value[len(key):]; len(value) < bucketHead {
			w.fail("has a bucket of %d bytes", len(value))
		} else if root := binary.NativeEndian.Uint64(value); root != 0 {
			w.tree(root, nil, nil, depth+1)
		} else if inner := value[bucketHead:]; len(inner) < pageHead || binary.NativeEndian.Uint16(inner[8:]) != leafPage || depth > maxPageDepth {
			w.fail("has a wrong bucket")
		} else {
			w.leaf(inner, nil, nil, depth+1)
		}
	}
}

// slice returns n bytes at an offset from the element at e.
func (w *pageWalk) slice(b []byte, e int, off uint32, n uint64) []byte {
	from := uint64(e) + uint64(off)
	if from+n > uint64(len(b)) {
		w.fail("has an element outside itself")
		return nil
	}
	return b[from : from+n]
}

// order checks key i of a page, which follows last.
func (w *pageWalk) order(last, k []byte, i int, low, high []byte) {
	switch {
	case i > 0 && bytes.Compare(last, k) >= 0,
		low != nil && bytes.Compare(k, low) < 0,
		high != nil && bytes.Compare(k, high) >= 0:
		w.fail("has keys out of order")
	}
}

// freeList checks that no page in use is free.
func (w *pageWalk) freeList(id uint64) {
	if w.err != nil {
		return
	}
	b := w.read(id, 0)
	if w.err != nil {
		return
	}
	n, ids := uint64(binary.NativeEndian.Uint16(b[10:])), b[pageHead:]
	if n == 0xffff {
		n, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if binary.NativeEndian.Uint16(b[8:]) != freePage || n > uint64(len(ids)/8) {
		w.fail("is no free list")
		return
	}
	for ; n > 0; n, ids = n-1, ids[8:] {
		free := binary.NativeEndian.Uint64(ids)
		if free < 2 || free >= uint64(len(w.seen)) || w.seen[free] {
			w.fail("lists page %d as free", free)
			return
		}
		w.seen[free] = true
	}
}
