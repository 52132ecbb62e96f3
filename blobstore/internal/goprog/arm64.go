package goprog

import "encoding/binary"

// On arm64 a label has 24 bits. In a branch, whose field counts words in 26 bits, it is written as a
// distance of 64 MB and more; in ADRP, whose field counts pages in 21 bits, as one of 2 GB and
// more, with its lower 12 bits in the field of the instruction behind. No program is that large.
const (
	branchLabel = 1 << 24
	pageLabel   = 1 << 19
)

func walkARM64(code []byte, f field, visit visitor) {
	off, pc := f.off, f.pc
	for i := 0; i+4 <= len(code); i += 4 {
		x := binary.LittleEndian.Uint32(code[i:])
		f.off, f.pc = off+i, pc+uint64(i)
		switch {
		case x&0x7c000000 == 0x14000000: // B, BL
			f.kind = fieldBranch
			visit(f)
		case x&0x9f000000 == 0x90000000 && i+8 <= len(code): // ADRP
			y := binary.LittleEndian.Uint32(code[i+4:])
			if _, ok := pageScale(y); ok && y>>5&31 == x&31 {
				f.kind = fieldPage
				visit(f)
				i += 4
			}
		}
	}
}

// pageScale returns by how many bits the 12-bit field of an instruction that follows ADRP is
// shifted: ADD, or a load or store of 1 to 16 bytes.
func pageScale(y uint32) (shift uint, ok bool) {
	switch {
	case y&0xffc00000 == 0x91000000: // ADD (64 bits)
		return 0, true
	case y&0x3f000000 == 0x39000000: // integer load or store, unsigned offset
		return uint(y >> 30), true
	case y&0x3f000000 == 0x3d000000: // the same for floating point
		if y>>30 == 0 && y&(1<<23) != 0 {
			return 4, true
		}
		return uint(y >> 30), true
	}
	return 0, false
}

func armTarget(b []byte, f field) uint64 {
	x := binary.LittleEndian.Uint32(b)
	if f.kind == fieldBranch {
		return f.pc + uint64(int64(int32(x<<6)>>6)*4)
	}
	y := binary.LittleEndian.Uint32(b[4:])
	shift, _ := pageScale(y)
	low := y >> 10 & 0xfff << shift
	if low > 0xfff {
		return 0 // an offset from the page, not into it
	}
	pages := int64(int32(x>>5&0x7ffff<<2|x>>29&3)<<11) >> 11
	return f.pc&^0xfff + uint64(pages<<12) + uint64(low)
}

func setARMTarget(b []byte, f field, t uint64) {
	if f.kind == fieldBranch {
		setBranch(b, uint32((t-f.pc)>>2))
		return
	}
	shift, _ := pageScale(binary.LittleEndian.Uint32(b[4:]))
	setPage(b, uint32((t>>12)-(f.pc>>12)), uint32(t&0xfff)>>shift)
}

func armLabel(b []byte, f field) (v uint32, ok bool) {
	x := binary.LittleEndian.Uint32(b)
	if f.kind == fieldBranch {
		v = x & 0x3ffffff
		return v & (branchLabel - 1), v&^(branchLabel-1) == branchLabel
	}
	pages := x>>5&0x7ffff<<2 | x>>29&3
	v = pages&0xfff<<12 | binary.LittleEndian.Uint32(b[4:])>>10&0xfff
	return v, pages&^0xfff == pageLabel
}

func setARMLabel(b []byte, f field, v uint32) {
	if f.kind == fieldBranch {
		setBranch(b, branchLabel|v)
		return
	}
	setPage(b, pageLabel|v>>12, v&0xfff)
}

func setBranch(b []byte, words uint32) {
	x := binary.LittleEndian.Uint32(b)
	binary.LittleEndian.PutUint32(b, x&^0x3ffffff|words&0x3ffffff)
}

func setPage(b []byte, pages, low uint32) {
	x, y := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	x = x&^0x60ffffe0 | pages&3<<29 | pages>>2&0x7ffff<<5
	y = y&^0x3ffc00 | low&0xfff<<10
	binary.LittleEndian.PutUint32(b, x)
	binary.LittleEndian.PutUint32(b[4:], y)
}
