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
func Decode(dst, patch []byte, bases [][]byte, maxPlain int) ([]byte, error) {
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
	var streams [nStreams]reader
	left := 2*plain + nStreams*slack
	for i := range streams {
		if streams[i].b, err = r.stream(min(plain+slack, left)); err != nil {
			return dst, fmt.Errorf("stream %d: %w", i, err)
		}
		left -= uint64(len(streams[i].b))
	}
	if len(r.b) != 0 {
		return dst, fmt.Errorf("%w: bytes after the last stream", ErrCorrupt)
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
	for b := a.out[at:]; a.diffs; {
		if a.gap >= uint64(len(b)) {
			a.gap -= uint64(len(b))
			return nil
		}
		d, err := a.streams[streamDiffs].byte()
		if err != nil {
			return err
		}
		b[a.gap] += d
		b = b[a.gap+1:]
		if err := a.nextGap(); err != nil {
			return err
		}
	}
	return nil
}

// fromBases appends n bytes at position pos of the bases, which may reach across several of them.
func (a *applier) fromBases(pos, n int) error {
	if total := a.starts[len(a.bases)]; pos < 0 || pos > total || n > total-pos {
		return fmt.Errorf("%w: copy of %d bytes from %d, beyond the bases", ErrCorrupt, n, pos)
	}
	for i := sort.SearchInts(a.starts, pos+1) - 1; n > 0; i++ {
		from := pos - a.starts[i]
		k := min(n, len(a.bases[i])-from)
		a.out = append(a.out, a.bases[i][from:from+k]...)
		pos, n = pos+k, n-k
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
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		return 0, fmt.Errorf("%w: bad number", ErrCorrupt)
	}
	r.b = r.b[n:]
	return v, nil
}

// stream returns the next stream, whose plain bytes may be limit at most.
func (r *reader) stream(limit uint64) ([]byte, error) {
	plain, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	packed, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	compressed, packed := packed&1 == 1, packed>>1
	if plain > limit || packed > uint64(len(r.b)) || !compressed && plain != packed {
		return nil, fmt.Errorf("%w: stream of %d bytes in %d", ErrCorrupt, plain, packed)
	}
	b := r.b[:packed]
	r.b = r.b[packed:]
	if !compressed {
		return b, nil
	}
	d, err := decoder()
	if err != nil {
		return nil, err
	}
	// The decoder takes no more than the capacity given, whatever the frame says.
	out, err := d.DecodeAll(b, make([]byte, 0, plain))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	if uint64(len(out)) != plain {
		return nil, fmt.Errorf("%w: stream of %d bytes, want %d", ErrCorrupt, len(out), plain)
	}
	return out, nil
}

var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(0))
})
