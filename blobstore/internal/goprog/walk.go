package goprog

import (
	"encoding/binary"
	"slices"
)

// fieldKind is how a field holds its target.
type fieldKind byte

const (
	_            fieldKind = iota
	fieldTypeOff           // uint32 from the start of the types
	fieldTextOff           // uint32 from the start of the text
	fieldAddress           // uint64
	fieldRel32             // int32 from the end of an instruction
	fieldBranch            // arm64: 26 bits of words from the instruction
	fieldPage              // arm64: ADRP and the ADD or load behind it
	fieldPlain             // in Forward: to be left alone
)

// field is a place where a reference may be. Which places these are depends only on bytes that the
// filter leaves alone.
type field struct {
	kind fieldKind
	off  int      // in the file
	pc   uint64   // what a relative field counts from
	fn   *symbol  // the function it lies in
	sec  *section // the section it lies in
}

// visitor is told every field and reports whether it took it for a reference.
type visitor func(f field) bool

// walker knows where fields are.
type walker struct {
	img                    *image
	typesFrom, typesTo     uint64
	textBase               uint64
	stringsFrom, stringsTo uint64
	goFuncFrom, goFuncTo   uint64
	findFrom, findTo       uint64
	tab                    *pclntab
}

func newWalker(img *image) *walker {
	w := &walker{img: img}
	w.typesFrom, w.typesTo = img.types()
	w.stringsFrom, w.stringsTo = img.region("go:string.*", "go.string.*")
	w.goFuncFrom, w.goFuncTo = img.dataRegion("go:func.*", "go.func.*")
	w.findFrom, w.findTo = img.dataRegion("runtime.findfunctab")
	var ok bool
	if w.textBase, ok = img.lookup("runtime.text"); !ok {
		w.textBase = img.section(".text").addr
	}
	return w
}

// loadFunctions reads the function table, of which it needs nothing that is filtered.
func (w *walker) loadFunctions() {
	if s := w.img.section(".gopclntab"); s != nil && s.inFile && !s.exec {
		w.tab = newPclntab(w.img, s)
	}
}

// text visits the fields of the functions.
func (w *walker) text(visit visitor) {
	for i := range w.img.funcs {
		fn := &w.img.funcs[i]
		s := w.img.at(fn.addr)
		if s == nil || !s.inFile || !s.exec {
			continue
		}
		end := min(fn.addr+fn.size, s.end())
		if i+1 < len(w.img.funcs) {
			end = min(end, w.img.funcs[i+1].addr)
		}
		code := w.img.bytes(s)[fn.addr-s.addr : end-s.addr]
		off := s.off + int(fn.addr-s.addr)
		if w.img.machine == arm64 {
			walkARM64(code, field{off: off, pc: fn.addr, fn: fn, sec: s}, visit)
		} else {
			walkAMD64(code, field{kind: fieldRel32, off: off, pc: fn.addr, fn: fn, sec: s}, visit)
		}
	}
}

func walkAMD64(code []byte, f field, visit visitor) {
	off, pc := f.off, f.pc
	for i := 0; i < len(code); {
		n, at := instruction(code[i:])
		if at > 0 {
			f.off, f.pc = off+i+at, pc+uint64(i+n)
			visit(f)
		}
		i += n
	}
}

// words visits the addresses and offsets in the data.
func (w *walker) words(visit visitor) {
	for i := range w.img.sections {
		s := &w.img.sections[i]
		if !s.inFile || s.exec || s.name == ".gopclntab" {
			continue
		}
		if s.name == ".typelink" {
			for off := 0; off+4 <= s.size; off += 4 {
				visit(field{kind: fieldTypeOff, off: s.off + off, sec: s})
			}
			continue
		}
		w.sectionWords(s, visit)
	}
}

func (w *walker) sectionWords(s *section, visit visitor) {
	first := int(-s.addr & 7)
	for off := first; off+8 <= s.size; off += 8 {
		addr := s.addr + uint64(off)
		switch {
		case addr >= w.stringsFrom && addr+8 <= w.stringsTo,
			addr+8 > w.goFuncFrom && addr < w.goFuncTo,
			addr+8 > w.findFrom && addr < w.findTo:
			continue
		}
		if visit(field{kind: fieldAddress, off: s.off + off, sec: s}) {
			continue
		}
		if addr >= w.typesFrom && addr+8 <= w.typesTo {
			visit(field{kind: fieldTypeOff, off: s.off + off, sec: s})
			visit(field{kind: fieldTypeOff, off: s.off + off + 4, sec: s})
		}
	}
}

// collector is the visitor that gathers the targets in Forward.
type collector struct {
	w     *walker
	found []uint64
}

func (c *collector) visit(f field) bool {
	if f.kind == fieldTypeOff && f.sec.name != ".typelink" {
		return false // only typeFields knows
	}
	t, ok := c.w.target(f)
	if ok {
		c.found = append(c.found, t)
	}
	return ok
}

// target returns the plain target of a field, and whether it may be one.
func (w *walker) target(f field) (uint64, bool) {
	b := w.img.b[f.off:]
	var t uint64
	switch f.kind {
	case fieldAddress:
		t = binary.LittleEndian.Uint64(b)
	case fieldTypeOff:
		t = w.typesFrom + uint64(binary.LittleEndian.Uint32(b))
	case fieldTextOff:
		t = w.textBase + uint64(binary.LittleEndian.Uint32(b))
	case fieldRel32:
		t = f.pc + uint64(int64(int32(binary.LittleEndian.Uint32(b))))
	case fieldBranch, fieldPage:
		t = armTarget(b, f)
	}
	if f.fn != nil && t > f.fn.addr && t < f.fn.addr+f.fn.size {
		return 0, false // stays as it is when its function moves
	}
	return t, t >= w.img.low && t <= w.img.high && w.img.at(t) != nil
}

// setTarget is the inverse of target.
func (w *walker) setTarget(f field, t uint64) {
	b := w.img.b[f.off:]
	switch f.kind {
	case fieldAddress:
		binary.LittleEndian.PutUint64(b, t)
	case fieldTypeOff:
		binary.LittleEndian.PutUint32(b, uint32(t-w.typesFrom))
	case fieldTextOff:
		binary.LittleEndian.PutUint32(b, uint32(t-w.textBase))
	case fieldRel32:
		binary.LittleEndian.PutUint32(b, uint32(t-f.pc))
	case fieldBranch, fieldPage:
		setARMTarget(b, f, t)
	}
}

// label returns the label in a filtered field and, for a typeOff, the kind it says that it is.
func (w *walker) label(f field, bits uint) (v uint32, kind fieldKind, ok bool) {
	b := w.img.b[f.off:]
	mask := uint32(1)<<bits - 1
	switch f.kind {
	case fieldBranch, fieldPage:
		v, ok = armLabel(b, f)
		return v, f.kind, ok
	case fieldAddress:
		if binary.LittleEndian.Uint32(b[4:]) != 0 {
			return 0, 0, false
		}
		fallthrough
	case fieldRel32:
		v = binary.LittleEndian.Uint32(b)
		return v & mask, f.kind, v&^mask == labelBase
	}
	v = binary.LittleEndian.Uint32(b)
	switch v &^ mask {
	case labelBase | 1<<28:
		return v & mask, fieldTypeOff, true
	case labelBase | 2<<28:
		return v & mask, fieldTextOff, f.sec.name != ".typelink"
	}
	return 0, 0, false
}

// setLabel is the inverse of label.
func (w *walker) setLabel(f field, v uint32) {
	b := w.img.b[f.off:]
	switch f.kind {
	case fieldBranch, fieldPage:
		setARMLabel(b, f, v)
	case fieldAddress:
		binary.LittleEndian.PutUint64(b, uint64(labelBase|v))
	case fieldRel32:
		binary.LittleEndian.PutUint32(b, labelBase|v)
	case fieldTypeOff:
		binary.LittleEndian.PutUint32(b, labelBase|1<<28|v)
	case fieldTextOff:
		binary.LittleEndian.PutUint32(b, labelBase|2<<28|v)
	}
}

// overlaps reports whether n bytes at off touch any of the spans, which ascend.
func overlaps(spans []span, off, n int) bool {
	i, _ := slices.BinarySearchFunc(spans, off, func(s span, off int) int {
		if s.to <= off {
			return -1
		}
		return 1
	})
	return i < len(spans) && spans[i].from < off+n
}
