package goprog

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

func (img *image) parseELF() error {
	f, err := elf.NewFile(bytes.NewReader(img.b))
	if err != nil || f.Class != elf.ELFCLASS64 || f.ByteOrder != binary.LittleEndian || len(f.Sections) > maxSections {
		return errUnknown
	}
	img.format = elfFile
	switch f.Machine {
	case elf.EM_X86_64:
		img.machine = amd64
	case elf.EM_AARCH64:
		img.machine = arm64
	default:
		return errUnknown
	}
	for _, s := range f.Sections {
		if err := img.addELFSection(s); err != nil {
			return err
		}
	}
	return nil
}

func (img *image) addELFSection(s *elf.Section) error {
	inFile := s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL
	if inFile && !img.holds(s.Offset, s.FileSize) || s.Size > maxSize || s.Addr > maxAddr {
		return errUnknown
	}
	sec := section{
		name: s.Name, addr: s.Addr, off: int(s.Offset), size: int(s.Size), inFile: inFile,
		exec: s.Flags&elf.SHF_EXECINSTR != 0,
	}
	if inFile {
		sec.size = int(s.FileSize)
	}
	switch {
	case s.Type == elf.SHT_SYMTAB:
		img.symtab = sec
	case s.Name == ".strtab" && inFile:
		img.strtab = sec
	case s.Flags&elf.SHF_ALLOC != 0 && s.Addr != 0 && sec.size > 0 && s.Flags&elf.SHF_TLS == 0:
		return img.addSection(sec)
	case inFile && s.Flags&elf.SHF_ALLOC == 0:
		img.addStream(s.Offset, s.FileSize, s.Flags&elf.SHF_COMPRESSED != 0)
	}
	return nil
}
