package goprog

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"strings"
)

// What the filter must know of Mach-O, see mach-o/loader.h and, of signatures, kern/cs_blobs.h.
const (
	machoMagic  = "\xcf\xfa\xed\xfe" // 64 bits, little-endian
	machoHeader = 32
	machoAMD64  = 0x01000007
	machoARM64  = 0x0100000c

	loadSegment   = 0x19
	loadSymtab    = 0x2
	loadSignature = 0x1d

	machoSegment  = 72 // the length of the load command
	machoSection  = 80
	sectZeroFill  = 0x1 // the lowest byte of a section's flags
	sectCode      = 0x80000000
	stabMask      = 0xe0 // set in entries of the symbol table that are for debuggers
	superBlob     = 0xfade0cc0
	codeDirectory = 0xfade0c02
	pageBits      = 12 // of the pages that cmd/link signs
)

func (img *image) parseMachO() error {
	b, le := img.b, binary.LittleEndian
	if len(b) < machoHeader {
		return errUnknown
	}
	img.format = machoFile
	switch le.Uint32(b[4:]) {
	case machoAMD64:
		img.machine = amd64
	case machoARM64:
		img.machine = arm64
	default:
		return errUnknown
	}
	commands := b[machoHeader:]
	for range le.Uint32(b[16:]) {
		if len(commands) < 8 {
			return errUnknown
		}
		n := le.Uint32(commands[4:])
		if n < 8 || uint64(n) > uint64(len(commands)) {
			return errUnknown
		}
		if err := img.loadCommand(le.Uint32(commands), commands[:n]); err != nil {
			return err
		}
		commands = commands[n:]
	}
	return nil
}

func (img *image) loadCommand(kind uint32, c []byte) error {
	le := binary.LittleEndian
	switch {
	case kind == loadSegment && len(c) >= machoSegment:
		for s := c[machoSegment:]; len(s) >= machoSection; s = s[machoSection:] {
			if err := img.addMachOSection(s[:machoSection]); err != nil {
				return err
			}
		}
	case kind == loadSymtab && len(c) >= 24:
		off, n := uint64(le.Uint32(c[8:])), uint64(le.Uint32(c[12:]))*uint64(entrySize[machoFile])
		strOff, strLen := uint64(le.Uint32(c[16:])), uint64(le.Uint32(c[20:]))
		if !img.holds(off, n) || !img.holds(strOff, strLen) {
			return errUnknown
		}
		img.symtab = section{off: int(off), size: int(n)}
		img.strtab = section{off: int(strOff), size: int(strLen)}
	case kind == loadSignature && len(c) >= 16:
		if off, n := uint64(le.Uint32(c[8:])), uint64(le.Uint32(c[12:])); img.holds(off, n) {
			img.hashes = findHashes(img.b[:off+n], int(off))
		}
	}
	return nil
}

// addMachOSection adds a section, under the name that it has in ELF.
func (img *image) addMachOSection(s []byte) error {
	le := binary.LittleEndian
	name, segment := fixedString(s[:16]), fixedString(s[16:32])
	addr, size, flags := le.Uint64(s[32:]), le.Uint64(s[40:]), le.Uint32(s[64:])
	if addr > maxAddr || size > maxSize {
		return errUnknown
	}
	if segment == "__DWARF" || addr == 0 || size == 0 {
		img.addStream(uint64(le.Uint32(s[48:])), size, false)
		return nil
	}
	return img.addSection(section{
		name: "." + strings.TrimPrefix(name, "__"), addr: addr, off: int(le.Uint32(s[48:])), size: int(size),
		inFile: flags&0xff != sectZeroFill, exec: flags&sectCode != 0,
	})
}

// fixedString is the string in a field that is filled up with NULs.
func fixedString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// pageHashes is where the signature of a program has the SHA-256 of each of its pages. They would be
// all that differs in pages which the filter makes alike, and no delta makes them smaller.
type pageHashes struct {
	off, n int
	limit  int // what is signed are the bytes before
}

// findHashes finds them in a signature that reaches from off to the end of b, as cmd/link makes it.
func findHashes(b []byte, off int) pageHashes {
	be := binary.BigEndian
	sig := b[off:]
	if len(sig) < 20 || be.Uint32(sig) != superBlob {
		return pageHashes{}
	}
	at := be.Uint32(sig[16:])
	if uint64(at)+40 > uint64(len(sig)) || be.Uint32(sig[at:]) != codeDirectory {
		return pageHashes{}
	}
	dir := sig[at:]
	hashes, n, limit := uint64(be.Uint32(dir[16:])), uint64(be.Uint32(dir[28:])), uint64(be.Uint32(dir[32:]))
	const page = 1 << pageBits
	if dir[36] != sha256.Size || dir[39] != pageBits || limit > uint64(off) || n != (limit+page-1)/page ||
		hashes+n*sha256.Size > uint64(len(dir)) {
		return pageHashes{}
	}
	return pageHashes{off: off + int(at) + int(hashes), n: int(n), limit: int(limit)}
}

// filter makes the hashes what they differ by from what they should be, or the other way round. The
// rest of the file must be plain.
func (h pageHashes) filter(b []byte) {
	signed := b[:h.limit]
	for i := range h.n {
		sum := sha256.Sum256(signed[i<<pageBits : min((i+1)<<pageBits, h.limit)])
		slot := b[h.off+i*sha256.Size:][:sha256.Size]
		subtle.XORBytes(slot, slot, sum[:])
	}
}
