package blobstore

import (
	"bytes"
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"gofs/blobstore/internal/delta"
)

// Level trades the time of writing for room.
type Level int

const (
	// LevelImport is as quick as an import must be. The next slower level would
	// save 5 MB of the 660 that 12 releases take, for 15 % more processor time.
	LevelImport Level = iota
	LevelBetter
	LevelBest
)

// encoders compress records. Safe for concurrent use.
type encoders struct {
	plain *zstd.Encoder // without a dictionary
	quick *zstd.Encoder // for what is to be read quickly
	// The quick levels find few of their matches in a dictionary of hundreds
	// of KiB, this one most.
	dict zstd.EncoderLevel
	back *zstd.Decoder // tries what takes the place of something else
}

// newEncoders returns encoders for n goroutines at once.
func newEncoders(l Level, n int) (*encoders, error) {
	plain, dict := zstd.SpeedFastest, zstd.SpeedBetterCompression
	switch l {
	case LevelBetter:
		plain = zstd.SpeedBetterCompression
	case LevelBest:
		plain, dict = zstd.SpeedBestCompression, zstd.SpeedBestCompression
	}
	// What an import compresses is no longer than importWindow, and a larger
	// one would make each encoder keep 16 MiB: with 32 processors an import
	// took 359 MiB, with these options 185.
	var lean []zstd.EOption
	if l == LevelImport {
		lean = []zstd.EOption{zstd.WithWindowSize(importWindow), zstd.WithLowerEncoderMem(true)}
	}
	enc, err := newEncoder(plain, n, lean...)
	if err != nil {
		return nil, err
	}
	// Without entropy coding, programs are decoded at 990 MB/s instead of 650, and
	// take 44 % of their length instead of 39.
	quick, err := newEncoder(zstd.SpeedBetterCompression, n, zstd.WithNoEntropyCompression(true), zstd.WithWindowSize(importWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	back, err := newDecoder()
	if err != nil {
		return nil, err
	}
	return &encoders{plain: enc, quick: quick, dict: dict, back: back}, nil
}

// importWindow is at least as much as a chunk or group of an import has.
const importWindow = 2 << 20

func newEncoder(l zstd.EncoderLevel, n int, more ...zstd.EOption) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, append([]zstd.EOption{
		zstd.WithEncoderLevel(l),
		zstd.WithEncoderConcurrency(n),
		zstd.WithEncoderCRC(false), // blobs are checked by their ID
		zstd.WithSingleSegment(true),
	}, more...)...)
}

func (e *encoders) Close() {
	e.plain.Close()
	e.quick.Close()
	e.back.Close()
}

// encode returns the stored form of plain, if it is to be read quickly one that has
// been decoded again: the denser form goes.
func (e *encoders) encode(plain []byte, quick bool) (encoding, []byte) {
	enc := e.plain
	if quick {
		enc = e.quick
	}
	stored := enc.EncodeAll(plain, make([]byte, 0, len(plain)/2+1024))
	if !worthIt(stored, plain) {
		return encRaw, plain
	}
	if quick {
		back, err := decodeFrame(e.back, stored, uint32(len(plain)), make([]byte, 0, len(plain)+bufferSlack))
		if err != nil || !bytes.Equal(back, plain) {
			return encRaw, plain
		}
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

// decode returns the plain bytes of a record that is no program and not raw and
// whose bases are given. They lie in room, which has bufferSlack more than them.
func decode(dec *zstd.Decoder, h *header, stored []byte, bases [][]byte, room []byte, from buffers) ([]byte, error) {
	switch h.enc {
	case encDelta:
		return decodeDelta(stored, bases, h.plain, room, from)
	case encDict:
		d, err := newDecoder(zstd.WithDecoderDictRaw(dictID, bases[0]), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
		}
		defer d.Close()
		dec = d
	}
	return decodeFrame(dec, stored, h.plain, room)
}

// decodeFrame decodes a frame of n plain bytes.
func decodeFrame(dec *zstd.Decoder, stored []byte, n uint32, room []byte) ([]byte, error) {
	plain, err := dec.DecodeAll(stored, room[:0:n+bufferSlack]) // the capacity is the limit
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if len(plain) != int(n) {
		return nil, fmt.Errorf("record decodes to %d bytes, not %d: %w", len(plain), n, ErrDamaged)
	}
	return plain, nil
}

// decodeDelta decodes a delta that makes n bytes.
func decodeDelta(stored []byte, bases [][]byte, n uint32, room []byte, from buffers) ([]byte, error) {
	var streams []byte
	plain, err := delta.Decode(room[:0], stored, bases, int(n), func(n int) []byte {
		streams = from.get(n)
		return streams
	})
	from.put(streams)
	if err != nil {
		return nil, fmt.Errorf("delta: %w: %w", err, ErrDamaged)
	}
	if len(plain) != int(n) {
		return nil, fmt.Errorf("delta makes %d bytes, not %d: %w", len(plain), n, ErrDamaged)
	}
	return plain, nil
}
