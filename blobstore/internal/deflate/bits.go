package deflate

import "encoding/binary"

// bitWriter writes bits, the lowest first, to dst until that is full.
type bitWriter struct {
	dst  []byte
	n    int
	bits uint64
	num  uint // of bits, less than 32 between calls
	full bool // something had no room
}

// put writes at most 32 bits.
func (w *bitWriter) put(v uint64, n uint) {
	w.bits |= v << (w.num & 63)
	if w.num += n; w.num >= 32 {
		w.word()
	}
}

func (w *bitWriter) code(c code) { w.put(uint64(c.bits), uint(c.size)) }

func (w *bitWriter) word() {
	if len(w.dst)-w.n < 4 {
		w.full = true
	} else {
		binary.LittleEndian.PutUint32(w.dst[w.n:], uint32(w.bits))
		w.n += 4
	}
	w.bits >>= 32
	w.num -= 32
}

// stored writes a stored block.
func (w *bitWriter) stored(b []byte, final bool) {
	var flag uint64
	if final {
		flag = 1
	}
	w.put(flag, 3)
	w.align()
	n := uint16(len(b))
	w.bytes([]byte{byte(n), byte(n >> 8), ^byte(n), ^byte(n >> 8)})
	w.bytes(b)
}

// align fills up the last byte.
func (w *bitWriter) align() {
	for ; w.num > 0; w.num -= min(w.num, 8) {
		w.bytes([]byte{byte(w.bits)})
		w.bits >>= 8
	}
}

// bytes writes bytes where no bits are left.
func (w *bitWriter) bytes(b []byte) {
	if len(w.dst)-w.n < len(b) {
		w.full = true
		return
	}
	w.n += copy(w.dst[w.n:], b)
}
