package blobstore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Bounds of what is stored. Everything read back from disk is checked against
// them before memory is allocated for it.
const (
	MaxRecord    = 64 << 20 // plain bytes of a record, so also of a blob
	MaxGroup     = 1 << 16  // blobs of a record
	MaxDepth     = 16       // records that a chain of bases has below its last
	MaxBases     = 64 << 20 // bytes of the bases of a record
	MaxBaseBlobs = 1 << 12  // bases of a record
)

var (
	// ErrDamaged is returned for a blob or record whose stored bytes do not
	// decode to what its name says.
	ErrDamaged = errors.New("damaged")
	// ErrNotFound is returned for a blob that the store does not have.
	ErrNotFound = errors.New("blob not found")
	// ErrFormat is returned for a pack of a format this package does not know.
	ErrFormat = errors.New("unknown pack format")
)

// ID names a blob: the SHA-256 of its plain bytes.
type ID [sha256.Size]byte

// Sum is the ID of a blob with these bytes.
func Sum(plain []byte) ID { return sha256.Sum256(plain) }

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes the ID in hexadecimal.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("blob ID %q: not %d hexadecimal digits", text, 2*len(id))
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// Blob is a blob's name and plain bytes.
type Blob struct {
	ID   ID
	Data []byte
}

// Kind says what the blobs of a record are for. It tells apart what an index
// can be made from anew; readers do not need it.
type Kind uint8

const (
	Data    Kind = iota // content of files
	Tree                // the tree of a version, see package index
	Version             // the description of a version, see package index
)

func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Tree:
		return "tree"
	case Version:
		return "version"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Location is where a blob lies.
type Location struct {
	Pack   uint32 // number of the pack in the index
	Length uint32 // bytes of the blob
	Offset uint32 // of the blob in the plain bytes of its record
	Record int64  // offset of the record in the pack
}

// Locator finds blobs. It must be safe for concurrent use and never change.
type Locator interface {
	Locate(ID) (Location, bool)
}

// PackRef names a pack that an index refers to.
type PackRef struct {
	Number uint32 // never used again for another pack of the same index
	Name   string // file name without folder and suffix
	Size   int64  // bytes
}
