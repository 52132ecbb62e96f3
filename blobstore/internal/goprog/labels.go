package goprog

import (
	"encoding/binary"
	"slices"
	"strings"
)

const (
	// maxProbes bounds the work that many targets of one hash make.
	maxProbes = 256

	labelBase = 0x40000000 // set in every label that is written to 32 bits or more
	noLabel   = ^uint32(0)
)

// table gives numbers to things that are counted from 0.
type table struct {
	bits  uint
	label []uint32 // noLabel where there was no room
	slots []slot   // hash table from label to thing
}

// slot has the label beside the thing: to look that up elsewhere was a fifth of
// the time of Inverse, since nothing that large stays in a processor's cache.
type slot struct {
	label uint32
	thing int32 // 0 in a free slot, else 1 more
}

// newTable returns a table with room for n things.
func newTable(bits uint, n int) table {
	size := 1024
	for size < 2*n {
		size *= 2
	}
	t := table{bits, make([]uint32, n), make([]slot, size)}
	for i := range t.label {
		t.label[i] = noLabel
	}
	return t
}

// slot returns the slot that has label v or, where thing is 0 in it, would have it.
func (t *table) slot(v uint32) *slot {
	mask := len(t.slots) - 1
	for at := int(v*0x9e3779b1>>4) & mask; ; at = (at + 1) & mask {
		if s := &t.slots[at]; s.thing == 0 || s.label == v {
			return s
		}
	}
}

// index returns which thing has label v, or -1.
func (t *table) index(v uint32) int { return int(t.slot(v).thing) - 1 }

// assign gives thing i the first free label from v on, or none where there is no room.
func (t *table) assign(i int, v uint32) {
	mask := uint32(1)<<t.bits - 1
	v &= mask
	for range maxProbes {
		if s := t.slot(v); s.thing == 0 {
			t.label[i] = v
			*s = slot{v, int32(i + 1)}
			return
		}
		v = (v + 1) & mask
	}
}

// labels gives every target, an address that something in the program refers to, a number that
// depends on what the target is and not on where it lies, so that a neighbour release has the same.
type labels struct {
	table
	targets []uint64 // ascending
	// hashed holds, for Forward, the ranges of the file whose bytes a label depends on.
	hashed []span
}

// span is a range of offsets in the file.
type span struct{ from, to int }

// newLabels names the symbols and the targets in extra, which is ascending. What it reads of img
// must be in its filtered state. Types are named last and after their names: typeName returns the
// filtered word that says which name the type at an address has.
func newLabels(img *image, extra []uint64, typeName func(l *labels, t uint64) uint32) *labels {
	bits := uint(28)
	if img.machine == arm64 {
		bits = 24 // a branch has room for no more
	}
	targets := merge(img.symbols, extra)
	l := &labels{table: newTable(bits, len(targets)), targets: targets}
	n := namer{img: img, l: l, symbol: -1}
	n.typesFrom, n.typesTo = img.types()
	type pending struct {
		i    int
		list bool
	}
	var types []pending
	for i, t := range l.targets {
		switch {
		case img.isType(t, n.typesFrom, n.typesTo):
			n.object = t
			n.reads(t+typeTflag, sizeTypeInfo)
			types = append(types, pending{i, false})
		case n.list(t):
			types = append(types, pending{i, true})
		default:
			l.assign(i, n.name(i, t))
		}
	}
	var object uint64
	var label uint32
	for _, p := range types {
		t := l.targets[p.i]
		if p.list {
			l.assign(p.i, label+uint32(t-object))
			continue
		}
		// Of the flags only that counts which says that a name is meant without its star: others
		// come and go with releases.
		data := img.data(t)
		b := [6]byte{data[typeTflag] & tflagExtraStar, data[typeKind] & kindMask}
		binary.LittleEndian.PutUint32(b[2:], typeName(l, t))
		object, label = t, uint32(hashBytes(b[:])>>32)
		l.assign(p.i, label)
	}
	return l
}

func merge(symbols []symbol, extra []uint64) []uint64 {
	all := make([]uint64, 0, len(symbols)+len(extra))
	for _, s := range symbols {
		all = append(all, s.addr)
	}
	all = append(all, extra...)
	slices.Sort(all)
	return slices.Compact(all)
}

// of returns the label of an address, or noLabel.
func (l *labels) of(addr uint64) uint32 {
	if i, ok := slices.BinarySearch(l.targets, addr); ok {
		return l.label[i]
	}
	return noLabel
}

// namer walks the targets upwards.
type namer struct {
	img                *image
	l                  *labels
	symbol             int // the last symbol at or before the target
	hash               uint64
	typesFrom, typesTo uint64
	object             uint64 // the last type
}

// name returns the hash of target i, of which the label's bits are taken.
func (n *namer) name(i int, t uint64) uint32 {
	symbols := n.img.symbols
	for n.symbol+1 < len(symbols) && symbols[n.symbol+1].addr <= t {
		n.symbol++
		n.hash = hashString(symbols[n.symbol].name)
	}
	if n.symbol < 0 {
		return uint32(t - n.img.low)
	}
	s := &symbols[n.symbol]
	off := t - s.addr
	limit := uint64(0)
	switch {
	case t >= n.typesFrom && t < n.typesTo:
		limit = 64
	case strings.HasPrefix(s.name, "go:func.") || strings.HasPrefix(s.name, "go.func."):
		limit = 1024
	case isContainer(s.name):
		limit = 256
	}
	if limit == 0 || off == 0 {
		return uint32(n.hash>>32) + uint32(off)
	}
	if i+1 < len(n.l.targets) {
		limit = min(limit, n.l.targets[i+1]-t)
	}
	return uint32(hashBytes(n.reads(t, limit)) >> 32)
}

// reads returns up to limit bytes at an address, which must be the same in both directions.
func (n *namer) reads(addr, limit uint64) []byte {
	b := n.img.data(addr)
	b = b[:min(limit, uint64(len(b)))]
	if len(b) > 0 {
		sec := n.img.at(addr)
		from := sec.off + int(addr-sec.addr)
		n.l.hashed = append(n.l.hashed, span{from, from + len(b)})
	}
	return b
}

// list reports whether t is the list that follows a struct or interface type, with or without an
// uncommon type between.
func (n *namer) list(t uint64) bool {
	d := t - n.object
	if n.object == 0 || d != sizeStructType && d != sizeStructType+sizeUncommon {
		return false
	}
	kind := n.img.data(n.object)[typeKind] & kindMask
	return kind == kindStruct || kind == kindInterface
}

func hashBytes(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func hashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// maxTargets bounds the memory that targets take, some 20 bytes each. Real programs have one for
// 200 bytes.
func (img *image) maxTargets() int { return 1024 + len(img.b)/16 }

// appendPool writes the targets that are not symbols, by the symbol they follow: how many symbols
// were passed since the last one with targets, how many targets it has, and for each its distance
// from the one before.
func appendPool(dst []byte, img *image, extra []uint64) []byte {
	symbol := 0
	for len(extra) > 0 {
		i, ok := img.symbolAt(extra[0])
		if !ok {
			extra = extra[1:]
			continue
		}
		end := ^uint64(0)
		if i+1 < len(img.symbols) {
			end = img.symbols[i+1].addr
		}
		n, _ := slices.BinarySearch(extra, end)
		dst = binary.AppendUvarint(dst, uint64(i-symbol))
		dst = binary.AppendUvarint(dst, uint64(n))
		last := img.symbols[i].addr
		for _, t := range extra[:n] {
			dst = binary.AppendUvarint(dst, t-last)
			last = t
		}
		symbol, extra = i, extra[n:]
	}
	return dst
}

// readPool is the inverse of appendPool.
func readPool(r *reader, img *image) ([]uint64, error) {
	var extra []uint64
	symbol := uint64(0)
	for len(r.b) > 0 {
		skip, n := r.uvarint(), r.uvarint()
		if r.err != nil || skip >= uint64(len(img.symbols)) || n > uint64(len(r.b)) {
			return nil, errCorrupt("targets")
		}
		symbol += skip
		if symbol >= uint64(len(img.symbols)) {
			return nil, errCorrupt("targets")
		}
		t := img.symbols[symbol].addr
		for range n {
			t += r.uvarint()
			if r.err != nil || t > img.high || len(extra) > img.maxTargets() {
				return nil, errCorrupt("targets")
			}
			extra = append(extra, t)
		}
	}
	return extra, nil
}
