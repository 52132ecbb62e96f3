package blobstore

import "sync"

// buffers keep the memory of records that nobody uses any more for the next
// ones. Fresh memory costs a page fault and a cleared page for each 4 KiB, which
// took a third of the time of decoding: a mount decodes many records right after
// its start, gives them to the kernel and forgets them.
type buffers struct {
	mu   sync.Mutex
	free [bufferClasses][][]byte
	held int // bytes
}

const (
	bufferStep    = 128 << 10
	bufferClasses = 16 // up to 2 MiB, what imports write
	buffersHeld   = 8 << 20
)

// get returns room for n bytes.
func (b *buffers) get(n int) []byte {
	class := (n - 1) / bufferStep
	if n == 0 || class >= bufferClasses {
		return make([]byte, 0, n)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
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

// put takes memory that nobody looks at any more.
func (b *buffers) put(buf []byte) {
	class := cap(buf)/bufferStep - 1
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held+cap(buf) <= buffersHeld {
		b.free[class] = append(b.free[class], buf[:0])
		b.held += cap(buf)
	}
}

func (b *buffers) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free, b.held = [bufferClasses][][]byte{}, 0
}
