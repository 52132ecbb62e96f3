package blobstore

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
)

// Salvage reads the heads of all records of a pack of dir that can be read,
// those behind damage too: where there is no record, it looks for the next. It
// calls record for each; sound is false where the stored bytes are not those
// that were written. damaged is called for each thing that is wrong. The error
// is the context's or that of the file system, not damage.
func Salvage(ctx context.Context, dir, name string, record func(r *Record, sound bool), damaged func(Damage)) (size int64, err error) {
	f, err := openPackAt(dir, name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	s := newSalvage(ctx, f, st.Size())
	found := 0
	report := func(off int64, err error) error {
		if isShortage(err) {
			return err
		}
		found++
		damaged(Damage{Pack: name, Offset: off, Err: err})
		return nil
	}
	if err := checkPack(f, PackRef{Name: name, Size: s.size}); err != nil {
		if err := report(0, err); err != nil {
			return 0, err
		}
	}
	n, end := uint64(0), s.size-packTrailer
	for off := int64(packHeader); off < end; {
		if err := ctx.Err(); err != nil {
			return 0, context.Cause(ctx)
		}
		r, sound, err := s.at(off)
		if err != nil {
			if err := report(off, err); err != nil {
				return 0, err
			}
		}
		if r == nil {
			if off, err = s.next(off + 1); err != nil {
				return 0, err
			}
			continue
		}
		n++
		record(r, sound)
		off += r.Size()
	}
	if err := (&PackReader{f: f, name: name, size: s.size}).checkTrailer(n); err != nil && found == 0 {
		if err := report(0, err); err != nil {
			return 0, err
		}
	}
	return s.size, nil
}

// salvage is a pack of which nothing is believed.
type salvage struct {
	ctx  context.Context
	f    *os.File
	size int64
	crc  hash.Hash32
	buf  []byte
}

func newSalvage(ctx context.Context, f *os.File, size int64) *salvage {
	return &salvage{ctx: ctx, f: f, size: size, crc: crc32.New(castagnoli), buf: make([]byte, 256<<10)}
}

// at reads the record at an offset, nil if there is none.
func (s *salvage) at(off int64) (r *Record, sound bool, err error) {
	h, err := readHeader(s.f, off, s.size-packTrailer)
	if err != nil {
		return nil, false, err
	}
	r = &Record{Offset: off, header: h}
	s.crc.Reset()
	stored := io.NewSectionReader(s.f, off+int64(h.size()), int64(h.stored))
	if _, err := io.CopyBuffer(struct{ io.Writer }{s.crc}, stored, s.buf); err != nil {
		return nil, false, err
	}
	if s.crc.Sum32() != h.crc {
		return r, false, fmt.Errorf("checksum of the stored bytes: %w", ErrDamaged)
	}
	return r, true, nil
}

// next finds the next head of a record from off on, or the end.
func (s *salvage) next(off int64) (int64, error) {
	end := s.size - packTrailer
	for off < end {
		if s.ctx.Err() != nil {
			return 0, context.Cause(s.ctx)
		}
		b := s.buf[:min(int64(len(s.buf)), end-off)]
		if _, err := s.f.ReadAt(b, off); err != nil {
			return 0, readError(err)
		}
		for i := 0; ; i++ {
			k := bytes.Index(b[i:], []byte(recordMagic))
			if k < 0 {
				break
			}
			i += k
			switch _, err := readHeader(s.f, off+int64(i), end); {
			case err == nil:
				return off + int64(i), nil
			case isShortage(err):
				return 0, err
			}
		}
		if int64(len(b)) == end-off {
			break
		}
		// The magic may lie across the edge.
		off += int64(len(b) - len(recordMagic) + 1)
	}
	return end, nil
}
