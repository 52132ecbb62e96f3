package delta

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	version  = 1
	nStreams = 6
	nRecent  = 4

	// slack is what a stream may be longer than the target: a last varint.
	slack = 16
)

// The streams of a patch, in the order of the format.
const (
	streamLiteralRuns = iota
	streamCopyLens
	streamSources
	streamGaps
	streamDiffs
	streamLiterals
)

// Options set what an encoding may cost. The zero value is the densest.
type Options struct {
	// Level is the zstd level of the streams; 0 means zstd.SpeedBestCompression.
	Level zstd.EncoderLevel
	// Depth is how many positions of the bases are tried for each position of the target; 0 means
	// 24. A quarter of it takes about half the time and adds some percent.
	Depth int
}

// Encode appends a patch to dst from which Decode makes target out of the same bases.
// It needs about 5 bytes of memory per byte of the bases, one byte more where there are several.
// The bases may be at most 1 GiB together; what lies beyond is not looked at.
func Encode(dst, target []byte, bases [][]byte, opts Options) []byte {
	if opts.Depth == 0 {
		opts.Depth = 24
	}
	if opts.Level == 0 {
		opts.Level = zstd.SpeedBestCompression
	}
	base := join(bases)
	m := newMatcher(base, boundaries(bases), opts.Depth)
	w := &writer{base: base, target: target}
	w.run(m)
	return w.appendPatch(dst, opts.Level)
}

// join returns the bases as one slice, without copying where there is one only.
func join(bases [][]byte) []byte {
	if len(bases) == 1 {
		return bases[0]
	}
	return slices.Concat(bases...)
}

func boundaries(bases [][]byte) []int {
	starts := make([]int, 0, len(bases)+1)
	n := 0
	for _, b := range bases {
		starts = append(starts, n)
		n += len(b)
	}
	return append(starts, n)
}

// recent is the list of diagonals used last, newest first.
type recent [nRecent]int

func (r *recent) index(diag int) int {
	for i, d := range r {
		if d == diag {
			return i
		}
	}
	return -1
}

// use moves the diagonal at index i to the front; -1 is a new one.
func (r *recent) use(i, diag int) {
	if i < 0 {
		i = nRecent - 1
	}
	copy(r[1:i+1], r[:i])
	r[0] = diag
}

// writer collects the streams of one patch.
type writer struct {
	base, target []byte
	streams      [nStreams][]byte
	recent       recent
	gap          uint64
	literals     int // end of the literals already written
}

func (w *writer) put(stream int, v uint64) {
	w.streams[stream] = binary.AppendUvarint(w.streams[stream], v)
}

// copyFrom writes the literals before target[at:] and a copy of n bytes to there.
func (w *writer) copyFrom(at, diag, n int) {
	if n <= 0 {
		return
	}
	w.put(streamLiteralRuns, uint64(at-w.literals))
	w.put(streamCopyLens, uint64(n))
	i := w.recent.index(diag)
	if i >= 0 {
		w.put(streamSources, uint64(i))
	} else {
		w.put(streamSources, nRecent+zigzag(diag-w.recent[0]))
	}
	w.recent.use(i, diag)
	w.streams[streamLiterals] = append(w.streams[streamLiterals], w.target[w.literals:at]...)
	w.literals = at + n

	t, b := w.target[at:at+n], w.base[at+diag:at+diag+n]
	for len(t) > 0 {
		k := commonPrefix(t, b)
		w.gap += uint64(k)
		if k == len(t) {
			return
		}
		w.put(streamGaps, w.gap)
		w.streams[streamDiffs] = append(w.streams[streamDiffs], t[k]-b[k])
		w.gap = 0
		t, b = t[k+1:], b[k+1:]
	}
}

func (w *writer) appendPatch(dst []byte, level zstd.EncoderLevel) []byte {
	w.streams[streamLiterals] = append(w.streams[streamLiterals], w.target[w.literals:]...)
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(len(w.target)))
	dst = binary.AppendUvarint(dst, uint64(len(w.base)))
	enc := encoder(level)
	for _, s := range w.streams {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		if packed := enc.EncodeAll(s, nil); len(packed) < len(s) {
			dst = binary.AppendUvarint(dst, uint64(len(packed))<<1|1)
			dst = append(dst, packed...)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(s))<<1)
		dst = append(dst, s...)
	}
	return dst
}

func zigzag(d int) uint64   { return uint64(d)<<1 ^ uint64(d>>63) }
func unzigzag(v uint64) int { return int(v>>1) ^ -int(v&1) }

// encoders holds one encoder a level: making one costs more than a small patch does.
var encoders sync.Map // zstd.EncoderLevel -> *zstd.Encoder

func encoder(level zstd.EncoderLevel) *zstd.Encoder {
	if e, ok := encoders.Load(level); ok {
		return e.(*zstd.Encoder)
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(32<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("delta: " + err.Error()) // only a wrong option can do this
	}
	kept, _ := encoders.LoadOrStore(level, e)
	return kept.(*zstd.Encoder)
}
