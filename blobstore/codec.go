package blobstore

import (
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// Level trades the time of writing for room.
type Level int

const (
	// LevelImport is as quick as an import must be: groups of small files,
	// which are mostly text and gain most from it, are compressed at 135 MB/s
	// a core and large blobs at 190. The 12 releases that were measured take
	// 5 MB less than with the quicker one for all, in the same time.
	LevelImport Level = iota
	LevelBetter
	LevelBest
)

// encoders compress records. Safe for concurrent use.
type encoders struct {
	small *zstd.Encoder // for groups of several blobs
	large *zstd.Encoder
	// The quick levels find few of their matches in a dictionary of hundreds
	// of KiB, this one most.
	dict zstd.EncoderLevel
}

// newEncoders returns encoders for n goroutines at once.
func newEncoders(l Level, n int) (*encoders, error) {
	small, large, dict := zstd.SpeedDefault, zstd.SpeedFastest, zstd.SpeedBetterCompression
	switch l {
	case LevelBetter:
		small, large = zstd.SpeedBetterCompression, zstd.SpeedBetterCompression
	case LevelBest:
		small, large, dict = zstd.SpeedBestCompression, zstd.SpeedBestCompression, zstd.SpeedBestCompression
	}
	e := &encoders{dict: dict}
	var err error
	if e.small, err = newEncoder(small, n); err != nil {
		return nil, err
	}
	e.large, err = newEncoder(large, n)
	return e, err
}

func newEncoder(l zstd.EncoderLevel, n int, more ...zstd.EOption) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, append(more,
		zstd.WithEncoderLevel(l),
		zstd.WithEncoderConcurrency(n),
		zstd.WithEncoderCRC(false), // blobs are checked by their ID
		zstd.WithSingleSegment(true),
	)...)
}

func (e *encoders) Close() {
	e.small.Close()
	e.large.Close()
}

// encode returns the stored form of plain.
func (e *encoders) encode(plain []byte, blobs int) (encoding, []byte) {
	enc := e.large
	if blobs > 1 {
		enc = e.small
	}
	stored := enc.EncodeAll(plain, make([]byte, 0, len(plain)/2+1024))
	if !worthIt(stored, plain) {
		return encRaw, plain
	}
	return encZstd, stored
}

// encodeDict returns the stored form of plain with a dictionary.
func (e *encoders) encodeDict(plain, dict []byte) ([]byte, error) {
	enc, err := newEncoder(e.dict, 1, zstd.WithEncoderDictRaw(dictID, dict))
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	return enc.EncodeAll(plain, nil), nil
}

// dictID is the ID that frames name their dictionary by; there is only one.
const dictID = 1

// worthIt says whether the room saved is worth the time of decoding.
func worthIt(stored, plain []byte) bool { return len(stored) < len(plain)-len(plain)/64 }

func newDecoder(more ...zstd.DOption) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, append(more,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderMaxMemory(MaxRecord),
		zstd.WithDecoderMaxWindow(MaxRecord),
		zstd.WithDecodeAllCapLimit(true),
	)...)
}

// decode returns the plain bytes of a record whose bases are given.
func decode(dec *zstd.Decoder, h *header, stored, bases []byte) ([]byte, error) {
	switch h.enc {
	case encRaw:
		if h.plain != h.stored {
			return nil, fmt.Errorf("record lengths: %w", ErrDamaged)
		}
		return stored, nil
	case encDict:
		d, err := newDecoder(zstd.WithDecoderDictRaw(dictID, bases), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
		}
		defer d.Close()
		dec = d
	}
	plain, err := dec.DecodeAll(stored, make([]byte, 0, h.plain))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if len(plain) != int(h.plain) {
		return nil, fmt.Errorf("record decodes to %d bytes, not %d: %w", len(plain), h.plain, ErrDamaged)
	}
	return plain, nil
}
