// Package goprogtest makes programs for tests of the filter and of what stores its output.
package goprogtest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Tiny is a program of 2 KB for amd64 or arm64 that has something of everything the filter looks at.
// It cannot be run. Different releases differ as those of one program do.
func Tiny(machine elf.Machine, release byte) []byte {
	const text, rodata, pcln, data = 0x401000, 0x402000, 0x403000, 0x404000
	b := &builder{}
	b.out.Write(make([]byte, binary.Size(elf.Header64{})))
	b.add("", elf.SHT_NULL, 0, 0, nil)

	code := make([]byte, 128)
	if machine == elf.EM_X86_64 {
		copy(code, "\xe8\x3b\x00\x00\x00\x48\x8d\x05\x00\x10\x00\x00\xc3") // call 0x401040; lea 0x40200c
	} else {
		copy(code, "\x10\x00\x00\x94\x01\x00\x00\xb0\x21\x40\x00\x91") // bl 0x401040; adrp, add 0x402010
	}
	code[100] = release
	b.add(".text", elf.SHT_PROGBITS, elf.SHF_ALLOC|elf.SHF_EXECINSTR, text, code)

	types := make([]byte, 128) // a type, its name and the functions' data
	copy(types[20:], []byte{0, 8, 8, 22})
	types[40] = 64
	copy(types[64:], "\x00\x04*int")
	binary.LittleEndian.PutUint32(types[96+4:], 0)
	b.add(".rodata", elf.SHT_PROGBITS, elf.SHF_ALLOC, rodata, types)
	b.add(".gopclntab", elf.SHT_PROGBITS, elf.SHF_ALLOC, pcln, tinyPclntab())
	words := make([]byte, 32)
	words[31] = release
	binary.LittleEndian.PutUint64(words, text)
	binary.LittleEndian.PutUint64(words[8:], rodata)
	binary.LittleEndian.PutUint64(words[16:], rodata+80)
	b.add(".data", elf.SHT_PROGBITS, elf.SHF_ALLOC|elf.SHF_WRITE, data, words)
	var sym, str bytes.Buffer
	str.WriteByte(0)
	for _, s := range []struct {
		name       string
		addr, size uint64
		info       byte
	}{
		{"runtime.text", text, 0, 2}, {"main.a", text, 64, 2}, {"main.b", text + 64, 64, 2},
		{"runtime.types", rodata, 0, 1}, {"go:func.*", rodata + 96, 0, 1}, {"main.data", data, 32, 1},
	} {
		binary.Write(&sym, binary.LittleEndian, elf.Sym64{
			Name: uint32(str.Len()), Info: s.info, Shndx: 1, Value: s.addr, Size: s.size,
		})
		str.WriteString(s.name + "\x00")
	}
	b.add(".symtab", elf.SHT_SYMTAB, 0, 0, sym.Bytes())
	b.sections[len(b.sections)-1].Entsize = 24
	b.add(".strtab", elf.SHT_STRTAB, 0, 0, str.Bytes())
	return b.finish(machine)
}

// builder lays out a program.
type builder struct {
	out      bytes.Buffer
	sections []elf.Section64
	names    bytes.Buffer
}

func (b *builder) add(name string, typ elf.SectionType, flags elf.SectionFlag, addr uint64, data []byte) {
	for b.out.Len()%16 != 0 {
		b.out.WriteByte(0)
	}
	b.sections = append(b.sections, elf.Section64{
		Name: uint32(b.names.Len()), Type: uint32(typ), Flags: uint64(flags), Addr: addr,
		Off: uint64(b.out.Len()), Size: uint64(len(data)), Addralign: 1,
	})
	b.names.WriteString(name + "\x00")
	b.out.Write(data)
}

func (b *builder) finish(machine elf.Machine) []byte {
	names := append(bytes.Clone(b.names.Bytes()), ".shstrtab\x00"...)
	b.add(".shstrtab", elf.SHT_STRTAB, 0, 0, names)
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Shoff: uint64(b.out.Len()),
		Ehsize: 64, Shentsize: 64, Shnum: uint16(len(b.sections)), Shstrndx: uint16(len(b.sections) - 1),
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	for _, s := range b.sections {
		binary.Write(&b.out, binary.LittleEndian, s)
	}
	out := b.out.Bytes()
	var head bytes.Buffer
	binary.Write(&head, binary.LittleEndian, h)
	copy(out, head.Bytes())
	return out
}

// tinyPclntab is a table of two functions, the first with an inlining tree.
func tinyPclntab() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xfffffff1)
	b = append(b, 0, 0, 1, 8)
	const header = 8 + 8*8
	const names, tables, functab = header, header + 16, header + 32
	for _, v := range []uint64{2, 0, 0, names, tables, tables, tables, functab} {
		b = le.AppendUint64(b, v)
	}
	b = append(b, "main.a\x00main.b\x00\x00\x00"...)
	b = append(b, 0, 2, 64, 0, 4, 64, 0, 2, 1, 2, 63, 0, 0, 0, 0, 0)
	records := uint32(2*8 + 8)
	for i := range uint32(2) {
		b = le.AppendUint32(b, 64*i)
		b = le.AppendUint32(b, records+i*(44+5*4))
	}
	b = le.AppendUint64(b, 128)
	for i := range uint32(2) {
		for _, v := range []uint32{64 * i, 7 * i, 0, 0, 1, 4, 7, 1, 0, 10, 4 << 24, 1, ^uint32(0), 0, 16, 0} {
			b = le.AppendUint32(b, v)
		}
	}
	return b
}
