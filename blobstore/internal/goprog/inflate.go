package goprog

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	chdrSize     = 24 // Elf64_Chdr: type uint32, reserved uint32, size uint64, align uint64
	chdrZlib     = 1
	zdebugHeader = 12 // "ZLIB" and the size as a big-endian uint64

	// maxRatio is how many times as long as the program its filtered form may be.
	maxRatio = 4
)

// part is a section that is kept inflated. Its bytes stand behind those of the file, which has
// zeros instead.
type part struct {
	from, to int // in the file
	size     int // inflated
}

// inflate moves the sections that the linker compressed behind the file, those which the same
// compression makes the same again.
func (img *image) inflate() []part {
	var parts []part
	file := len(img.b)
	for _, s := range img.packed {
		from, ok := payload(img.b[:file], s)
		if !ok || img.mapsFile(from, s.off+s.size) {
			continue
		}
		data := img.b[from : s.off+s.size]
		plain := inflate(data, maxRatio*file-len(img.b))
		if plain == nil {
			continue
		}
		if again := deflate(plain, len(data)); !bytes.Equal(again, data) {
			continue
		}
		clear(data)
		img.b = append(img.b, plain...)
		parts = append(parts, part{from, s.off + s.size, len(plain)})
	}
	img.setParts(file, parts)
	return parts
}

// setParts makes sections of the parts, for the walkers.
func (img *image) setParts(file int, parts []part) {
	img.debug = nil
	for _, p := range parts {
		img.debug = append(img.debug, section{name: ".debug", off: file, size: p.size, inFile: true})
		file += p.size
	}
}

// deflateParts puts the parts, plain by now, back into the file. It reports false where one does
// not fit.
func (img *image) deflateParts(parts []part) bool {
	var wg sync.WaitGroup
	var misfits atomic.Int32
	for i, p := range parts {
		wg.Go(func() {
			data := deflate(img.bytes(&img.debug[i]), p.to-p.from)
			if len(data) != p.to-p.from {
				misfits.Add(1)
				return
			}
			copy(img.b[p.from:p.to], data)
		})
	}
	wg.Wait()
	return misfits.Load() == 0
}

// payload returns where in the file the zlib stream of a compressed section begins.
func payload(file []byte, s section) (from int, ok bool) {
	b := file[s.off : s.off+s.size]
	if strings.HasPrefix(s.name, ".zdebug") {
		return s.off + zdebugHeader, len(b) > zdebugHeader && string(b[:4]) == "ZLIB"
	}
	return s.off + chdrSize, len(b) > chdrSize && binary.LittleEndian.Uint32(b) == chdrZlib
}

// inflate returns nil if b is no zlib stream, or one of more than limit bytes.
func inflate(b []byte, limit int) []byte {
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil || limit <= 0 {
		return nil
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(r, int64(limit)+1))
	if err != nil || n > int64(limit) {
		return nil
	}
	return out.Bytes()
}

// deflate compresses as cmd/link does. It gives up behind limit bytes.
func deflate(b []byte, limit int) []byte {
	out := &limited{left: limit}
	w, err := zlib.NewWriterLevel(out, zlib.BestSpeed)
	if err != nil {
		return nil
	}
	if _, err := w.Write(b); err != nil || w.Close() != nil {
		return nil
	}
	return out.b
}

// limited is a buffer of bounded length.
type limited struct {
	b    []byte
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, io.ErrShortBuffer
	}
	l.left -= len(p)
	l.b = append(l.b, p...)
	return len(p), nil
}

// debug visits the addresses of functions in the inflated sections, where they lie anywhere. Unlike
// the other fields these may overlap, so the visitor sees what stands there in the filtered form.
func (w *walker) debug(visit visitor) {
	for i := range w.img.debug {
		s := &w.img.debug[i]
		b := w.img.bytes(s)
		for off := 0; off+8 <= len(b); {
			switch {
			case !mayBeAddress(b[off:]):
				off++
			case visit(field{kind: fieldAddress, off: s.off + off, sec: s}):
				off += 8
			default:
				off++
			}
		}
	}
}

// mayBeAddress is a quick check that every address and every label passes.
func mayBeAddress(b []byte) bool {
	v := binary.LittleEndian.Uint64(b)
	return v>>32 == 0 && v>>16 != 0
}

// debug replaces the addresses in the inflated sections first, and only then looks at them as the
// decoder will.
func (e *encoder) debug() {
	var fields []int
	w := e.w
	for i := range w.img.debug {
		s := &w.img.debug[i]
		b := w.img.bytes(s)
		for off := 0; off+8 <= len(b); off++ {
			if !mayBeAddress(b[off:]) {
				continue
			}
			f := field{kind: fieldAddress, off: s.off + off, sec: s}
			if t, ok := w.target(f); ok {
				if label := e.labels.of(t); label != noLabel {
					w.setLabel(f, label)
					fields = append(fields, f.off)
					off += 7
				}
			}
		}
	}
	w.debug(func(f field) bool {
		if len(fields) > 0 && fields[0] == f.off {
			fields = fields[1:]
			e.step(false)
			return true
		}
		v, _, looks := w.label(f, e.labels.bits)
		e.step(looks && e.labels.index(v) >= 0)
		return false
	})
}
