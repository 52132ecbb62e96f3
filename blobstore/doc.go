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
// one large blob (a chunk of a program). Its plain bytes are the
// concatenation of its blobs, and they are compressed as one: Go sources of
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
//	 4  uint8   encoding: 0 raw, 1 zstd, 2 zstd with a raw dictionary
//	 5  uint8   kind: 0 data, 1 tree, 2 version
//	 6  uint16  depth: 0 without bases, at most MaxDepth
//	 8  uint32  plain length, at most MaxRecord
//	12  uint32  stored length, at most the plain length
//	16  uint32  number of blobs n, 1 to MaxGroup
//	20  uint32  number of bases m, 0 unless the encoding is 2
//	24  uint32  CRC-32C of the stored bytes
//	28  uint32  CRC-32C of bytes 0 to 27 and the tables
//	32  n times: 32 bytes blob ID, uint32 blob length
//	..  m times: 32 bytes ID of a base
//	..  the stored bytes
//
// A base is a blob that must be decoded first: the dictionary of encoding 2
// is the bases' plain bytes one after the other, MaxBases at most. The depth
// of a record is more than that of every record that one of its bases lies
// in. A reader refuses what breaks this rule, so no chain of bases is longer
// than MaxDepth and none is a loop.
//
// The blob lengths of a record add up to its plain length. The file name of a
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
// garbage of an interrupted import.
package blobstore
