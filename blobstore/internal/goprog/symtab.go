package goprog

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// entrySize is the length of a symbol table's entry:
//
//	ELF     name uint32, info byte, other byte, section uint16, value uint64, size uint64
//	Mach-O  name uint32, type byte, section byte, description uint16, value uint64
//	PE      name of 8 bytes, or 0 and name as uint32; value uint32, section uint16, type uint16,
//	        class byte, and how many entries follow that are none
var entrySize = [...]int{elfFile: 24, machoFile: 16, peFile: 18}

// funcAlign is what the linker aligns functions to.
const funcAlign = 32

// entries calls f with every entry of the symbol table.
func (img *image) entries(f func(e []byte)) {
	size := entrySize[img.format]
	for tab := img.bytes(&img.symtab); len(tab) >= size; tab = tab[size:] {
		f(tab[:size])
		if img.format == peFile {
			tab = tab[min(int(tab[17])*size, len(tab)-size):]
		}
	}
}

// symbol is what a plain entry says. Its address is 0 if it has none.
func (img *image) symbol(e []byte) symbol {
	le := binary.LittleEndian
	s := symbol{name: img.nameOf(e)}
	switch img.format {
	case elfFile:
		s.addr, s.size = le.Uint64(e[8:]), min(le.Uint64(e[16:]), maxSize)
	case machoFile:
		if place(img.format, e) != 0 {
			s.addr = le.Uint64(e[8:])
		}
	case peFile:
		if i := int(place(img.format, e)); i > 0 && i <= len(img.bases) {
			s.addr = img.bases[i-1] + uint64(le.Uint32(e[8:]))
		}
	}
	return s
}

// nameOf returns the name of a plain entry, without the underscore that Mach-O puts before each.
func (img *image) nameOf(e []byte) string {
	b := nameField(img.format, e)
	if b == nil {
		return fixedString(e[:8])
	}
	name := stringAt(img.strings, binary.LittleEndian.Uint32(b))
	if img.format == machoFile {
		name = strings.TrimPrefix(name, "_")
	}
	return name
}

// nameField is where an entry has the offset of its name, if it has it elsewhere.
func nameField(f format, e []byte) []byte {
	if f != peFile {
		return e[:4]
	}
	if binary.LittleEndian.Uint32(e) != 0 {
		return nil
	}
	return e[4:8]
}

// place is the number of the section that an entry's value lies in, 0 for none, in Mach-O and PE.
func place(f format, e []byte) uint16 {
	if f == peFile {
		return binary.LittleEndian.Uint16(e[12:])
	}
	if e[4]&stabMask != 0 {
		return 0
	}
	return uint16(e[5])
}

// filterNames makes the names' offsets differences from where the name of the entry before ends, as
// they follow each other in the string table.
func (img *image) filterNames(inverse bool) {
	img.loadNames()
	var next uint32
	img.entries(func(e []byte) {
		b := nameField(img.format, e)
		if b == nil {
			return
		}
		n := binary.LittleEndian.Uint32(b)
		if inverse {
			n += next
			binary.LittleEndian.PutUint32(b, n)
		} else {
			binary.LittleEndian.PutUint32(b, n-next)
		}
		next = n + uint32(len(stringAt(img.strings, n))) + 1
	})
}

// filterValues makes the values of ELF, which has sizes, differences from where the last symbol of
// the section ends.
func (img *image) filterValues(inverse bool) {
	le := binary.LittleEndian
	var next [1 << 8]uint64 // by section
	img.entries(func(e []byte) {
		at := &next[e[6]]
		v := le.Uint64(e[8:])
		if inverse {
			v += *at
			le.PutUint64(e[8:], v)
		} else {
			le.PutUint64(e[8:], v-*at)
		}
		end := v + le.Uint64(e[16:])
		if e[4]&15 == 2 { // a function
			end = (end + funcAlign - 1) &^ (funcAlign - 1)
		}
		*at = end
	})
}

// In the order of symbols, a word for each: the one below it in its section is that of the entry
// before, or there is none, or it has this label.
const (
	belowIsLast = 0
	belowIsNone = 1
)

// valued lists the entries of Mach-O and PE that have a value in a section, and names them.
type valued struct {
	table
	entries [][]byte
	format  format
}

func (img *image) valued() *valued {
	v := &valued{format: img.format}
	img.entries(func(e []byte) {
		if place(img.format, e) != 0 {
			v.entries = append(v.entries, e)
		}
	})
	v.table = newTable(28, len(v.entries))
	for i, e := range v.entries {
		v.assign(i, uint32(hashString(img.nameOf(e))>>36))
	}
	return v
}

func (v *valued) value(i int) uint64 {
	if v.format == peFile {
		return uint64(binary.LittleEndian.Uint32(v.entries[i][8:]))
	}
	return binary.LittleEndian.Uint64(v.entries[i][8:])
}

func (v *valued) setValue(i int, x uint64) {
	if v.format == peFile {
		binary.LittleEndian.PutUint32(v.entries[i][8:], uint32(x))
	} else {
		binary.LittleEndian.PutUint64(v.entries[i][8:], x)
	}
}

// last calls f with every entry and with the one before that has its section, or -1.
func (v *valued) last(f func(i, last int)) {
	var at [1 << 16]int32 // by section, and one more
	for i, e := range v.entries {
		n := place(v.format, e)
		f(i, int(at[n])-1)
		at[n] = int32(i + 1)
	}
}

// takeOrder makes the values of Mach-O and PE, which have no sizes, differences from the next lower
// one in the section, and returns which that is of. Mach-O sorts the table by name.
func (v *valued) takeOrder() ([]byte, error) {
	byValue := make([]int32, len(v.entries))
	for i := range byValue {
		byValue[i] = int32(i)
	}
	slices.SortStableFunc(byValue, func(a, b int32) int {
		return cmp.Or(cmp.Compare(place(v.format, v.entries[a]), place(v.format, v.entries[b])),
			cmp.Compare(v.value(int(a)), v.value(int(b))))
	})
	below := make([]int32, len(v.entries))
	for k, i := range byValue {
		below[i] = -1
		if k > 0 && place(v.format, v.entries[i]) == place(v.format, v.entries[byValue[k-1]]) {
			below[i] = byValue[k-1]
		}
	}
	for k := len(byValue) - 1; k >= 0; k-- {
		if i := byValue[k]; below[i] >= 0 {
			v.setValue(int(i), v.value(int(i))-v.value(int(below[i])))
		}
	}
	order := make([]byte, 0, 4*len(v.entries))
	nameless := false
	v.last(func(i, last int) {
		word := uint32(belowIsNone)
		switch b := int(below[i]); {
		case b < 0:
		case b == last:
			word = belowIsLast
		default:
			nameless = nameless || v.label[b] == noLabel
			word = labelBase | v.label[b]
		}
		order = binary.LittleEndian.AppendUint32(order, word)
	})
	if nameless {
		return nil, errUnknown
	}
	return order, nil
}

// putOrder is the inverse of takeOrder.
func (v *valued) putOrder(order []byte) error {
	if len(order) != 4*len(v.entries) {
		return errCorrupt("order of symbols")
	}
	below := make([]int32, len(v.entries)) // -1 where the value is plain
	ok := true
	v.last(func(i, last int) {
		b := last
		switch word := binary.LittleEndian.Uint32(order[4*i:]); {
		case word == belowIsNone:
			below[i] = -1
			return
		case word == belowIsLast:
		case word>>28 == labelBase>>28:
			b = v.index(word & (1<<28 - 1))
		default:
			b = -1
		}
		ok = ok && b >= 0
		below[i] = int32(b)
	})
	if !ok {
		return errCorrupt("order of symbols")
	}
	// Follow each chain down to a plain value, and up again. A chain longer than the table is a circle.
	var chain []int32
	for i := range below {
		chain = chain[:0]
		for j := int32(i); below[j] >= 0; j = below[j] {
			if chain = append(chain, j); len(chain) > len(below) {
				return errCorrupt("order of symbols")
			}
		}
		for k := len(chain) - 1; k >= 0; k-- {
			j := int(chain[k])
			v.setValue(j, v.value(j)+v.value(int(below[j])))
			below[j] = -1
		}
	}
	return nil
}
