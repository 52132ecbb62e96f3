// Package index knows which releases a store has: their trees, where each
// blob lies, and the inode numbers that mounts show.
//
// # A store
//
// A store is a folder:
//
//	format       "gofs store 1\n": the format number of all that follows
//	index.db     the bbolt database described below
//	generation   what the last commit has announced, see below: what mounts watch
//	lock         locked (flock) by the one process that writes; holds its id and verb
//	packs/       the pack files of package blobstore
//
// bbolt is held for moments only: a read-write open shuts out every other
// process and a read-only one shuts out writers. Readers take a [Snapshot]
// and let go. Writers take the lock file for as long as they work, write
// their packs, and open the database for the one transaction that publishes
// them. What a crash leaves behind before that transaction is packs that no
// index names, which gc removes.
//
// # The generation file
//
// It has a line for each of
//
//	the generation of the last commit, in decimal
//	"node " and the next inode number
//	"pack " and the next pack number
//	"version ", name, and the ID of the version record, for each version by name
//	"sum " and the CRC-32C of all before it, in eight hexadecimal digits
//
// and is renamed into place after each commit. It is not synced; whoever takes
// the lock writes it again where it does not say what the database does.
//
// # If the database is lost
//
// The packs have the trees and the version records, and by their heads where
// each blob lies. The generation file has what they do not say: which
// versions had not been removed, and where numbers go on. [Store.Rebuild]
// makes the database anew out of both. Inode and pack numbers go on behind all
// that were ever given out, so whatever a kernel or a mount remembers by number
// stays true: mounts see all versions replaced by new ones. A version of a
// later commit than the one announced last is taken to be there. Where the
// generation file is lost as well, removed versions come back, as far as gc has
// left them, and numbers begin with the time.
//
// # The database, format 1
//
//	meta      sealed uint64 (big endian): "format", "generation", "node" (the
//	          next inode number), "pack" (the next pack number), and for each
//	          other bucket "sum of NAME": in the upper half its number of keys,
//	          in the lower the CRC-32C of its keys and values in order
//	packs     uint32 number (big endian) -> sealed: uvarint size, name
//	blobs     blob ID -> uvarint pack, record offset, offset in the record, length
//	files     16 bytes of SHA-256 of what a file is (see FileKey) ->
//	          sealed: uvarint inode number, varint mtime in seconds
//	versions  name -> sealed JSON of Version
//	nodes     name -> sealed inode numbers of the version's files (see below)
//
// A sealed value ends in the CRC-32C of what is before it. Blob locations are
// not sealed since the blob's name checks what is found there.
//
// The nodes of a version are uvarint number of times, that many varint mtimes
// in Unix seconds, and then for each entry of the tree that is no folder
// varint difference to the inode number before it and uvarint index of its
// mtime. A folder's inode number is Version.RootNode plus its index in the
// tree, so folders are never shared.
//
// Files with the same bytes and mode are one inode in all versions, so that
// the kernel caches them once, and their mtime is that of the release that
// brought them first. An inode number is never used again for other bytes.
//
// # Trees, format 1
//
// A tree lists the files of a version. It is stored as a blob, and its ID is
// the tree hash of the version: equal trees (names, modes, bytes) have equal
// hashes on every machine. Numbers are unsigned varints unless said otherwise:
//
//	"gofstree", byte 1
//	mode of the root folder; numbers of folders, of entries and of blobs
//	for each folder, the root first, then its folders in order, each followed
//	by the folders in it:
//	  number of entries, and for each, sorted by the bytes of its name:
//	    byte kind (0 file, 1 folder, 2 symbolic link), mode, length of name, name
//	    file: size, number n of blobs, and for n > 1 the length of each
//	    symbolic link: length of target, target
//	the IDs of all files' blobs in the order of the entries, 32 bytes each
//
// # Version records
//
// The JSON of each version, without the root node, is also stored as a blob
// of kind version beside its tree. A version that is described anew gets
// another record; that its commit announced is the one that counts.
package index
