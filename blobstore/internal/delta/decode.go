package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Errors that Decode's own wrap.
var (
	// ErrCorrupt means that the patch is none, or was damaged.
	ErrCorrupt = errors.New("corrupt delta")
	// ErrBase means that the patch was made for other bases.
	ErrBase = errors.New("delta is for other bases")
	// ErrTooLarge means that the target is longer than the caller allows.
	ErrTooLarge = errors.New("delta makes more bytes than allowed")
)

// Decode appends to dst the target of a patch that Encode made with the same bases. Every length
// is checked before memory is taken for it: at most maxPlain bytes for the target and twice as many
// for the six streams together. The caller must still verify the target, since a patch carries no checksum.
// room is called once at most, for memory that the streams are decoded into and nobody looks at
// afterwards; nil: it is made.
func Decode(dst, patch []byte, bases [][]byte, maxPlain int, room func(n int) []byte) ([]byte, error) {
	r := reader{patch}
	v, err := r.byte()
	if err != nil {
		return dst, err
	}
	if v != version {
		return dst, fmt.Errorf("%w: unknown version %d", ErrCorrupt, v)
	}
	plain, err := r.uvarint()
	if err != nil {
		return dst, err
	}
	if maxPlain < 0 || plain > uint64(maxPlain) {
		return dst, fmt.Errorf("%w: %d, allowed %d", ErrTooLarge, plain, maxPlain)
	}
	baseLen, err := r.uvarint()
	if err != nil {
		return dst, err
	}
	have := 0
	for _, b := range bases {
		have += len(b)
	}
	if baseLen != uint64(have) {
		return dst, fmt.Errorf("%w: %d bytes of bases, want %d", ErrBase, have, baseLen)
	}
	all, err := r.streams(plain)
	if err != nil {
		return dst, err
	}
	streams, err := unpack(all, room)
	if err != nil {
		return dst, err
	}
	if uint64(len(streams[streamLiterals].b)) > plain {
		return dst, fmt.Errorf("%w: more literals than the target has bytes", ErrCorrupt)
	}
	start := len(dst)
	a := applier{
		bases: bases, starts: boundaries(bases), streams: streams,
		out: grow(dst, int(plain)), start: start, end: start + int(plain),
	}
	if err := a.run(); err != nil {
		return dst, err
	}
	return a.out, nil
}

func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	return append(make([]byte, 0, len(b)+n), b...)
}

// applier runs the copies of one patch.
type applier struct {
	bases   [][]byte
	starts  []int // of each base in all of them, and the end of the last
	base    int   // that the last copy was from
	streams [nStreams]reader
	out     []byte
	start   int // of the target in out
	end     int
	recent  recent
	gap     uint64 // bytes still to copy before the next difference
	diffs   bool   // whether there is a next difference
}

func (a *applier) run() error {
	if err := a.nextGap(); err != nil {
		return err
	}
	s := &a.streams
	for len(s[streamCopyLens].b) > 0 {
		lits, err := s[streamLiteralRuns].uvarint()
		if err != nil {
			return err
		}
		if err := a.literals(lits); err != nil {
			return err
		}
		n, err := s[streamCopyLens].uvarint()
		if err != nil {
			return err
		}
		if n == 0 || n > uint64(a.end-len(a.out)) {
			return fmt.Errorf("%w: copy of %d bytes at %d", ErrCorrupt, n, len(a.out)-a.start)
		}
		if err := a.copy(int(n)); err != nil {
			return err
		}
	}
	if err := a.literals(uint64(len(s[streamLiterals].b))); err != nil {
		return err
	}
	if len(a.out) != a.end {
		return fmt.Errorf("%w: makes %d bytes, want %d", ErrCorrupt, len(a.out)-a.start, a.end-a.start)
	}
	for i := range s {
		if len(s[i].b) != 0 {
			return fmt.Errorf("%w: stream %d is too long", ErrCorrupt, i)
		}
	}
	if a.diffs {
		return fmt.Errorf("%w: a difference behind the last copy", ErrCorrupt)
	}
	return nil
}

// literals appends n literals. Their number was checked against the target's length, and so were
// copies, but not their sum.
func (a *applier) literals(n uint64) error {
	l := &a.streams[streamLiterals]
	if n > uint64(len(l.b)) || n > uint64(a.end-len(a.out)) {
		return fmt.Errorf("%w: %d literals at %d", ErrCorrupt, n, len(a.out)-a.start)
	}
	a.out = append(a.out, l.b[:n]...)
	l.b = l.b[n:]
	return nil
}

func (a *applier) nextGap() error {
	g := &a.streams[streamGaps]
	a.diffs = len(g.b) > 0
	if !a.diffs {
		return nil
	}
	var err error
	a.gap, err = g.uvarint()
	return err
}

// copy appends n bytes, which the target has room for, and applies the differences in them.
func (a *applier) copy(n int) error {
	v, err := a.streams[streamSources].uvarint()
	if err != nil {
		return err
	}
	index, diag := -1, 0
	if v < nRecent {
		index = int(v)
		diag = a.recent[index]
	} else {
		diag = a.recent[0] + unzigzag(v-nRecent)
	}
	a.recent.use(index, diag)
	at := len(a.out)
	if err := a.fromBases(at-a.start+diag, n); err != nil {
		return err
	}
	b := a.out[at:]
	diffs, gaps := &a.streams[streamDiffs], &a.streams[streamGaps]
	for a.diffs {
		if a.gap >= uint64(len(b)) {
			a.gap -= uint64(len(b))
			return nil
		}
		d, err := diffs.byte()
		if err != nil {
			return err
		}
		b[a.gap] += d
		b = b[a.gap+1:]
		if len(gaps.b) > 0 && gaps.b[0] < 0x80 {
			a.gap = uint64(gaps.b[0])
			gaps.b = gaps.b[1:]
			continue
		}
		if err := a.nextGap(); err != nil {
			return err
		}
	}
	return nil
}

// fromBases appends n bytes at position pos of the bases, which may reach across several of them.
func (a *applier) fromBases(pos, n int) error {
	// Most copies are from the base that the last one was from.
	if from := pos - a.starts[a.base]; from >= 0 && a.base < len(a.bases) && from <= len(a.bases[a.base])-n {
		a.out = append(a.out, a.bases[a.base][from:from+n]...)
		return nil
	}
	if total := a.starts[len(a.bases)]; pos < 0 || pos > total || n > total-pos {
		return fmt.Errorf("%w: copy of %d bytes from %d, beyond the bases", ErrCorrupt, n, pos)
	}
	for i := sort.SearchInts(a.starts, pos+1) - 1; n > 0; i++ {
		from := pos - a.starts[i]
		k := min(n, len(a.bases[i])-from)
		a.out = append(a.out, a.bases[i][from:from+k]...)
		pos, n = pos+k, n-k
		a.base = i
	}
	return nil
}

// reader takes values off the front of a slice.
type reader struct{ b []byte }

func (r *reader) byte() (byte, error) {
	if len(r.b) == 0 {
		return 0, fmt.Errorf("%w: too short", ErrCorrupt)
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c, nil
}

func (r *reader) uvarint() (uint64, error) {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v), nil
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() (uint64, error) {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		return 0, fmt.Errorf("%w: bad number", ErrCorrupt)
	}
	r.b = r.b[n:]
	return v, nil
}

// stream is a stream as it is stored.
type stream struct {
	b          []byte
	compressed bool
	plain      uint64 // bytes
}

// streams returns all streams of the patch for a target of so many bytes.
func (r *reader) streams(target uint64) (all [nStreams]stream, err error) {
	left := 2*target + nStreams*slack
	for i := range all {
		if all[i], err = r.stream(min(target+slack, left)); err != nil {
			return all, fmt.Errorf("stream %d: %w", i, err)
		}
		left -= all[i].plain
	}
	if len(r.b) != 0 {
		return all, fmt.Errorf("%w: bytes after the last stream", ErrCorrupt)
	}
	return all, nil
}

// stream returns the next stream, whose plain bytes may be limit at most.
func (r *reader) stream(limit uint64) (p stream, err error) {
	if p.plain, err = r.uvarint(); err != nil {
		return p, err
	}
	n, err := r.uvarint()
	if err != nil {
		return p, err
	}
	p.compressed, n = n&1 == 1, n>>1
	if p.plain > limit || n > uint64(len(r.b)) || !p.compressed && p.plain != n {
		return p, fmt.Errorf("%w: stream of %d bytes in %d", ErrCorrupt, p.plain, n)
	}
	p.b = r.b[:n]
	r.b = r.b[n:]
	return p, nil
}

// unpack returns the plain bytes of the streams, those of the compressed ones side by side in the room.
func unpack(all [nStreams]stream, room func(n int) []byte) (plain [nStreams]reader, err error) {
	n := 0
	for _, p := range all {
		if p.compressed {
			n += int(p.plain) + slack // which lets the decoder be quick at the end too
		}
	}
	var out []byte
	if room != nil {
		out = room(n)[:0]
	} else {
		out = make([]byte, 0, n)
	}
	for i, p := range all {
		if !p.compressed {
			plain[i].b = p.b
			continue
		}
		d, err := decoder()
		if err != nil {
			return plain, err
		}
		// The decoder takes no more than the capacity given, whatever the frame says.
		b, err := d.DecodeAll(p.b, out[:0:p.plain+slack])
		if err != nil {
			return plain, fmt.Errorf("%w: stream %d: %v", ErrCorrupt, i, err)
		}
		if uint64(len(b)) != p.plain {
			return plain, fmt.Errorf("%w: stream %d of %d bytes, want %d", ErrCorrupt, i, len(b), p.plain)
		}
		plain[i].b = b
		out = out[p.plain+slack : cap(out)]
	}
	return plain, nil
}

var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(0))
})
