// Package goprogtest makes programs for tests of the filter and of what stores its output.
package goprogtest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Where the parts of a tiny program lie.
const (
	text   = 0x401000
	rodata = 0x402000
	pcln   = 0x403000
	data   = 0x404000
)

// symbol is a name for an address.
type symbol struct {
	name       string
	addr, size uint64
	section    uint16 // text, rodata and data in the order of their addresses, from 1
}

// contents are the parts of a tiny program.
type contents struct {
	code, types, words []byte
	symbols            []symbol
}

// Tiny is a program of 2 KB for amd64 or arm64 that has something of everything the filter looks at.
// It cannot be run. Different releases differ as those of one program do.
func Tiny(machine elf.Machine, release byte) []byte { return tinyELF(machine, release, false) }

// TinyDWARF is Tiny with two compressed sections, of which only .debug_info is larger inflated.
func TinyDWARF(machine elf.Machine, release byte) []byte { return tinyELF(machine, release, true) }

func tinyELF(machine elf.Machine, release byte, dwarf bool) []byte {
	c := tiny(machine, release)
	b := &builder{}
	b.out.Write(make([]byte, binary.Size(elf.Header64{})))
	b.add("", elf.SHT_NULL, 0, 0, nil)
	b.add(".text", elf.SHT_PROGBITS, elf.SHF_ALLOC|elf.SHF_EXECINSTR, text, c.code)
	b.add(".rodata", elf.SHT_PROGBITS, elf.SHF_ALLOC, rodata, c.types)
	b.add(".gopclntab", elf.SHT_PROGBITS, elf.SHF_ALLOC, pcln, tinyPclntab())
	b.add(".data", elf.SHT_PROGBITS, elf.SHF_ALLOC|elf.SHF_WRITE, data, c.words)
	var sym, str bytes.Buffer
	str.WriteByte(0)
	for _, s := range c.symbols {
		info := byte(1)
		if s.section == 1 {
			info = 2
		}
		binary.Write(&sym, binary.LittleEndian, elf.Sym64{
			Name: uint32(str.Len()), Info: info, Shndx: 1, Value: s.addr, Size: s.size,
		})
		str.WriteString(s.name + "\x00")
	}
	b.add(".symtab", elf.SHT_SYMTAB, 0, 0, sym.Bytes())
	b.sections[len(b.sections)-1].Entsize = 24
	b.add(".strtab", elf.SHT_STRTAB, 0, 0, str.Bytes())
	if dwarf {
		b.add(".debug_info", elf.SHT_PROGBITS, elf.SHF_COMPRESSED, 0, compressed(debugInfo, len(DebugInfo())))
		b.add(".zdebug_line", elf.SHT_PROGBITS, 0, 0, append([]byte("ZLIB\x00\x00\x00\x00\x00\x00\x00\x04"), storedStream(release)...))
	}
	return b.finish(machine)
}

func tiny(machine elf.Machine, release byte) contents {
	c := contents{code: make([]byte, 128), types: make([]byte, 128), words: make([]byte, 32)}
	if machine == elf.EM_X86_64 {
		copy(c.code, "\xe8\x3b\x00\x00\x00\x48\x8d\x05\x00\x10\x00\x00\xc3") // call 0x401040; lea 0x40200c
	} else {
		copy(c.code, "\x10\x00\x00\x94\x01\x00\x00\xb0\x21\x40\x00\x91") // bl 0x401040; adrp, add 0x402010
	}
	c.code[100] = release
	// A type, its name and the functions' data.
	copy(c.types[20:], []byte{0, 8, 8, 22})
	c.types[40] = 64
	copy(c.types[64:], "\x00\x04*int")
	binary.LittleEndian.PutUint32(c.types[96+4:], 0)
	c.words[31] = release
	binary.LittleEndian.PutUint64(c.words, text)
	binary.LittleEndian.PutUint64(c.words[8:], rodata)
	binary.LittleEndian.PutUint64(c.words[16:], rodata+80)
	c.symbols = []symbol{
		{"runtime.text", text, 0, 1}, {"main.a", text, 64, 1}, {"main.b", text + 64, 64, 1},
		{"runtime.types", rodata, 0, 2}, {"go:func.*", rodata + 96, 0, 2}, {"main.data", data, 32, 3},
	}
	return c
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
