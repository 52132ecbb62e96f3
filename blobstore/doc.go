// Package blobstore keeps content-addressed blobs in immutable pack files.
//
// A blob is named by the SHA-256 of its plain bytes, always. How it is stored
// is this package's private matter: nothing outside it sees compressed bytes,
// and re-encoding a blob changes no name. Every blob is checked against its
// name when it is decoded; one that does not match is [ErrDamaged], never
// wrong bytes.
//
// # Records and groups
//
// Blobs are encoded in groups. A group is a run of small blobs that belong
// together (the files of a package folder, as they come in the archive), or
// one large blob (a chunk of a program), or all chunks of one program. Its plain
// bytes are the concatenation of its blobs, and they are compressed as one: Go sources of
// 1.23.3 take a fifth less room in groups of 256 KiB than file by file, and a
// reader that asks for one file of a package gets its neighbours, which it
// wants next, for the same decoding.
//
// # Pack format 1
//
// All integers are little endian. A pack is
//
//	header   "gofspack", uint32 format (1), uint32 zero
//	records  one after the other, without padding
//	trailer  "gofsend.", uint64 number of records, uint64 length of the pack
//	         with the trailer
//
// and a record is
//
//	 0  "GOFR"
//	 4  uint8   encoding, see below
//	 5  uint8   kind: 0 data, 1 tree, 2 version
//	 6  uint8   depth: 0 without bases, at most MaxDepth
//	 7  uint8   effort: 0 as an import writes, 1 to 3 that of the compaction, 4 for
//	            what is meant to be read quickly and so is left as it is
//	 8  uint32  plain length, at most MaxRecord
//	12  uint32  stored length, at most the plain length
//	16  uint32  number of blobs n, 1 to MaxGroup
//	20  uint32  number of bases m, at most 4096; 0 unless the encoding is 2, 4 or 5
//	24  uint32  CRC-32C of the stored bytes
//	28  uint32  CRC-32C of bytes 0 to 27 and the tables
//	32  n times: 32 bytes blob ID, uint32 blob length
//	..  m times: 32 bytes ID of a base
//	..  uint32 length of the filtered program, for encodings 3 and 4 only
//	..  the stored bytes
//
// # Encodings
//
//	0  raw: the plain bytes
//	1  zstd: a frame of the plain bytes
//	2  zstd with dictionary: a frame made with a raw dictionary, which has the
//	   dictionary ID 1 and is the bases' plain bytes one after the other
//	3  program: a frame of the filtered program
//	4  program, delta: a patch that makes the filtered program out of the filtered
//	   programs of the bases
//	5  delta: a patch that makes the plain bytes out of the bases' plain bytes, one
//	   after the other as one base
//
// Frames are those of RFC 8878 with a window of at most MaxRecord. Patches are
// those of package delta (internal/delta/doc.go has the format). A filtered
// program is what package goprog makes of a Go program (internal/goprog/doc.go):
// equal functions have equal bytes in it wherever they lie.
//
// A base is a blob that must be decoded first; together they have MaxBases bytes
// at most, filtered ones for encoding 4. The depth of a record is more than
// that of every record that one of its bases lies in. A reader refuses what
// breaks this rule, so no chain of bases is longer than MaxDepth and none is a
// loop.
//
// For encoding 4 each base must be the first blob of a record with encoding 3 or
// 4. A chain of programs is decoded filtered, and only the last one has the
// filter undone: nothing but the plain bytes of the blobs that are read is
// checked, since a wrong base makes these wrong too.
//
// The blob lengths of a record add up to its plain length. In records with
// encoding 3 and 4 that have more than one blob, the first is all plain bytes, by
// which others name the program as base, and only the rest add up to them: the
// chunks that it was imported as, so that compaction changes no tree. A chunk may
// lie in the programs of several releases.
//
// The filtered program, in which compressed sections are inflated, is at most
// two and a half times as long as the plain one and 4096 bytes, and at most MaxRecord.
//
// The file name of a
// pack is the SHA-256 over its record headers and tables (everything but the
// stored bytes, which the headers cover by their CRC) in hexadecimal, with
// the suffix ".pack".
//
// A tree record holds the tree of a version and a version record its
// description; both are defined in package index. With them the packs alone
// are enough to make the index anew.
//
// A pack is written to an unnamed file, synced, and only then linked under
// its name; it never changes afterwards. A pack that no index names is
// garbage of an interrupted import or compaction.
package blobstore
