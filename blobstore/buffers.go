package blobstore

import "gofs/blobstore/internal/arena"

const (
	// bufferSlack is how much room the decoder wants behind its last block to copy
	// without looking at every byte's place.
	bufferSlack = 16

	// workRoom is how much memory a cache has for records beside those that it
	// keeps, in bytes: what is decoded and its bases, and the streams of deltas.
	workRoom = maxRoom + 8<<20
)

// buffers are the memory of decoded records. The zero value has all of it from the
// garbage collector, which also steps in for an arena that is full.
type buffers struct{ arena *arena.Arena }

// newBuffers returns buffers for a cache of so many bytes.
func newBuffers(cache int64) buffers {
	return buffers{arena.New(int(min(cache, maxArena-workRoom)) + workRoom)}
}

// maxArena is more than any machine has, in bytes.
const maxArena = 1 << 46

// Apart says whether the decoded records of a cache with a limit lie apart from the
// garbage collector's memory, as far as the arena has room. A system that does not
// overcommit may refuse that.
func Apart(limit int64) bool {
	b := newBuffers(limit)
	buf := b.arena.Get(1)
	b.put(buf)
	return buf != nil
}

// get returns room for n bytes and bufferSlack, whatever bytes it has. There
// may be more of it than n says.
func (b buffers) get(n int) []byte {
	if b.arena != nil {
		if buf := b.arena.Get(n + bufferSlack); buf != nil {
			return buf
		}
	}
	return make([]byte, 0, n+bufferSlack)
}

// put takes room back that get has returned and nobody looks at any more.
func (b buffers) put(buf []byte) {
	if b.arena != nil {
		b.arena.Put(buf)
	}
}

// trim gives memory that is not in use back to the system.
func (b buffers) trim() {
	if b.arena != nil {
		b.arena.Trim()
	}
}

// used is how many bytes are in use, those of the garbage collector not counted.
func (b buffers) used() int {
	if b.arena == nil {
		return 0
	}
	return b.arena.Used()
}
