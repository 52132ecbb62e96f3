package goprog

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// errUnknown is why a file is left alone: it is not a program that the filter knows.
var errUnknown = errors.New("not a Go program that the filter knows")

type machine byte

const (
	amd64 machine = iota + 1
	arm64
)

// section is a part of the file that is mapped at an address. Its bounds were checked.
type section struct {
	name      string
	addr      uint64
	off, size int
	mapped    bool // whether it takes part in the address space
	inFile    bool // whether the file holds its bytes
	exec      bool
}

func (s *section) end() uint64 { return s.addr + uint64(s.size) }

// symbol is a name for an address.
type symbol struct {
	addr, size uint64
	name       string
	text       bool
}

// image is a program as the walkers see it. b is plain in Forward, and becomes plain in Inverse.
type image struct {
	b        []byte
	machine  machine
	sections []section
	symtab   section // entries of 24 bytes
	strtab   section
	strings  string            // of strtab
	named    map[string]uint64 // the landmarks
	symbols  []symbol          // by address, one for each
	funcs    []symbol          // those of them that are code
	low      uint64            // the addresses in use
	high     uint64
}

// parse reads the headers, which the filter never touches.
func parse(b []byte) (*image, error) {
	if len(b) >= 1<<30 || !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return nil, errUnknown
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil || f.Class != elf.ELFCLASS64 || f.ByteOrder != binary.LittleEndian || len(f.Sections) > 4096 {
		return nil, errUnknown
	}
	img := &image{b: b, low: ^uint64(0)}
	switch f.Machine {
	case elf.EM_X86_64:
		img.machine = amd64
	case elf.EM_AARCH64:
		img.machine = arm64
	default:
		return nil, errUnknown
	}
	for _, s := range f.Sections {
		if err := img.addSection(s); err != nil {
			return nil, err
		}
	}
	if img.symtab.size == 0 || img.strtab.size == 0 || img.section(".text") == nil ||
		img.high >= 1<<62 || overlap(img.sections) {
		return nil, errUnknown
	}
	return img, nil
}

func (img *image) addSection(s *elf.Section) error {
	inFile := s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL
	if inFile && (s.Offset > uint64(len(img.b)) || s.FileSize > uint64(len(img.b))-s.Offset) ||
		s.Size > 1<<40 || s.Addr > 1<<62 {
		return errUnknown
	}
	sec := section{
		name: s.Name, addr: s.Addr, off: int(s.Offset), size: int(s.Size), inFile: inFile,
		mapped: s.Flags&elf.SHF_ALLOC != 0 && s.Addr != 0, exec: s.Flags&elf.SHF_EXECINSTR != 0,
	}
	if inFile {
		sec.size = int(s.FileSize)
	}
	switch {
	case s.Type == elf.SHT_SYMTAB && s.FileSize <= uint64(len(img.b)):
		img.symtab = sec
	case s.Name == ".strtab" && inFile:
		img.strtab = sec
	case sec.mapped && sec.size > 0 && s.Flags&elf.SHF_TLS == 0:
		img.sections = append(img.sections, sec)
		img.low = min(img.low, sec.addr)
		img.high = max(img.high, sec.end())
	}
	return nil
}

// overlap sorts the sections by address and reports whether any two share file bytes or addresses,
// which the filter could undo in the wrong order.
func overlap(s []section) bool {
	slices.SortStableFunc(s, func(a, b section) int { return cmp.Compare(a.addr, b.addr) })
	end := 0
	for i := range s {
		if i > 0 && s[i-1].end() > s[i].addr {
			return true
		}
		if s[i].inFile {
			if s[i].off < end {
				return true
			}
			end = s[i].off + s[i].size
		}
	}
	return false
}

func (img *image) section(name string) *section {
	for i := range img.sections {
		if img.sections[i].name == name {
			return &img.sections[i]
		}
	}
	return nil
}

func (img *image) bytes(s *section) []byte { return img.b[s.off : s.off+s.size] }

// at returns the section that holds an address.
func (img *image) at(addr uint64) *section {
	i, ok := slices.BinarySearchFunc(img.sections, addr, func(s section, a uint64) int { return cmp.Compare(s.addr, a) })
	if !ok {
		i--
	}
	if i < 0 || addr >= img.sections[i].end() {
		return nil
	}
	return &img.sections[i]
}

// data returns the file's bytes from an address to the end of its section.
func (img *image) data(addr uint64) []byte {
	s := img.at(addr)
	if s == nil || !s.inFile {
		return nil
	}
	return img.bytes(s)[addr-s.addr:]
}

// landmarks are the symbols that tell where something is. Go 1.20 renamed those with a colon.
var landmarks = []string{
	"runtime.text", "runtime.types", "type:*", "type.*", "go:string.*", "go.string.*",
	"go:func.*", "go.func.*", "runtime.findfunctab",
}

// loadSymbols reads the symbol table, which is plain by now.
func (img *image) loadSymbols() {
	tab := img.bytes(&img.symtab)
	img.strings = string(img.bytes(&img.strtab))
	img.named = map[string]uint64{}
	all := make([]symbol, 0, len(tab)/symSize)
	for ; len(tab) >= symSize; tab = tab[symSize:] {
		addr, name := binary.LittleEndian.Uint64(tab[8:]), stringAt(img.strings, binary.LittleEndian.Uint32(tab))
		s := img.at(addr)
		if s == nil {
			continue
		}
		if _, seen := img.named[name]; !seen && slices.Contains(landmarks, name) {
			img.named[name] = addr
		}
		all = append(all, symbol{
			addr: addr, size: min(binary.LittleEndian.Uint64(tab[16:]), 1<<40), name: name, text: s.exec,
		})
	}
	// Of the symbols of one address that with a size counts, then the first.
	slices.SortStableFunc(all, func(a, b symbol) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(min(b.size, 1), min(a.size, 1)))
	})
	img.symbols = slices.CompactFunc(all, func(a, b symbol) bool { return a.addr == b.addr })
	for _, s := range img.symbols {
		if s.text && s.size > 0 {
			img.funcs = append(img.funcs, s)
		}
	}
}

// lookup returns the address of the first of the landmarks that there is.
func (img *image) lookup(names ...string) (addr uint64, ok bool) {
	for _, name := range names {
		if addr, ok = img.named[name]; ok {
			return addr, true
		}
	}
	return 0, false
}

// region is the range from a symbol to the next one behind it, empty where there is none.
func (img *image) region(names ...string) (from, to uint64) {
	addr, ok := img.lookup(names...)
	s := img.at(addr)
	if !ok || s == nil || !s.inFile {
		return 0, 0
	}
	to = s.end()
	if i, found := img.symbolAt(addr); found && i+1 < len(img.symbols) {
		to = min(to, img.symbols[i+1].addr)
	}
	return addr, to
}

// dataRegion is a region of which text and words keep off, so that it can be restored beside them.
func (img *image) dataRegion(names ...string) (from, to uint64) {
	from, to = img.region(names...)
	if s := img.at(from); s == nil || s.exec || s.name == ".typelink" {
		return 0, 0
	}
	return from, to
}

// symbolAt returns the index of the last symbol at or before an address.
func (img *image) symbolAt(addr uint64) (int, bool) {
	i, ok := slices.BinarySearchFunc(img.symbols, addr, func(s symbol, a uint64) int { return cmp.Compare(s.addr, a) })
	if !ok {
		i--
	}
	return i, i >= 0
}

// maxName is the length of the longest name that is looked at: names may overlap, so a small file
// can have many long ones.
const maxName = 4096

// stringAt returns the string at an offset, empty if it has no end or is too long.
func stringAt(all string, off uint32) string {
	if uint64(off) >= uint64(len(all)) {
		return ""
	}
	s := all[off:]
	return s[:max(0, strings.IndexByte(s[:min(len(s), maxName)], 0))]
}

// isContainer reports whether a symbol stands for the many nameless things behind it.
func isContainer(name string) bool { return strings.HasSuffix(name, ".*") }
