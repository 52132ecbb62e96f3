package goprog

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// codec turns one 32-bit value into another and back. encode may fail.
type codec interface {
	encode(v uint32) (uint32, bool)
	decode(v uint32) uint32
}

// coder applies a codec to a field.
type coder interface {
	value(b []byte, c codec)
}

func (e *encoder) value(b []byte, c codec) {
	v := binary.LittleEndian.Uint32(b)
	if out, ok := c.encode(v); ok && c.decode(out) == v {
		binary.LittleEndian.PutUint32(b, out)
		e.step(false)
		return
	}
	e.keep(b, c)
}

// keep leaves a field as it is.
func (e *encoder) keep(b []byte, c codec) {
	v := binary.LittleEndian.Uint32(b)
	e.step(c.decode(v) != v)
}

func (d *decoder) value(b []byte, c codec) {
	if !d.step() {
		binary.LittleEndian.PutUint32(b, c.decode(binary.LittleEndian.Uint32(b)))
	}
}

// inlineNames replaces the offsets of function names in the inlining trees.
func (e *encoder) inlineNames() {
	if e.w.tab == nil {
		return
	}
	fields := e.w.inlineTrees()
	names := e.w.tab.names
	e.w.goFunc(func(off int) {
		if b := e.w.img.b[off:]; fields[off] {
			e.value(b, names)
		} else {
			e.keep(b, names)
		}
	})
}

func (d *decoder) inlineNames() {
	if d.w.tab == nil {
		return
	}
	names := d.w.tab.names
	d.w.goFunc(func(off int) { d.value(d.w.img.b[off:], names) })
}

// goFunc calls f for every word of the functions' data.
func (w *walker) goFunc(f func(off int)) {
	if s := w.img.at(w.goFuncFrom); s != nil && s.inFile {
		for a := (w.goFuncFrom + 3) &^ 3; a+4 <= w.goFuncTo; a += 4 {
			f(s.off + int(a-s.addr))
		}
	}
}

// functions filters the function table, each record by what is known from those before it.
func (w *walker) functions(c coder, l *labels, inverse bool) {
	t := w.tab
	if t == nil {
		return
	}
	if !inverse {
		w.findfunc(false)
	}
	p := &functable{w: w, t: t, c: c, inverse: inverse, byName: make(map[uint64]uint32, len(t.names.label))}
	p.names.dict, p.tables.dict, p.data = t.names, t.tables, dataCodec{l, t.funcData}
	for i := len(t.names.label) - 1; i >= 0; i-- { // of equal names the first counts
		p.byName[hashBytes(t.name(i))] = t.names.starts[i]
	}
	end := uint32(0)
	for i := range t.nfunc {
		pair := t.b[t.functab+8*i:]
		sym := p.pair(pair)
		at := p.add(pair[4:], end)
		if rec, ok := t.record(at, end); ok {
			p.record(rec, sym)
			end = at + uint32(len(rec))
		}
	}
	if inverse {
		w.findfunc(true)
	}
}

// functable holds what the next record is predicted from.
type functable struct {
	w       *walker
	t       *pclntab
	c       coder
	inverse bool
	byName  map[uint64]uint32 // name offsets by hash
	fn      int               // index of the function expected next
	entry   uint32            // of this record
	cu      uint32            // of the record before
	names   nameCodec
	tables  tableCodec
	data    dataCodec
}

// add makes a field a difference from a prediction, or the other way round, and returns it plain.
func (p *functable) add(b []byte, pred uint32) (plain uint32) {
	v := binary.LittleEndian.Uint32(b)
	if p.inverse {
		binary.LittleEndian.PutUint32(b, v+pred)
		return v + pred
	}
	binary.LittleEndian.PutUint32(b, v-pred)
	return v
}

// pair filters the entry in a pair and returns the function there, if one is.
func (p *functable) pair(b []byte) *symbol {
	funcs := p.w.img.funcs
	pred := uint32(0)
	if p.fn < len(funcs) {
		pred = uint32(funcs[p.fn].addr - p.w.textBase)
	}
	p.entry = p.add(b, pred)
	var ok bool
	p.fn, ok = slices.BinarySearchFunc(funcs, p.w.textBase+uint64(p.entry),
		func(s symbol, a uint64) int { return cmp.Compare(s.addr, a) })
	if !ok {
		return nil
	}
	p.fn++
	return &funcs[p.fn-1]
}

func (p *functable) record(rec []byte, sym *symbol) {
	p.add(rec[recEntry:], p.entry)
	p.name(rec[recName:], sym)
	for at := recPcsp; at <= recPcln; at += 4 {
		p.table(rec[at:])
	}
	p.cu = p.add(rec[recCU:], p.cu)
	n := int(binary.LittleEndian.Uint32(rec[recNpcdata:]))
	data := rec[p.t.recSize:]
	for ; n > 0; n-- {
		p.table(data)
		data = data[4:]
	}
	for ; len(data) > 0; data = data[4:] {
		p.c.value(data, &p.data)
	}
}

func (p *functable) name(b []byte, sym *symbol) {
	p.names.known = false
	if sym != nil {
		p.names.pred, p.names.known = p.byName[hashString(sym.name)]
	}
	p.c.value(b, &p.names)
}

func (p *functable) table(b []byte) {
	plain := binary.LittleEndian.Uint32(b)
	p.c.value(b, &p.tables)
	if p.inverse {
		plain = binary.LittleEndian.Uint32(b)
	}
	if i := p.tables.find(plain); i >= 0 && plain != 0 {
		p.tables.fresh = max(p.tables.fresh, p.tables.starts[i+1])
	}
}

// nameCodec writes the offset of a function's name as 0 where it is the symbol's.
type nameCodec struct {
	*dict
	pred  uint32
	known bool
}

func (c *nameCodec) encode(v uint32) (uint32, bool) {
	if c.known && v == c.pred {
		return 0, true
	}
	return c.dict.encode(v)
}

func (c *nameCodec) decode(v uint32) uint32 {
	if c.known && v == 0 {
		return c.pred
	}
	return c.dict.decode(v)
}

// tableCodec writes the offset of a pc table as 1 where it is fresh, the next not used so far.
type tableCodec struct {
	*dict
	fresh uint32
}

func (c *tableCodec) encode(v uint32) (uint32, bool) {
	if v == c.fresh {
		return 1, true
	}
	return c.dict.encode(v)
}

func (c *tableCodec) decode(v uint32) uint32 {
	if v == 1 {
		return c.fresh
	}
	return c.dict.decode(v)
}

// dataCodec writes the offset of a function's data as the label of its address.
type dataCodec struct {
	l    *labels
	base uint64
}

func (c *dataCodec) encode(v uint32) (uint32, bool) {
	if v == ^uint32(0) {
		return v, true
	}
	label := c.l.of(c.base + uint64(v))
	return labelBase | label, label != noLabel
}

func (c *dataCodec) decode(v uint32) uint32 {
	mask := uint32(1)<<c.l.bits - 1
	if v&^mask == labelBase {
		if i := c.l.index(v & mask); i >= 0 {
			return uint32(c.l.targets[i] - c.base)
		}
	}
	return v
}

// findfunc makes runtime.findfunctab, which can be computed from the table, the difference from
// what it should be: for every 4096 bytes of text the index of the first function in them, and for every
// 256 bytes of those the index of the first function in them minus that.
func (w *walker) findfunc(inverse bool) {
	const bucket, sub, size = 4096, 256, 20
	t := w.tab
	b := w.img.data(w.findFrom)
	b = b[:min(uint64(len(b)), w.findTo-w.findFrom)]
	entry := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(t.b[t.functab+8*i:])) }
	fn := 0
	for pc := uint64(0); len(b) >= size; b = b[size:] {
		base := 0
		for k := range bucket / sub {
			for fn+1 < t.nfunc && entry(fn+1) <= pc {
				fn++
			}
			if k == 0 {
				base = fn
				addWord(b, uint32(base), inverse)
			}
			if inverse {
				b[4+k] += byte(fn - base)
			} else {
				b[4+k] -= byte(fn - base)
			}
			pc += sub
		}
	}
}

func addWord(b []byte, v uint32, inverse bool) {
	if !inverse {
		v = -v
	}
	binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)+v)
}
