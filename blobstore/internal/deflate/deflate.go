// Package deflate makes the zlib streams (RFC 1950, 1951) that Go's linker has put into programs, bit
// for bit: what compress/zlib writes at BestSpeed, in the releases with such programs and up to Go 1.26.
//
// It is not for compressing. Records of the store hold such sections inflated, and are read only as long
// as deflating gives the same bytes again; compress/flate promises no such thing from one Go to the next.
// So nothing that this package writes may ever change. Its tests have hashes of that.
//
// # The stream
//
// The bytes are cut into blocks of 65535. The last, if it has at most 16 bytes, is stored; if less than
// 128, it has no matches. An empty stored block with the final bit ends the stream, then comes the
// Adler-32.
//
// Matches are looked for through a table with 1<<14 places, by a hash of 4 bytes, that hold the last
// position each. It knows all blocks before, but no match crosses the end of a block or begins in its last
// 15 bytes. Where nothing is found, the position moves on by one, after 32 failures by two, after 16
// more of these by three, and so on, until there is a match. Behind a match the position before its end
// enters the table, and the end itself is looked up at once.
//
// If literals and matches together are more than 15/16 of the bytes, the block has no matches. Its codes
// are always dynamic, of at most 15 bits, made by package-merge; the extra bits are forgotten when
// its size is reckoned, and it is stored if that takes less than 17/16 of this size.
package deflate

import (
	"encoding/binary"
	"hash/adler32"
	"math/bits"
)

const (
	blockSize = 65535
	window    = 1 << 15
	maxMatch  = 258
	minMatch  = 4  // that is looked for
	shortest  = 3  // that the format has
	margin    = 15 // bytes at the end of a block that nothing is looked up in

	storedMost = 16  // bytes of a last block that is stored
	plainMost  = 127 // and of one that has no matches

	hashBits = 14
	hashMul  = 0x1e35a7bd
)

// Encoder has the memory for encoding, some 250 KB. The zero value is ready.
type Encoder struct {
	table   [1 << hashBits]uint32 // position + 1 + window; 0 is far from everything
	matches []match
	out     bitWriter
	codes   blockCodes
}

// match is a run of literals and the match behind it.
type match struct {
	literals uint32
	length   uint16 // less shortest
	distance uint16 // less 1
}

// Fill fills dst with the stream of plain, of less than 2 GB, and reports whether it has just that length. It
// stops where there is no room.
func (e *Encoder) Fill(dst, plain []byte) bool {
	clear(e.table[:])
	e.out = bitWriter{dst: dst}
	e.out.bytes([]byte{0x78, 0x01})
	for from := 0; from < len(plain) && !e.out.full; from += blockSize {
		e.block(plain, from, min(from+blockSize, len(plain)))
	}
	if e.out.full {
		return false
	}
	e.out.stored(nil, true)
	e.out.bytes(binary.BigEndian.AppendUint32(nil, adler32.Checksum(plain)))
	return !e.out.full && e.out.n == len(dst)
}

// block writes plain[from:to].
func (e *Encoder) block(plain []byte, from, to int) {
	e.matches = e.matches[:0]
	b, n := plain[from:to], to-from
	if n <= storedMost {
		e.out.stored(b, false)
		return
	}
	if n > plainMost {
		e.findMatches(plain, from, to)
		tokens := n + len(e.matches)
		for _, m := range e.matches {
			tokens -= int(m.length) + shortest
		}
		if tokens > n-n/16 {
			e.matches = e.matches[:0]
		}
	}
	c := &e.codes
	c.count(b, e.matches)
	size := c.build()
	if (n+5)*8 < size+size/16 {
		e.out.stored(b, false)
		return
	}
	c.writeHeader(&e.out)
	c.writeBody(&e.out, b, e.matches)
}

// findMatches notes the matches of plain[from:to].
func (e *Encoder) findMatches(plain []byte, from, to int) {
	last := to - margin
	done, next := from, from // what lies behind is in no match yet, and was not looked up
	for {
		at, earlier := e.search(plain, next, last)
		if earlier < 0 {
			return
		}
		for earlier >= 0 {
			n := matchLen(plain, earlier, at, min(to, at+maxMatch))
			e.matches = append(e.matches, match{uint32(at - done), uint16(n - shortest), uint16(at - earlier - 1)})
			at += n
			if done = at; at >= last {
				return
			}
			e.enter(plain, at-1)
			earlier = e.enter(plain, at)
		}
		next = at + 1
	}
}

// search looks for the next match and returns where it begins and what it repeats; that is -1 where there
// is none.
func (e *Encoder) search(plain []byte, at, last int) (_, earlier int) {
	const patience = 32 // failures until the steps become longer
	for tried := patience; ; {
		step := tried / patience
		if at+step > last {
			return at, -1
		}
		if earlier := e.enter(plain, at); earlier >= 0 {
			return at, earlier
		}
		at += step
		tried += step
	}
}

// enter enters a position into the table and returns the one that it replaces, if that has the same 4
// bytes and is near; else -1.
func (e *Encoder) enter(plain []byte, at int) int {
	word := binary.LittleEndian.Uint32(plain[at:])
	place := &e.table[word*hashMul>>(32-hashBits)]
	earlier := int(*place) - window - 1
	*place = uint32(at + window + 1)
	if at-earlier > window || binary.LittleEndian.Uint32(plain[earlier:]) != word {
		return -1
	}
	return earlier
}

// matchLen returns how many bytes from a and from b on are the same, those from b before end.
func matchLen(plain []byte, a, b, end int) int {
	n := minMatch
	for b+n+8 <= end {
		x := binary.LittleEndian.Uint64(plain[a+n:]) ^ binary.LittleEndian.Uint64(plain[b+n:])
		if x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for b+n < end && plain[a+n] == plain[b+n] {
		n++
	}
	return n
}
