package blobstore

import (
	"slices"
	"sync"
)

// buffers keep the memory of records that nobody uses any more for the next
// ones. Fresh memory costs a page fault and a cleared page for each 4 KiB, which
// took a third of the time of decoding: a mount decodes many records right after
// its start, gives them to the kernel and forgets them.
type buffers struct {
	mu        sync.Mutex
	free      [bufferClasses][][]byte
	held      int      // bytes in free
	large     [][]byte // of more than the last class, the one that was put last behind the others
	heldLarge int      // bytes in large
}

const (
	bufferStep    = 128 << 10
	bufferClasses = 17 // up to 2 MiB and bufferSlack, what imports write
	buffersHeld   = 8 << 20

	// largeStep is what the sizes of large buffers are multiples of, so that those
	// of one program serve the next, whose size is another.
	largeStep = 1 << 20
	// largeHeld has room for the largest program and a few of the others.
	largeHeld = 24 << 20

	// bufferSlack is how much room the decoder wants behind its last block to copy
	// without looking at every byte's place.
	bufferSlack = 16
)

// get returns room for n bytes and bufferSlack. There is more of it than n says.
func (b *buffers) get(n int) []byte {
	if b == nil {
		return make([]byte, 0, n+bufferSlack)
	}
	n += bufferSlack
	class := (n - 1) / bufferStep
	b.mu.Lock()
	defer b.mu.Unlock()
	if class >= bufferClasses {
		return b.getLarge(n)
	}
	for c := class; c < min(class+3, bufferClasses); c++ {
		if k := len(b.free[c]); k > 0 {
			buf := b.free[c][k-1]
			b.free[c][k-1] = nil
			b.free[c] = b.free[c][:k-1]
			b.held -= cap(buf)
			return buf
		}
	}
	return make([]byte, 0, (class+1)*bufferStep)
}

// getLarge returns the smallest large buffer that has the room, unless it is
// more than twice as large; b.mu is held.
func (b *buffers) getLarge(n int) []byte {
	best := -1
	for i, buf := range b.large {
		if cap(buf) >= n && cap(buf) <= 2*n && (best < 0 || cap(buf) < cap(b.large[best])) {
			best = i
		}
	}
	if best < 0 {
		return make([]byte, 0, (n+largeStep-1)/largeStep*largeStep)
	}
	buf := b.large[best]
	b.removeLarge(best)
	return buf
}

func (b *buffers) removeLarge(i int) {
	b.heldLarge -= cap(b.large[i])
	b.large = slices.Delete(b.large, i, i+1)
}

// put takes memory that nobody looks at any more, and that get has returned.
func (b *buffers) put(buf []byte) {
	if b == nil || cap(buf) < bufferStep {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	class := cap(buf)/bufferStep - 1
	switch {
	case cap(buf) > largeHeld:
	case class >= bufferClasses:
		b.large = append(b.large, buf[:0])
		b.heldLarge += cap(buf)
		for b.heldLarge > largeHeld {
			b.removeLarge(0)
		}
	case b.held+cap(buf) <= buffersHeld:
		b.free[class] = append(b.free[class], buf[:0])
		b.held += cap(buf)
	}
}

func (b *buffers) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free, b.held = [bufferClasses][][]byte{}, 0
	b.large, b.heldLarge = nil, 0
}
