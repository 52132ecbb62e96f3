package blobstore

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"

	"gofs/blobstore/internal/delta"
	"gofs/blobstore/internal/goprog"
)

// Effort is how much time a dense encoding may take. A record keeps the effort
// it was made with, so that a compaction knows what it need not do again.
type Effort uint8

// MaxEffort is the largest that there is. An import's records have 0.
const MaxEffort Effort = 3

// quickEffort marks records that are meant to take room and to be read quickly:
// a compaction leaves them as they are.
const quickEffort = MaxEffort + 1

// levels are what an effort means: the level of zstd and of a delta's streams,
// and the positions that a delta tries.
func (e Effort) levels() (zstd.EncoderLevel, delta.Options) {
	switch {
	case e <= 1:
		return zstd.SpeedBetterCompression, delta.Options{Level: zstd.SpeedBetterCompression, Depth: 6}
	case e == 2:
		return zstd.SpeedBestCompression, delta.Options{}
	}
	return zstd.SpeedBestCompression, delta.Options{Depth: 96}
}

// Program is a Go program in the form that others are deltas of.
type Program struct {
	ID       ID // of its plain bytes
	Filtered []byte
	Depth    int // of its record
}

// Kept says whether a reader keeps a filtered program in memory for the others
// that are deltas of it.
func Kept(filtered []byte) bool { return len(filtered) < hugeRecord }

// Filter returns the filtered form of a Go program; false for anything else.
// What it returns has been tried to give the program again.
func Filter(plain []byte) ([]byte, bool) {
	return goprog.Forward(plain, int(maxInner(uint32(len(plain)))))
}

// Program returns the filtered form of a program of the store. The error is
// ErrNotFound where the blob is no program of its own record.
func (v *View) Program(ctx context.Context, id ID) (*Program, error) {
	r, err := v.Stored(id)
	if err != nil {
		return nil, err
	}
	h := r.header
	if !h.enc.filtered() || h.blobs[0].id != id {
		return nil, fmt.Errorf("program %s: %w", id, ErrNotFound)
	}
	// A record that needs it as base says best how it is decoded.
	c := &chain{view: v, last: &link{header: &header{enc: encProgramDelta, depth: h.depth + 1, bases: []ID{id}}}, links: map[linkKey]*link{}}
	if err := c.addBases(c.last); err != nil {
		return nil, err
	}
	leave, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer c.drop()
	b, release, err := c.bases(ctx, c.last)
	if err != nil {
		return nil, err
	}
	defer release()
	return &Program{id, bytes.Clone(b[0]), int(h.depth)}, nil
}

// find returns where the record lies that holds a blob.
func (v *View) find(id ID) (*openPack, Location, error) {
	loc, ok := v.loc.Locate(id)
	if !ok {
		return nil, loc, fmt.Errorf("blob %s: %w", id, ErrNotFound)
	}
	p, err := v.pack(loc.Pack)
	return p, loc, err
}

// Stored returns the record that holds a blob without its content.
func (v *View) Stored(id ID) (*Record, error) {
	p, loc, err := v.find(id)
	if err != nil {
		return nil, err
	}
	h, err := readHeader(p.f, loc.Record, p.ref.Size)
	if err != nil {
		return nil, fmt.Errorf("blob %s: pack %s: %w", id, p.ref.Name, err)
	}
	return &Record{Offset: loc.Record, header: h}, nil
}

// Whole returns the record that holds a blob, with its content, for a Writer's Copy.
// All of it has been decoded and checked.
func (v *View) Whole(ctx context.Context, id ID) (*Record, error) {
	p, loc, err := v.find(id)
	if err != nil {
		return nil, err
	}
	r, err := readRecord(p.f, loc.Record, p.ref.Size)
	if err != nil {
		return nil, fmt.Errorf("blob %s: pack %s: %w", id, p.ref.Name, err)
	}
	if _, bad := v.check(ctx, p.ref, r); bad != nil {
		return nil, fmt.Errorf("blob %s: pack %s: %w", id, p.ref.Name, bad.Err)
	}
	return r, context.Cause(ctx)
}

// EncodeProgram makes the record of a Go program, as a delta of bases where
// that is smaller. The blobs are the program's parts in their order. What it
// returns, for a Writer's Copy, has been decoded again. It returns nil for a
// program that does not become smaller.
func EncodeProgram(e Effort, blobs []Blob, plain, filtered []byte, bases []*Program) (*Record, *Program, error) {
	h := &header{enc: encProgram, effort: uint8(e), plain: uint32(len(plain)), inner: uint32(len(filtered))}
	id := blobs[0].ID
	if len(blobs) > 1 {
		id = Sum(plain)
		h.blobs = append(h.blobs, member{id, h.plain})
	}
	h.addBlobs(blobs)
	level, opts := e.levels()
	var stored []byte
	bases = fitting(bases)
	if len(bases) > 0 {
		parts := make([][]byte, len(bases))
		for i, b := range bases {
			parts[i] = b.Filtered
			h.bases = append(h.bases, b.ID)
			h.depth = max(h.depth, uint16(b.Depth+1))
		}
		h.enc = encProgramDelta
		stored = delta.Encode(nil, filtered, parts, opts)
		if back, err := delta.Decode(nil, stored, parts, len(filtered), nil); err != nil || !bytes.Equal(back, filtered) {
			return nil, nil, fmt.Errorf("program %s: its delta does not decode: %w", id, err)
		}
	} else {
		var err error
		if stored, err = compress(level, filtered, nil); err != nil {
			return nil, nil, err
		}
		dec, err := newDecoder(zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		defer dec.Close()
		back, err := decodeFrame(dec, stored, h.inner, make([]byte, 0, len(filtered)+bufferSlack))
		if err != nil || !bytes.Equal(back, filtered) {
			return nil, nil, fmt.Errorf("program %s does not decode: %w", id, err)
		}
	}
	if !worthIt(stored, plain) {
		return nil, nil, nil
	}
	return h.record(stored), &Program{id, filtered, int(h.depth)}, nil
}

// fitting returns the bases that a program may have together.
func fitting(bases []*Program) []*Program {
	n := 0
	for i, b := range bases {
		if n += len(b.Filtered); n > MaxBases {
			return bases[:i]
		}
	}
	return bases
}

// EncodeGroup makes the record of a group in the smallest of the encodings
// that need no filter. What it returns, for a Writer's Copy, has been decoded
// again.
func EncodeGroup(e Effort, g Group) (*Record, error) {
	plain := g.Plain
	if plain == nil {
		plain = join(g.Blobs)
	}
	if len(g.Blobs) == 0 || len(g.Blobs) > MaxGroup || len(plain) > MaxRecord {
		return nil, fmt.Errorf("group of %d blobs with %d bytes", len(g.Blobs), len(plain))
	}
	h := &header{enc: encRaw, kind: g.Kind, effort: uint8(e), plain: uint32(len(plain))}
	h.addBlobs(g.Blobs)
	level, opts := e.levels()
	stored, alone := plain, plain
	packed, err := compress(level, plain, nil)
	if err != nil {
		return nil, err
	}
	if worthIt(packed, plain) {
		h.enc, stored, alone = encZstd, packed, packed
	}
	dict := join(g.Bases)
	if len(dict) > 0 && len(dict) <= MaxBases && len(g.Bases) <= MaxBaseBlobs && g.Depth < MaxDepth {
		room := len(g.Bases) * baseEntry
		if packed, err = compress(level, plain, dict); err != nil {
			return nil, err
		}
		// A sixteenth less is what following a base must be worth.
		if len(packed)+room < len(alone)-len(alone)/16 {
			h.enc, stored = encDict, packed
		}
		patch := delta.Encode(nil, plain, [][]byte{dict}, opts)
		if len(patch)+room < len(alone)-len(alone)/16 && (h.enc != encDict || len(patch) < len(stored)) {
			h.enc, stored = encDelta, patch
		}
		if h.enc.based() {
			h.depth = uint16(g.Depth + 1)
			for _, b := range g.Bases {
				h.bases = append(h.bases, b.ID)
			}
		}
	}
	r := h.record(stored)
	dec, err := newDecoder(zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	back, err := r.decode(dec, [][]byte{dict}, buffers{})
	if err == nil && !bytes.Equal(back.Plain, plain) {
		err = ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("group of %s: %v does not decode: %w", g.Blobs[0].ID, h.enc, err)
	}
	return r, nil
}

func compress(level zstd.EncoderLevel, plain, dict []byte) ([]byte, error) {
	opts := []zstd.EOption{zstd.WithLowerEncoderMem(true)}
	if len(dict) > 0 {
		opts = append(opts, zstd.WithEncoderDictRaw(dictID, dict))
	}
	enc, err := newEncoder(level, 1, opts...)
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	return enc.EncodeAll(plain, make([]byte, 0, len(plain)/3)), nil
}

func (h *header) addBlobs(blobs []Blob) {
	for _, b := range blobs {
		h.blobs = append(h.blobs, member{b.ID, uint32(len(b.Data))})
	}
}

func (h *header) record(stored []byte) *Record {
	h.stored = uint32(len(stored))
	h.crc = crc32.Checksum(stored, castagnoli)
	return &Record{header: h, stored: stored}
}

// Effort is what the record was made with.
func (r *Record) Effort() Effort { return Effort(r.header.effort) }

// Quick says whether the record is one of a [Group] that was to be read quickly.
func (r *Record) Quick() bool { return Effort(r.header.effort) == quickEffort }

// IsProgram says whether the record holds one Go program, filtered.
func (r *Record) IsProgram() bool { return r.header.enc.filtered() }

// Parts lists the blobs that the record's plain bytes are made of: all of
// them, but not the one that names a program as a whole.
func (r *Record) Parts() []Member {
	ms := r.Blobs()
	if r.header.whole() {
		return ms[1:]
	}
	return ms
}

// Header returns the record without its content.
func (r *Record) Header() *Record { return &Record{Offset: r.Offset, header: r.header} }
