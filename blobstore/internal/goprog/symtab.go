package goprog

import (
	"encoding/binary"
)

// symSize is the length of an entry: name uint32, info byte, other byte, section uint16,
// value uint64, size uint64.
const symSize = 24

// funcAlign is what the linker aligns functions to.
const funcAlign = 32

// filterSymtab writes the symbol table as differences from what the entry before it suggests: names
// follow each other in the string table, and symbols of one section in memory.
func (img *image) filterSymtab(inverse bool) {
	tab, str := img.bytes(&img.symtab), string(img.bytes(&img.strtab))
	var (
		le   = binary.LittleEndian
		name uint32
		next [1 << 8]uint64 // by section
	)
	for ; len(tab) >= symSize; tab = tab[symSize:] {
		n, v := le.Uint32(tab), le.Uint64(tab[8:])
		at := &next[tab[6]]
		if inverse {
			n, v = n+name, v+*at
			le.PutUint32(tab, n)
			le.PutUint64(tab[8:], v)
		} else {
			le.PutUint32(tab, n-name)
			le.PutUint64(tab[8:], v-*at)
		}
		name = n + uint32(len(stringAt(str, n))) + 1
		end := v + le.Uint64(tab[16:])
		if tab[4]&15 == 2 { // a function
			end = (end + funcAlign - 1) &^ (funcAlign - 1)
		}
		*at = end
	}
}
