package goprog

import (
	"bytes"
	"cmp"
	"debug/elf"
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

type format byte

const (
	elfFile format = iota + 1
	machoFile
	peFile
)

const (
	maxSections = 4096
	maxAddr     = 1 << 62
	maxSize     = 1 << 40 // of a section
)

// section is a part of the file that is mapped at an address. Its bounds were checked.
type section struct {
	name      string
	addr      uint64
	off, size int
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
	format   format
	machine  machine
	sections []section
	symtab   section
	strtab   section
	bases    []uint64 // PE: where the sections begin that symbols count from
	unwind   section  // PE: .pdata
	handlers uint32   // PE: what the third column of that counts from
	relocs   section  // PE: .reloc
	hashes   pageHashes
	streams  []stream          // of sections that are compressed
	strings  string            // of strtab
	named    map[string]uint64 // the landmarks
	symbols  []symbol          // by address, one for each
	funcs    []symbol          // those of them that are code
	low      uint64            // the addresses in use
	high     uint64
}

// parse reads the headers, which the filter never touches.
func parse(b []byte) (*image, error) {
	img := &image{b: b, low: ^uint64(0)}
	var err error
	switch {
	case len(b) >= 1<<30:
		return nil, errUnknown
	case bytes.HasPrefix(b, []byte(elf.ELFMAG)):
		err = img.parseELF()
	case bytes.HasPrefix(b, []byte(machoMagic)):
		err = img.parseMachO()
	case bytes.HasPrefix(b, []byte(peMagic)):
		err = img.parsePE()
	default:
		err = errUnknown
	}
	if err != nil {
		return nil, err
	}
	if img.symtab.size == 0 || img.strtab.size == 0 || img.section(".text") == nil ||
		img.high >= 1<<62 || overlap(img.sections) || img.symtab.size/entrySize[img.format] > img.maxSymbols() {
		return nil, errUnknown
	}
	return img, nil
}

// maxSymbols bounds the memory that symbols take, some 150 bytes each. Real programs have one for
// 600 bytes and more.
func (img *image) maxSymbols() int { return 1024 + len(img.b)/64 }

// addSection adds a part of the address space.
func (img *image) addSection(s section) error {
	if s.inFile && !img.holds(uint64(s.off), uint64(s.size)) || len(img.sections) >= maxSections {
		return errUnknown
	}
	img.sections = append(img.sections, s)
	img.low = min(img.low, s.addr)
	img.high = max(img.high, s.end())
	return nil
}

// holds reports whether the file has n bytes at off.
func (img *image) holds(off, n uint64) bool {
	return off <= uint64(len(img.b)) && n <= uint64(len(img.b))-off
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
	"runtime.text", "runtime.types", "type:*", "type.*", "typerel.*", "go:string.*", "go.string.*",
	"go:func.*", "go.func.*", "runtime.findfunctab",
	"runtime.pclntab", "runtime.epclntab", "runtime.typelink",
}

// loadSymbols reads the symbol table, which is plain by now.
func (img *image) loadSymbols() {
	img.loadNames()
	img.named = map[string]uint64{}
	all := make([]symbol, 0, img.symtab.size/entrySize[img.format])
	img.entries(func(e []byte) {
		sym := img.symbol(e)
		s := img.at(sym.addr)
		if s == nil {
			return
		}
		if _, seen := img.named[sym.name]; !seen && slices.Contains(landmarks, sym.name) {
			img.named[sym.name] = sym.addr
		}
		sym.text = s.exec
		all = append(all, sym)
	})
	// Of the symbols of one address that with a size counts, then the first.
	slices.SortStableFunc(all, func(a, b symbol) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(min(b.size, 1), min(a.size, 1)))
	})
	img.symbols = slices.CompactFunc(all, func(a, b symbol) bool { return a.addr == b.addr })
	if img.format != elfFile {
		img.sizeSymbols()
	}
	for _, s := range img.symbols {
		if s.text && s.size > 0 {
			img.funcs = append(img.funcs, s)
		}
	}
	if img.format == peFile {
		img.splitSections()
	}
}

// loadNames reads the string table.
func (img *image) loadNames() {
	if img.strings == "" {
		img.strings = string(img.bytes(&img.strtab))
	}
}

// sizeSymbols lets every function end where the next symbol begins, in formats that do not say.
func (img *image) sizeSymbols() {
	for i := range img.symbols {
		s := &img.symbols[i]
		end := img.at(s.addr).end()
		if i+1 < len(img.symbols) {
			end = min(end, img.symbols[i+1].addr)
		}
		s.size = end - s.addr
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
