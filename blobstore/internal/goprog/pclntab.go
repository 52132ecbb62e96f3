package goprog

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Function table layout, see runtime/symtab.go. All offsets in it are 32 bits wide.
const (
	magic118 = 0xfffffff0
	magic120 = 0xfffffff1

	pclnHeader = 8 + 8*8

	recEntry      = 0
	recName       = 4
	recPcsp       = 16
	recPcln       = 24
	recNpcdata    = 28
	recCU         = 32
	recNfuncdata  = 43 // 4 less before Go 1.20
	sizeRec       = 44
	fnInlTree     = 3
	sizeInlineRec = 16
)

// pclntab is the table of functions, files and lines.
type pclntab struct {
	b        []byte
	off      int // of b in the file
	nfunc    int
	namesOff int // offset in b of the names
	functab  int // offset in b of pairs (entry, record), with one entry more at the end
	recSize  int // of a record's fixed part
	names    *dict
	tables   *dict
	funcData uint64 // what funcdata offsets count from
}

// newPclntab returns nil where the table is of an unknown kind.
func newPclntab(img *image, s *section) *pclntab {
	b := img.bytes(s)
	if len(b) < pclnHeader || b[7] != 8 {
		return nil
	}
	t := &pclntab{b: b, off: s.off, recSize: sizeRec}
	le := binary.LittleEndian
	switch le.Uint32(b) {
	case magic118:
		t.recSize -= 4
	case magic120:
	default:
		return nil
	}
	word := func(i int) uint64 { return le.Uint64(b[8+8*i:]) }
	nfunc, names, cus, tables, functab := word(0), word(3), word(4), word(6), word(7)
	n := uint64(len(b))
	if names > cus || cus > tables || tables > functab || functab > n || nfunc > n/8 || functab+8*nfunc+4 > n {
		return nil
	}
	var ok bool
	if t.funcData, ok = img.lookup("go:func.*", "go.func.*"); !ok {
		return nil
	}
	t.nfunc, t.functab, t.namesOff = int(nfunc), int(functab), int(names)
	limit := 1024 + len(img.b)/64
	t.names = newDict(b[names:cus], limit, nameEnd)
	t.tables = newDict(b[tables:functab], limit, tableEnd)
	return t
}

// dict maps the offsets of the entries of a table to labels made of what they hold, and back.
type dict struct {
	table
	starts []uint32 // of the entries, and the end of the last
}

// newDict splits b into entries, each as long as end says. It stops at limit entries, which bounds
// its memory; real programs have one for 150 bytes.
func newDict(b []byte, limit int, end func(b []byte) int) *dict {
	starts := []uint32{0}
	for at := 0; at < len(b) && len(starts) <= limit; {
		at += end(b[at:])
		starts = append(starts, uint32(at))
	}
	d := &dict{newTable(28, len(starts)-1), starts}
	for i := range d.label {
		d.assign(i, uint32(hashBytes(b[starts[i]:starts[i+1]])>>36))
	}
	return d
}

// find returns the entry at an offset, or -1.
func (d *dict) find(off uint32) int {
	if i, ok := slices.BinarySearch(d.starts[:len(d.label)], off); ok {
		return i
	}
	return -1
}

func (d *dict) encode(v uint32) (uint32, bool) {
	i := d.find(v)
	if i < 0 || d.label[i] == noLabel {
		return 0, false
	}
	return labelBase | d.label[i], true
}

func (d *dict) decode(v uint32) uint32 {
	if v>>28 == labelBase>>28 {
		if i := d.index(v & (1<<28 - 1)); i >= 0 {
			return d.starts[i]
		}
	}
	return v
}

// nameEnd is the length of a string with its NUL.
func nameEnd(b []byte) int {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return i + 1
	}
	return len(b)
}

// tableEnd is the length of a table of (value, pc) differences, which ends with a value of 0 that is
// not the first.
func tableEnd(b []byte) int {
	for i := 0; i < len(b); {
		if b[i] == 0 && i > 0 {
			return i + 1
		}
		for range 2 {
			for i < len(b) && b[i] >= 0x80 {
				i++
			}
			i++
		}
	}
	return len(b)
}

// name returns the i-th name.
func (t *pclntab) name(i int) []byte {
	b := t.b[t.namesOff:][t.names.starts[i]:t.names.starts[i+1]]
	return bytes.TrimSuffix(b, []byte{0})
}

// record returns the record at an offset from functab. It is none if it lies beyond the table or
// before end, where the last one ended.
func (t *pclntab) record(at, end uint32) (rec []byte, ok bool) {
	if at < end || uint64(at)+uint64(t.recSize) > uint64(len(t.b)-t.functab) {
		return nil, false
	}
	rec = t.b[t.functab+int(at):]
	n := uint64(t.recSize) + 4*uint64(binary.LittleEndian.Uint32(rec[recNpcdata:])) + 4*uint64(rec[t.recSize-1])
	if n > uint64(len(rec)) {
		return nil, false
	}
	return rec[:n], true
}

// funcdata calls f with the funcdata of every function of a plain table.
func (t *pclntab) funcdata(f func(index int, addr uint64)) {
	end := uint32(0)
	for i := range t.nfunc {
		at := binary.LittleEndian.Uint32(t.b[t.functab+8*i+4:])
		rec, ok := t.record(at, end)
		if !ok {
			continue
		}
		end = at + uint32(len(rec))
		data := rec[t.recSize+4*int(binary.LittleEndian.Uint32(rec[recNpcdata:])):]
		for k := 0; 4*k < len(data); k++ {
			if v := binary.LittleEndian.Uint32(data[4*k:]); v != ^uint32(0) {
				f(k, t.funcData+uint64(v))
			}
		}
	}
}

// inlineTrees returns the file offsets of the name offsets in the inlining trees. It runs in
// Forward only, so it may guess.
func (w *walker) inlineTrees() map[int]bool {
	fields := map[int]bool{}
	trees := map[uint64]bool{}
	starts := map[uint64]bool{}
	le := binary.LittleEndian
	w.tab.funcdata(func(i int, addr uint64) {
		starts[addr] = true
		if i == fnInlTree {
			trees[addr] = true
		}
	})
	for t := range trees {
		if t < w.goFuncFrom || t >= w.goFuncTo || t%4 != 0 {
			continue
		}
		s := w.img.at(t)
		b := w.img.data(t)[:w.goFuncTo-t]
		for i := 0; i+sizeInlineRec <= len(b) && (i == 0 || !starts[t+uint64(i)]); i += sizeInlineRec {
			if w.tab.names.find(le.Uint32(b[i+4:])) < 0 || b[i+1]|b[i+2]|b[i+3] != 0 {
				break
			}
			fields[s.off+int(t-s.addr)+i+4] = true
		}
	}
	return fields
}
