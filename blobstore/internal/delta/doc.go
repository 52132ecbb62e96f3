// Package delta writes a byte slice as copies from other byte slices, its bases, and what is left.
//
// It is made for programs of neighbouring releases: most of the target lies in a base in the same
// order, changed at single bytes. As in bsdiff (Colin Percival, "Naive differences of executable
// code", 2003), a copy therefore tolerates bytes that differ, which are kept apart as differences.
// Unlike bsdiff, differences are listed with the gaps between them instead of being written as a
// stream as long as the copy, so decoding a copy is one memory move and a few additions.
//
// # Format
//
// The bases are taken as one slice, in the order given. All integers are unsigned LEB128 varints.
//
//	patch  = version plain bases stream*6
//	version  one byte, 1
//	plain    length of the target
//	bases    length of all bases together
//	stream = length packed bytes
//	length   of the stream's plain bytes, at most plain+16; those of all, at most 2*plain+96
//	packed   length of bytes*2; its lowest bit is set where bytes are a zstd frame
//
// The six streams hold, in this order,
//
//	0  for every copy, how many literals precede it
//	1  for every copy, its length; at least 1
//	2  for every copy, where it comes from (below)
//	3  the gaps: bytes copied unchanged before each difference, counted across all copies
//	4  the differences: target byte minus base byte, modulo 256, one for every gap
//	5  the literals; those that remain after the last copy end the target
//
// A copy's diagonal is its position in the bases minus its position in the target. A list of the
// four diagonals used last, newest first and all 0 at the start, is kept by both sides. A value v
// of stream 2 below 4 means the v-th of the list. Otherwise the diagonal is the newest one plus
// z, where v-4 is z in zigzag coding (0, -1, 1, -2, ...). The diagonal then moves to the front
// of the list; where it was not in the list the last one drops out.
package delta
