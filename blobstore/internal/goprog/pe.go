package goprog

import (
	"bytes"
	"encoding/binary"
)

// What the filter must know of PE, see Microsoft's "PE Format".
const (
	peMagic     = "MZ"
	peAMD64     = 0x8664
	peARM64     = 0xaa64
	peHeader    = 24 // with its signature
	pePlus      = 0x20b
	peBaseEnd   = 32 // of the optional header's part up to the image base
	peSection   = 40
	peExec      = 0x20000000
	peDiscarded = 0x02000000

	sizeUnwind = 12 // an entry of .pdata: begin, end and handler of a function

	relocPage  = 4096 // what a block of .reloc is for
	relocDir64 = 10   // an address of 64 bits
)

func (img *image) parsePE() error {
	b, le := img.b, binary.LittleEndian
	if len(b) < 64 {
		return errUnknown
	}
	at := uint64(le.Uint32(b[60:]))
	if !img.holds(at, peHeader+peBaseEnd) || string(b[at:at+4]) != "PE\x00\x00" {
		return errUnknown
	}
	h := b[at:]
	img.format = peFile
	switch le.Uint16(h[4:]) {
	case peAMD64:
		img.machine = amd64
	case peARM64:
		img.machine = arm64
	default:
		return errUnknown
	}
	base := le.Uint64(h[peHeader+24:])
	if le.Uint16(h[peHeader:]) != pePlus || base > maxAddr {
		return errUnknown
	}
	sections := at + peHeader + uint64(le.Uint16(h[20:]))
	n := uint64(le.Uint16(h[6:]))
	if n > maxSections || !img.holds(sections, n*peSection) {
		return errUnknown
	}
	for i := range n {
		if err := img.addPESection(base, b[sections+i*peSection:][:peSection]); err != nil {
			return err
		}
	}
	return img.addCOFF(uint64(le.Uint32(h[12:])), uint64(le.Uint32(h[16:])))
}

func (img *image) addPESection(base uint64, s []byte) error {
	le := binary.LittleEndian
	size, rva, raw, off := le.Uint32(s[8:]), le.Uint32(s[12:]), le.Uint32(s[16:]), le.Uint32(s[20:])
	flags := le.Uint32(s[36:])
	sec := section{
		name: fixedString(s[:8]), addr: base + uint64(rva), off: int(off), size: int(min(size, raw)), inFile: true,
		exec: flags&peExec != 0,
	}
	img.bases = append(img.bases, sec.addr)
	switch {
	case sec.name == ".pdata" || sec.name == ".reloc":
		if !img.holds(uint64(off), uint64(sec.size)) {
			return errUnknown
		}
		if sec.name == ".pdata" {
			img.unwind = sec
		} else {
			img.relocs = sec
		}
		return nil
	case flags&peDiscarded != 0:
		img.addStream(uint64(off), uint64(sec.size), false)
		return nil
	case sec.name == ".xdata":
		img.handlers = rva
	}
	if sec.size > 0 {
		if err := img.addSection(sec); err != nil {
			return err
		}
	}
	if size > raw { // the rest is zero
		return img.addSection(section{
			name: ".bss", addr: sec.addr + uint64(raw), size: int(size - raw), exec: sec.exec,
		})
	}
	return nil
}

// addCOFF finds the symbol table and behind it that of the names, which begins with its length.
func (img *image) addCOFF(off, n uint64) error {
	size := n * uint64(entrySize[peFile])
	str := off + size
	if !img.holds(off, size) || !img.holds(str, 4) {
		return errUnknown
	}
	strLen := uint64(binary.LittleEndian.Uint32(img.b[str:]))
	if !img.holds(str, strLen) {
		return errUnknown
	}
	img.symtab = section{off: int(off), size: int(size)}
	img.strtab = section{off: int(str), size: int(strLen)}
	return nil
}

// splitSections makes sections of what lies in .rdata and is one in ELF.
func (img *image) splitSections() {
	from, _ := img.lookup("runtime.pclntab")
	to, ok := img.lookup("runtime.epclntab")
	if s := img.at(from); !ok && s != nil {
		to = s.end() // where the symbol lies behind all sections
	}
	img.split(".gopclntab", from, to)
	from, to = img.region("runtime.typelink")
	img.split(".typelink", from, to)
}

// split makes a section of a range of another.
func (img *image) split(name string, from, to uint64) {
	s := img.at(from)
	if s == nil || !s.inFile || s.exec || to <= from || to > s.end() {
		return
	}
	old := *s
	part := func(name string, from, to uint64) section {
		p := old
		p.name, p.addr, p.off, p.size = name, from, old.off+int(from-old.addr), int(to-from)
		return p
	}
	var all []section
	for _, o := range img.sections {
		if o.addr != old.addr {
			all = append(all, o)
			continue
		}
		if from > old.addr {
			all = append(all, part(old.name, old.addr, from))
		}
		all = append(all, part(name, from, to))
		if to < old.end() {
			all = append(all, part(old.name, to, old.end()))
		}
	}
	img.sections = all
}

// filterUnwind makes each of a function's begin, end and handler a difference: from the end of the
// function before, from its begin, and from the start of .xdata.
func (img *image) filterUnwind(inverse bool) {
	le := binary.LittleEndian
	end := uint32(0)
	for b := img.bytes(&img.unwind); len(b) >= sizeUnwind; b = b[sizeUnwind:] {
		if !inverse {
			begin, last := le.Uint32(b), end
			end = le.Uint32(b[4:])
			le.PutUint32(b, begin-last)
			le.PutUint32(b[4:], end-begin)
			le.PutUint32(b[8:], le.Uint32(b[8:])-img.handlers)
			continue
		}
		begin := le.Uint32(b) + end
		end = le.Uint32(b[4:]) + begin
		le.PutUint32(b, begin)
		le.PutUint32(b[4:], end)
		le.PutUint32(b[8:], le.Uint32(b[8:])+img.handlers)
	}
}

// takeRelocs returns the distances between the places that .reloc lists, and zeroes it. It leaves it
// alone and returns none if putRelocs would make something else of them.
func (img *image) takeRelocs() []byte {
	le := binary.LittleEndian
	b := img.bytes(&img.relocs)
	list := []byte{0}
	last := uint32(0)
	for rest := b; len(rest) >= 8; {
		page, n := le.Uint32(rest), le.Uint32(rest[4:])
		if n < 8 || uint64(n) > uint64(len(rest)) {
			break
		}
		for entries := rest[8:n]; len(entries) >= 2; entries = entries[2:] {
			if e := le.Uint16(entries); e>>12 == relocDir64 {
				at := page + uint32(e&(relocPage-1))
				list = binary.AppendVarint(list, int64(int32(at-last)))
				last = at
			}
		}
		rest = rest[n:]
	}
	again := make([]byte, len(b))
	for _, list[0] = range []byte{2, 4} {
		clear(again)
		if putRelocs(again, list) && bytes.Equal(again, b) {
			clear(b)
			return list
		}
	}
	return nil
}

// putRelocs writes what takeRelocs took, a block for each run of places in one page. The first byte
// is what the length of blocks is a multiple of: 4 in newer releases (golang.org/issue/68260), 2 in
// others.
func putRelocs(b, list []byte) bool {
	if len(list) == 0 {
		return true
	}
	le := binary.LittleEndian
	align := int(list[0])
	if align != 2 && align != 4 {
		return false
	}
	var at uint32
	n, block := 0, -1
	for list = list[1:]; len(list) > 0; {
		d, k := binary.Varint(list)
		if k <= 0 {
			return false
		}
		list = list[k:]
		at += uint32(d)
		page := at &^ (relocPage - 1)
		if block < 0 || le.Uint32(b[block:]) != page {
			n = (n + align - 1) &^ (align - 1)
			if len(b)-n < 8 {
				return false
			}
			block = n
			le.PutUint32(b[block:], page)
			n += 8
		}
		if len(b)-n < 2 {
			return false
		}
		le.PutUint16(b[n:], relocDir64<<12|uint16(at-page))
		n += 2
		le.PutUint32(b[block+4:], uint32((n+align-1)&^(align-1)-block))
	}
	return true
}
