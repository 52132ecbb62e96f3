package goprogtest

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"debug/macho"
	"encoding/binary"
	"slices"
	"strings"
)

// TinyMachO is Tiny as a Mach-O program with a signature.
func TinyMachO(machine elf.Machine, release byte) []byte {
	c := tiny(machine, release)
	le := binary.LittleEndian
	parts := []struct {
		name  string
		addr  uint64
		flags uint32
		data  []byte
	}{
		{"__text", text, 0x80000400, c.code}, {"__rodata", rodata, 0, c.types},
		{"__gopclntab", pcln, 0, tinyPclntab()}, {"__data", data, 0, c.words},
	}
	cpu := macho.CpuAmd64
	if machine == elf.EM_AARCH64 {
		cpu = macho.CpuArm64
	}
	commands := 72 + 80*len(parts) + 24 + 16
	var head, body bytes.Buffer
	binary.Write(&head, le, []uint32{macho.Magic64, uint32(cpu), 0, 2, 3, uint32(commands), 0, 0})
	at := func() int { return 32 + commands + body.Len() }
	segment := macho.Segment64{Cmd: macho.LoadCmdSegment64, Len: uint32(72 + 80*len(parts)), Nsect: uint32(len(parts))}
	copy(segment.Name[:], "__TEXT")
	binary.Write(&head, le, segment)
	for _, p := range parts {
		s := macho.Section64{Addr: p.addr, Size: uint64(len(p.data)), Offset: uint32(at()), Flags: p.flags}
		copy(s.Name[:], p.name)
		copy(s.Seg[:], "__TEXT")
		binary.Write(&head, le, s)
		body.Write(p.data)
	}
	// The linker sorts by name.
	slices.SortFunc(c.symbols, func(a, b symbol) int { return strings.Compare(a.name, b.name) })
	symbols := at()
	strs := "\x00"
	for _, s := range c.symbols {
		section := s.section
		if section == 3 {
			section = 4 // behind __gopclntab
		}
		binary.Write(&body, le, macho.Nlist64{Name: uint32(len(strs)), Type: 14, Sect: uint8(section), Value: s.addr})
		strs += "_" + s.name + "\x00"
	}
	binary.Write(&body, le, macho.Nlist64{Name: uint32(len(strs)), Type: 1})
	strs += "_exit\x00"
	binary.Write(&head, le, []uint32{uint32(macho.LoadCmdSymtab), 24, uint32(symbols), uint32(len(c.symbols) + 1), uint32(at()), uint32(len(strs))})
	body.WriteString(strs)
	const signature = 20 + 44 + sha256.Size
	binary.Write(&head, le, []uint32{0x1d, 16, uint32(at()), signature})
	out := append(head.Bytes(), body.Bytes()...)
	return sign(out)
}

// sign appends the signature of a program of one page.
func sign(b []byte) []byte {
	sum := sha256.Sum256(b)
	be := binary.BigEndian
	for _, v := range []uint32{
		0xfade0cc0, 20 + 44 + sha256.Size, 1, 0, 20, // the signature: one part, at 20
		0xfade0c02, 44 + sha256.Size, 0x20400, 0, 44, 44, 0, 1, uint32(len(b)), // hashes at 44, one
		sha256.Size<<24 | 2<<16 | 12, 0,
	} {
		b = be.AppendUint32(b, v)
	}
	return append(b, sum[:]...)
}
