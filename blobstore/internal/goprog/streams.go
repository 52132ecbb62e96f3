package goprog

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"gofs/blobstore/internal/deflate"
)

// maxStreams is how many streams a program may have. The linker makes at most eight.
const maxStreams = 16

// stream is the zlib stream of a compressed section. The program has n bytes of it at off.
type stream struct {
	off, n int
	size   uint64 // inflated, as the section says
	plain  []byte
}

func (s *stream) end() int { return s.off + s.n }

// addStream adds the stream of a section that is not mapped, if it has one: behind an Elf64_Chdr where the
// section is flagged so, else behind "ZLIB" and the length, big-endian.
func (img *image) addStream(off, size uint64, flagged bool) {
	if !img.holds(off, size) {
		return
	}
	b := img.b[off : off+size]
	s := stream{}
	switch {
	case flagged && len(b) > 24 && binary.LittleEndian.Uint32(b) == 1: // ELFCOMPRESS_ZLIB
		s = stream{off: int(off) + 24, n: len(b) - 24, size: binary.LittleEndian.Uint64(b[8:])}
	case !flagged && len(b) > 12 && string(b[:4]) == "ZLIB":
		s = stream{off: int(off) + 12, n: len(b) - 12, size: binary.BigEndian.Uint64(b[4:])}
	default:
		return
	}
	img.streams = append(img.streams, s)
}

// apart reports whether nothing else that the filter looks at lies in a range of the file.
func (img *image) apart(off, n int) bool {
	free := func(s *section) bool { return s.off+s.size <= off || off+n <= s.off }
	for i := range img.sections {
		if s := &img.sections[i]; s.inFile && !free(s) {
			return false
		}
	}
	hashes := section{off: img.hashes.off, size: 32 * img.hashes.n}
	return free(&img.symtab) && free(&img.strtab) && free(&img.unwind) && free(&img.relocs) && free(&hashes)
}

// takeStreams returns the streams inflated, as many as room has place for, and zeroes them. It leaves alone
// what deflating would make something else of.
func (img *image) takeStreams(room int) []byte {
	slices.SortStableFunc(img.streams, func(a, b stream) int { return cmp.Compare(a.off, b.off) })
	var list []byte
	n, end := 0, 0
	enc := new(deflate.Encoder)
	for _, s := range img.streams {
		if n == maxStreams || s.off < end || !img.apart(s.off, s.n) || s.size > uint64(max(0, room-len(list)-32)) {
			continue
		}
		b := img.b[s.off:s.end()]
		plain := make([]byte, s.size)
		z, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			continue
		}
		if _, err := io.ReadFull(z, plain); err != nil {
			continue
		}
		if again := make([]byte, s.n); !enc.Fill(again, plain) || !bytes.Equal(again, b) {
			continue
		}
		list = binary.AppendUvarint(list, uint64(s.off-end))
		list = binary.AppendUvarint(list, uint64(s.n))
		list = appendBytes(list, plain)
		clear(b)
		n, end = n+1, s.end()
	}
	return append([]byte{byte(n)}, list...)
}

// readStreams reads what takeStreams returned.
func (img *image) readStreams(r *reader) ([]stream, error) {
	n := r.uvarint()
	if n > maxStreams {
		return nil, errCorrupt("too many streams")
	}
	list := make([]stream, n)
	end := uint64(0)
	for i := range list {
		off, n := r.uvarint(), r.uvarint()
		plain := r.bytes(r.uvarint())
		if r.err != nil {
			return nil, r.err
		}
		if off > uint64(len(img.b)) || !img.holds(end+off, n) || !img.apart(int(end+off), int(n)) {
			return nil, errCorrupt("place of a stream")
		}
		list[i] = stream{off: int(end + off), n: int(n), plain: plain}
		end += off + n
	}
	return list, nil
}

// fillWorkers bounds the memory for deflating. The largest stream is half of all.
const fillWorkers = 4

// fill puts the streams of a list into their places, while the rest of the file is restored. What it
// returns waits for that and reports whether all had the length that they should have.
func (img *image) fill(list []stream) (wait func() bool) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b stream) int { return cmp.Compare(len(b.plain), len(a.plain)) })
	var wg sync.WaitGroup
	var next atomic.Int32
	var failed atomic.Bool
	for range min(fillWorkers, runtime.GOMAXPROCS(0), len(list)) {
		wg.Go(func() {
			enc := new(deflate.Encoder)
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				s := &list[i]
				if !enc.Fill(img.b[s.off:s.end()], s.plain) {
					failed.Store(true)
				}
			}
		})
	}
	return func() bool {
		wg.Wait()
		return !failed.Load()
	}
}
