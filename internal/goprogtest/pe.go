package goprogtest

import (
	"bytes"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
)

// TinyPE is Tiny as a PE program with .pdata and .reloc.
func TinyPE(machine elf.Machine, release byte) []byte {
	const base = 0x400000
	c := tiny(machine, release)
	le := binary.LittleEndian
	words := func(v ...uint32) []byte {
		var b []byte
		for _, x := range v {
			b = le.AppendUint32(b, x)
		}
		return b
	}
	pclntab := tinyPclntab()
	tables := append(append(bytes.Clone(c.types), pclntab...), words(0, 0, 8)...) // and the list of types
	parts := []struct {
		name  string
		addr  uint32
		flags uint32
		data  []byte
	}{
		{".text", text, 0x60000020, c.code}, {".rdata", rodata, 0x40000040, tables},
		{".data", data, 0xc0000040, c.words},
		{".pdata", 0x405000, 0x40000040, words(0x1000, 0x1040, 0x6000, 0x1040, 0x1080, 0x6000)},
		{".xdata", 0x406000, 0x40000040, words(1, 0)},
		// One block of an odd number of places and one of an even.
		{".reloc", 0x407000, 0x42000040, words(0x2000, 12, 0xa050, 0x4000, 12, 0xa008a000)},
	}
	const header, optional = 64 + 4, 112
	at := header + 20 + optional + 40*len(parts)
	var head, body bytes.Buffer
	dos := make([]byte, 64)
	copy(dos, "MZ")
	dos[60] = 64
	head.Write(dos)
	head.WriteString("PE\x00\x00")
	symtab := at
	for _, p := range parts {
		symtab += len(p.data)
	}
	epclntab := uint64(rodata + len(c.types) + len(pclntab))
	symbols := append(c.symbols, symbol{"runtime.pclntab", rodata + uint64(len(c.types)), 0, 2},
		symbol{"runtime.epclntab", epclntab, 0, 2}, symbol{"runtime.typelink", epclntab, 0, 2})
	h := pe.FileHeader{
		Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: uint16(len(parts)), PointerToSymbolTable: uint32(symtab),
		NumberOfSymbols: uint32(len(symbols)), SizeOfOptionalHeader: optional,
	}
	if machine == elf.EM_AARCH64 {
		h.Machine = pe.IMAGE_FILE_MACHINE_ARM64
	}
	binary.Write(&head, le, h)
	opt := make([]byte, optional)
	le.PutUint16(opt, 0x20b)
	le.PutUint64(opt[24:], base)
	head.Write(opt)
	for _, p := range parts {
		s := pe.SectionHeader32{
			VirtualAddress: p.addr - base, VirtualSize: uint32(len(p.data)), SizeOfRawData: uint32(len(p.data)),
			PointerToRawData: uint32(at + body.Len()), Characteristics: p.flags,
		}
		copy(s.Name[:], p.name)
		binary.Write(&head, le, s)
		body.Write(p.data)
	}
	var strs bytes.Buffer
	strs.Write(make([]byte, 4))
	starts := []uint64{text, rodata, data}
	for _, s := range symbols {
		e := pe.COFFSymbol{Value: uint32(s.addr - starts[s.section-1]), SectionNumber: int16(s.section), StorageClass: 2}
		if len(s.name) <= 8 {
			copy(e.Name[:], s.name)
		} else {
			le.PutUint32(e.Name[4:], uint32(strs.Len()))
			strs.WriteString(s.name + "\x00")
		}
		binary.Write(&body, le, e)
	}
	names := strs.Bytes()
	le.PutUint32(names, uint32(len(names)))
	return append(append(head.Bytes(), body.Bytes()...), names...)
}
