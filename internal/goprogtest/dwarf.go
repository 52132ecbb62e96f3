package goprogtest

import (
	"encoding/binary"
	"hash/adler32"
	"strings"
)

// DebugInfo is what .debug_info of TinyDWARF inflates to.
func DebugInfo() []byte { return []byte(strings.Repeat("DW_TAG_subprogram main.a DW_AT_low_pc ", 20)) }

// debugInfo is its stream as compress/zlib wrote it at BestSpeed. It is written down since a later Go may
// write another.
const debugInfo = "" +
	"\x78\x01\xec\xd2\xc1\x09\x80\x50\x08\x87\xf1\x55\x9c\xa0\x1d\x1e\x08\x2d\x20\x78\xfc\x63\x1d\x22\xc8\x14\x23\x5a" +
	"\xbf\x3d\x1e\xde\xbf\xd3\xc7\x8f\x15\x32\x56\x3c\xef\x96\x15\x47\x99\x93\xdb\x79\x2f\x46\xac\x18\x82\x2b\x3e\xe4" +
	"\x4e\x5d\xf5\x89\xb9\x4c\xfc\x01\x00\x00\xff\xff\x3d\x3f\x0d\xd4"

// compressed puts the header of a compressed section, an Elf64_Chdr, before a stream.
func compressed(stream string, size int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, 1) // ELFCOMPRESS_ZLIB
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	b = binary.LittleEndian.AppendUint64(b, 1)
	return append(b, stream...)
}

// storedStream is the stream of "abc" and the release, too short to be compressed.
func storedStream(release byte) []byte {
	b := []byte{'a', 'b', 'c', release}
	s := append([]byte("\x78\x01\x00\x04\x00\xfb\xff"), b...)
	s = append(s, "\x01\x00\x00\xff\xff"...)
	return binary.BigEndian.AppendUint32(s, adler32.Checksum(b))
}
