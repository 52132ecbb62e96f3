package blobstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	packMagic   = "gofspack"
	packFormat  = 1
	packHeader  = 16
	endMagic    = "gofsend."
	packTrailer = 24

	recordMagic = "GOFR"
	recordFixed = 32
	blobEntry   = 36
	baseEntry   = 32
	innerEntry  = 4
)

// encoding says how the stored bytes of a record become its plain bytes.
type encoding uint8

const (
	encRaw  encoding = 0
	encZstd encoding = 1
	encDict encoding = 2 // zstd with the bases, one after the other, as raw dictionary

	encProgram      encoding = 3 // a Go program, filtered (package goprog), then zstd
	encProgramDelta encoding = 4 // the same as a delta to the filtered forms of its bases
	encDelta        encoding = 5 // delta to the bases, one after the other (package delta)
)

// filtered says whether the stored bytes become a filtered program first.
func (e encoding) filtered() bool { return e == encProgram || e == encProgramDelta }

// based says whether records of this encoding have bases; all or none do.
func (e encoding) based() bool { return e == encDict || e == encProgramDelta || e == encDelta }

func (e encoding) String() string {
	switch e {
	case encRaw:
		return "raw"
	case encZstd:
		return "zstd"
	case encDict:
		return "zstd with dictionary"
	case encProgram:
		return "program, zstd"
	case encProgramDelta:
		return "program, delta"
	case encDelta:
		return "delta"
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is a record's header and blob table.
type header struct {
	enc    encoding
	kind   Kind
	depth  uint16 // 0 without bases, else more than that of any base
	effort uint8  // 0 as imports write, else that of the compaction
	plain  uint32
	stored uint32
	crc    uint32 // of the stored bytes
	inner  uint32 // length of the filtered program, for the encodings that have one
	blobs  []member
	bases  []ID
}

// member is a blob of a record.
type member struct {
	id     ID
	length uint32
}

// size is the number of bytes of the encoded header, tables included.
func (h *header) size() int {
	return recordFixed + int(tableSize(h.enc, uint32(len(h.blobs)), uint32(len(h.bases))))
}

func tableSize(enc encoding, nblobs, nbases uint32) int64 {
	n := int64(nblobs)*blobEntry + int64(nbases)*baseEntry
	if enc.filtered() {
		n += innerEntry
	}
	return n
}

// whole says whether the first blob of the table is all plain bytes, and only
// the others are parts of them. Bases of programs are named by it.
func (h *header) whole() bool { return h.enc.filtered() && len(h.blobs) > 1 }

// maxInner is how long the filtered form of a program may be, which has what was compressed inflated. Those
// of Go 1.19 and 1.20 are up to 2.1 times as long as the program.
func maxInner(plain uint32) uint32 { return min(MaxRecord, 2*plain+plain/2+4096) }

// append encodes h behind b.
func (h *header) append(b []byte) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, byte(h.enc), byte(h.kind))
	b = append(b, byte(h.depth), h.effort)
	b = binary.LittleEndian.AppendUint32(b, h.plain)
	b = binary.LittleEndian.AppendUint32(b, h.stored)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.blobs)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.bases)))
	b = binary.LittleEndian.AppendUint32(b, h.crc)
	b = binary.LittleEndian.AppendUint32(b, 0)
	for _, m := range h.blobs {
		b = append(b, m.id[:]...)
		b = binary.LittleEndian.AppendUint32(b, m.length)
	}
	for _, id := range h.bases {
		b = append(b, id[:]...)
	}
	if h.enc.filtered() {
		b = binary.LittleEndian.AppendUint32(b, h.inner)
	}
	binary.LittleEndian.PutUint32(b[start+28:], headerCRC(b[start:start+28], b[start+recordFixed:]))
	return b
}

func headerCRC(fixed, tables []byte) uint32 {
	return crc32.Update(crc32.Checksum(fixed, castagnoli), castagnoli, tables)
}

// fixedHeader is the part of a header that says how long its tables are.
type fixedHeader struct {
	header
	nblobs uint32
	nbases uint32
	crc32  uint32 // of header and tables
	raw    [28]byte
}

// parseFixed checks the first recordFixed bytes of a record.
func parseFixed(b []byte) (f fixedHeader, err error) {
	if string(b[:4]) != recordMagic {
		return f, fmt.Errorf("no record: %w", ErrDamaged)
	}
	copy(f.raw[:], b)
	f.enc, f.kind, f.depth, f.effort = encoding(b[4]), Kind(b[5]), uint16(b[6]), b[7]
	f.plain = binary.LittleEndian.Uint32(b[8:])
	f.stored = binary.LittleEndian.Uint32(b[12:])
	f.nblobs = binary.LittleEndian.Uint32(b[16:])
	f.nbases = binary.LittleEndian.Uint32(b[20:])
	f.crc = binary.LittleEndian.Uint32(b[24:])
	f.crc32 = binary.LittleEndian.Uint32(b[28:])
	switch {
	case f.enc > encDelta || f.kind > Version:
		return f, fmt.Errorf("record of %v with %v: %w", f.kind, f.enc, ErrFormat)
	case f.depth > MaxDepth || f.nbases > MaxBaseBlobs || (f.depth > 0) != (f.nbases > 0) || (f.nbases > 0) != f.enc.based():
		return f, fmt.Errorf("record bases: %w", ErrDamaged)
	case f.plain > MaxRecord || f.stored > f.plain || f.nblobs == 0 || f.nblobs > MaxGroup:
		return f, fmt.Errorf("record lengths: %w", ErrDamaged)
	}
	return f, nil
}

// readHeader reads and checks the header of the record at off of a pack that
// is size bytes long.
func readHeader(r io.ReaderAt, off, size int64) (*header, error) {
	if off < packHeader || off > size-recordFixed {
		return nil, fmt.Errorf("record outside the pack: %w", ErrDamaged)
	}
	// Most groups have fewer than 100 blobs: one read gets their whole table.
	buf := make([]byte, min(4096, size-off))
	if _, err := r.ReadAt(buf, off); err != nil {
		return nil, readError(err)
	}
	f, err := parseFixed(buf)
	if err != nil {
		return nil, err
	}
	n := recordFixed + tableSize(f.enc, f.nblobs, f.nbases)
	if n > size-off || int64(f.stored) > size-off-n {
		return nil, fmt.Errorf("record outside the pack: %w", ErrDamaged)
	}
	if have := int64(len(buf)); have < n {
		buf = append(buf, make([]byte, n-have)...)
		if _, err := r.ReadAt(buf[have:], off+have); err != nil {
			return nil, readError(err)
		}
	}
	return f.tables(buf[recordFixed:n])
}

// tables checks the tables of the header and returns it whole.
func (f *fixedHeader) tables(b []byte) (*header, error) {
	if headerCRC(f.raw[:], b) != f.crc32 {
		return nil, fmt.Errorf("record header checksum: %w", ErrDamaged)
	}
	h := f.header
	h.blobs = make([]member, f.nblobs)
	var sum uint64
	for i := range h.blobs {
		e := b[i*blobEntry:]
		h.blobs[i].id = ID(e[:32])
		h.blobs[i].length = binary.LittleEndian.Uint32(e[32:])
		sum += uint64(h.blobs[i].length)
	}
	if h.whole() {
		sum -= uint64(h.blobs[0].length)
		if h.blobs[0].length != h.plain {
			return nil, fmt.Errorf("record lengths: %w", ErrDamaged)
		}
	}
	if sum != uint64(h.plain) {
		return nil, fmt.Errorf("record lengths: %w", ErrDamaged)
	}
	b = b[len(h.blobs)*blobEntry:]
	for range f.nbases {
		h.bases = append(h.bases, ID(b[:baseEntry]))
		b = b[baseEntry:]
	}
	if h.enc.filtered() {
		if h.inner = binary.LittleEndian.Uint32(b); h.inner > maxInner(h.plain) {
			return nil, fmt.Errorf("length of the filtered program: %w", ErrDamaged)
		}
	}
	return &h, nil
}

// readError turns a short read into damage; other errors stay what they are.
func readError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("pack is cut short: %w", ErrDamaged)
	}
	return err
}

func appendPackHeader(b []byte) []byte {
	b = append(b, packMagic...)
	b = binary.LittleEndian.AppendUint32(b, packFormat)
	return binary.LittleEndian.AppendUint32(b, 0)
}

// checkPackHeader checks the first packHeader bytes of a pack.
func checkPackHeader(b []byte) error {
	if !bytes.Equal(b[:8], []byte(packMagic)) {
		return fmt.Errorf("no pack: %w", ErrDamaged)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != packFormat {
		return fmt.Errorf("pack format %d: %w", v, ErrFormat)
	}
	if binary.LittleEndian.Uint32(b[12:]) != 0 {
		return fmt.Errorf("pack header: %w", ErrDamaged)
	}
	return nil
}

func appendTrailer(b []byte, records, size int64) []byte {
	b = append(b, endMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(records))
	return binary.LittleEndian.AppendUint64(b, uint64(size))
}
