package delta

import (
	"encoding/binary"
	"math/bits"
)

const (
	minAnchor = 8 // bytes that a match found by hash has at least
	maxBase   = 1 << 30

	// minGain is by how many bytes a new copy must beat going on with the old one (or literals):
	// about what the copy itself costs. A diagonal of the recent list costs less.
	minGain       = 12
	minGainRecent = 6

	// mismatchCost is how many matching bytes outweigh one that differs when a copy is extended: a
	// difference and its gap cost more than a literal does.
	mismatchCost = 2

	// lazyLen is the length below which a match waits for a better one that begins a little later.
	lazyLen  = 32
	lazyLook = 6
)

// matcher finds where in the bases the bytes at some position of the target occur.
type matcher struct {
	base  []byte
	depth int
	shift uint
	head  []int32
	prev  []int32
}

func newMatcher(base []byte, starts []int, depth int) *matcher {
	if len(base) > maxBase {
		base = base[:maxBase]
	}
	n := bits.Len(uint(len(base)) / 2)
	n = min(max(n, 10), 24)
	m := &matcher{base: base, depth: depth, shift: uint(64 - n)}
	m.head = make([]int32, 1<<n)
	m.prev = make([]int32, len(base))
	// Chains are followed from the position entered last, so the first base is entered last.
	for i := len(starts) - 2; i >= 0; i-- {
		m.enter(starts[i], min(starts[i+1], len(base)))
	}
	return m
}

// enter adds the positions from..to of one base. Positions are kept plus one, so that 0 is none.
func (m *matcher) enter(from, to int) {
	var last uint64
	for i := from; i+minAnchor <= to; i++ {
		v := binary.LittleEndian.Uint64(m.base[i:])
		if v == last && i > from {
			continue // a run of equal bytes: its first position stands for all
		}
		last = v
		h := hash(v, m.shift)
		m.prev[i] = m.head[h]
		m.head[h] = int32(i + 1)
	}
}

func hash(v uint64, shift uint) uint64 { return v * 0x9e3779b97f4a7c15 >> shift }

// find returns the longest match of t in the bases and its position; of equally long ones that
// nearest to position near. The length is 0 where there is none.
func (m *matcher) find(t []byte, near int) (pos, length int) {
	if len(t) < minAnchor {
		return 0, 0
	}
	v := binary.LittleEndian.Uint64(t)
	p := int(m.head[hash(v, m.shift)])
	for range m.depth {
		if p == 0 {
			break
		}
		p--
		b := m.base[p:]
		if length == 0 || len(b) > length && len(t) > length && b[length] == t[length] {
			n := commonPrefix(t, b)
			if n > length || n == length && abs(p-near) < abs(pos-near) {
				pos, length = p, n
			}
		}
		p = int(m.prev[p])
	}
	if length < minAnchor {
		return 0, 0
	}
	return pos, length
}

// run covers the target with copies.
func (w *writer) run(m *matcher) {
	var (
		n    = len(w.target)
		last int // start of the copy not yet written; its diagonal is diag
		diag int
		live = len(w.base) > 0
	)
	for i := 0; i < n; {
		if live {
			if k := w.equal(i, diag); k >= minAnchor {
				i += k
				continue
			}
		}
		pos, length := w.better(m, &i, diag)
		if length == 0 {
			i++
			continue
		}
		keep := 0
		if live {
			keep = w.matching(i, diag, length)
		}
		gain := minGain
		if w.recent.index(pos-i) >= 0 {
			gain = minGainRecent
		}
		if length < keep+gain {
			i++
			continue
		}
		start := w.close(last, diag, i, pos, live)
		last, diag, live = start, pos-i, true
		i += length
	}
	w.close(last, diag, n, -1, live)
}

// better returns the match to take at *i, moving *i forward where a longer one begins soon.
func (w *writer) better(m *matcher, i *int, diag int) (pos, length int) {
	pos, length = w.candidate(m, *i, diag)
	if length == 0 || length >= lazyLen {
		return pos, length
	}
	best := *i
	for j := *i + 1; j <= *i+lazyLook && j < len(w.target); j++ {
		if p, l := w.candidate(m, j, diag); l > length+(j-best) {
			pos, length, best = p, l, j
		}
	}
	*i = best
	return pos, length
}

// candidate is the longest match at target[i:], with recent diagonals preferred.
func (w *writer) candidate(m *matcher, i, diag int) (pos, length int) {
	pos, length = m.find(w.target[i:], i+diag)
	for _, d := range w.recent {
		if k := w.equal(i, d); k >= minGainRecent && k+minGainRecent > length {
			pos, length = i+d, k
		}
	}
	return pos, length
}

// equal is how many bytes from target[i] on equal the bases' on a diagonal.
func (w *writer) equal(i, diag int) int {
	b := i + diag
	if b < 0 || b >= len(w.base) {
		return 0
	}
	return commonPrefix(w.target[i:], w.base[b:])
}

// matching counts the bytes of target[i:i+n] that equal the bases' on a diagonal.
func (w *writer) matching(i, diag, n int) int {
	b := i + diag
	if b < 0 || b >= len(w.base) {
		return 0
	}
	n = min(n, len(w.base)-b)
	count := 0
	t, o := w.target[i:i+n], w.base[b:b+n]
	for k := range t {
		if t[k] == o[k] {
			count++
		}
	}
	return count
}

// close writes the copy that began at target[last:] and returns where the next one, which matches
// target[i:] at base position pos, shall begin. Both are extended towards each other as long as
// more than two thirds of the bytes match, and what both cover is cut where most match.
func (w *writer) close(last, diag, i, pos int, live bool) int {
	forward := 0
	if live {
		forward = w.extendForward(last, diag, i)
	}
	if pos < 0 {
		w.copyFrom(last, diag, forward)
		return i
	}
	back := w.extendBack(last, pos-i, i)
	if over := last + forward - (i - back); over > 0 {
		cut := w.cut(i-back, diag, pos-i, over)
		forward += cut - over
		back -= cut
	}
	if live {
		w.copyFrom(last, diag, forward)
	}
	return i - back
}

func (w *writer) extendForward(from, diag, to int) int {
	b := from + diag
	if b < 0 {
		return 0
	}
	score, best, length := 0, 0, 0
	for k := 0; from+k < to && b+k < len(w.base); k++ {
		if w.target[from+k] == w.base[b+k] {
			score++
		} else {
			score -= mismatchCost
		}
		if score > best {
			best, length = score, k+1
		}
	}
	return length
}

func (w *writer) extendBack(from, diag, to int) int {
	score, best, length := 0, 0, 0
	for k := 1; to-k >= from && to-k+diag >= 0; k++ {
		if w.target[to-k] == w.base[to-k+diag] {
			score++
		} else {
			score -= mismatchCost
		}
		if score > best {
			best, length = score, k
		}
		if score < best-64 {
			break
		}
	}
	return length
}

// cut returns how many of the n bytes at target[at:] the first of two diagonals shall keep.
func (w *writer) cut(at, first, second, n int) int {
	score, best, cut := 0, 0, 0
	for k := range n {
		c := w.target[at+k]
		if c == w.base[at+k+first] {
			score++
		}
		if c == w.base[at+k+second] {
			score--
		}
		if score > best {
			best, cut = score, k+1
		}
	}
	return cut
}

// commonPrefix is the number of leading bytes that a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	i := 0
	for ; i+8 <= n; i += 8 {
		x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:])
		if x != 0 {
			return i + bits.TrailingZeros64(x)>>3
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

func abs(x int) int {
	if x < 0 {
		return -x
	}
	return x
}
