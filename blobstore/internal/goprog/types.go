package goprog

import "encoding/binary"

// What the filter must know of internal/abi.Type, the same since Go 1.17 but for flags.
const (
	typeTflag      = 20
	typeAlign      = 21
	typeKind       = 23
	typeStr        = 40 // nameOff
	typePtrToThis  = 44 // typeOff
	sizeType       = 48
	sizeTypeInfo   = 4 // tflag, two alignments and the kind: what no reference overlaps
	kindMask       = 31
	tflagUncommon  = 1
	tflagExtraStar = 2
	maxTflag       = 63

	kindArray     = 17
	kindChan      = 18
	kindFunc      = 19
	kindInterface = 20
	kindMap       = 21
	kindPointer   = 22
	kindSlice     = 23
	kindStruct    = 25
	lastKind      = 26

	sizeStructType = 80 // and that of an interface type
	sizeUncommon   = 16
	maxMethods     = 1 << 12
)

// types returns the region of type descriptors and names. Where the linker keeps apart what has to be
// relocated, all but the first word of it has a symbol of its own.
func (img *image) types() (from, to uint64) {
	from, to = img.region("runtime.types", "type:*", "type.*")
	for _, name := range []string{"type:*", "typerel.*"} {
		if f, t := img.region(name); f > from && f <= from+8 && img.at(f) == img.at(from) {
			to = max(to, t)
		}
	}
	return from, to
}

// isType reports whether there seems to be a type at an address. It looks at bytes only that the
// filter leaves alone, so both directions find the same.
func (img *image) isType(t, from, to uint64) bool {
	if t < from || t+sizeType > to || t%8 != 0 {
		return false
	}
	b := img.data(t)
	if len(b) < sizeType {
		return false
	}
	kind, align := b[typeKind]&kindMask, b[typeAlign]
	return kind != 0 && kind <= lastKind && b[typeTflag] <= maxTflag &&
		align != 0 && align <= 8 && align&(align-1) == 0 && b[typeAlign+1] == align
}

// typeFields is, for every 4-byte word of the types region, the kind of offset in it, or 0.
type typeFields struct {
	img      *image
	from, to uint64
	text     uint64
	kind     []fieldKind
	found    func(target uint64)
}

// scan finds the offsets in the types at the given targets, and reports what they refer to. It
// runs in Forward only, so it may guess: a wrong guess costs density.
func (f *typeFields) scan(targets []uint64) {
	for _, t := range targets {
		if t >= f.from && t < f.to && t%4 == 0 {
			f.one(t)
		}
	}
}

func (f *typeFields) one(t uint64) {
	if !f.img.isType(t, f.from, f.to) {
		return
	}
	b := f.img.data(t)
	kind := b[typeKind] & kindMask
	f.mark(t+typeStr, fieldTypeOff)
	f.mark(t+typePtrToThis, fieldTypeOff)
	if kind == kindInterface {
		f.interfaceMethods(b)
	}
	if b[typeTflag]&tflagUncommon == 0 {
		return
	}
	at := t + uncommonAt(kind)
	u := f.img.data(at)
	if len(u) < sizeUncommon {
		return
	}
	f.mark(at, fieldTypeOff)
	count := uint64(binary.LittleEndian.Uint16(u[4:]))
	methods := at + uint64(binary.LittleEndian.Uint32(u[8:]))
	for m := methods; m < methods+16*min(count, maxMethods); m += 16 {
		f.mark(m, fieldTypeOff)
		f.mark(m+4, fieldTypeOff)
		f.mark(m+8, fieldTextOff)
		f.mark(m+12, fieldTextOff)
	}
}

func (f *typeFields) interfaceMethods(b []byte) {
	if len(b) < sizeStructType {
		return
	}
	at := binary.LittleEndian.Uint64(b[56:])
	n := min(binary.LittleEndian.Uint64(b[64:]), maxMethods)
	if at < f.from || at >= f.to {
		return
	}
	for m := at; m < at+8*n; m += 4 {
		f.mark(m, fieldTypeOff)
	}
}

func uncommonAt(kind byte) uint64 {
	switch kind {
	case kindPointer, kindSlice, kindFunc:
		return 56
	case kindArray:
		return 72
	case kindChan:
		return 64
	case kindMap:
		return 88
	case kindStruct, kindInterface:
		return sizeStructType
	}
	return sizeType
}

// at returns the kind of the word at an address.
func (f *typeFields) at(addr uint64) fieldKind {
	if addr < f.from || addr >= f.to {
		return 0
	}
	return f.kind[(addr-f.from)/4]
}

// mark notes the field at an address if what it holds is an offset of that kind.
func (f *typeFields) mark(at uint64, kind fieldKind) {
	if at < f.from || at+4 > f.to || at%4 != 0 {
		return
	}
	b := f.img.data(at)
	if len(b) < 4 {
		return
	}
	v := binary.LittleEndian.Uint32(b)
	target := f.from + uint64(v)
	if kind == fieldTextOff {
		target = f.text + uint64(v)
	}
	if v == 0 || v >= labelBase || f.img.at(target) == nil || f.kind[(at-f.from)/4] != 0 {
		return
	}
	f.kind[(at-f.from)/4] = kind
	f.found(target)
}
