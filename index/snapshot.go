package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"sort"

	bolt "go.etcd.io/bbolt"

	"gofs/blobstore"
)

// Snapshot is what a store held at one generation. It never changes and holds
// nothing open.
//
// Safe for concurrent use.
type Snapshot struct {
	Generation uint64
	Versions   []Version // by CompareNames
	Packs      []blobstore.PackRef

	store *Store
	blobs []placedBlob // by ID
	nodes map[string][]byte
}

type placedBlob struct {
	id  blobstore.ID
	loc blobstore.Location
}

// Versions lists the versions in the store, by CompareNames. It reads only
// them and so is quicker than a Snapshot.
func (s *Store) Versions() (list []Version, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		if err := checkSums(tx, bucketVersions); err != nil {
			return err
		}
		list, err = readVersions(tx)
		return err
	})
	return list, err
}

// Snapshot reads the index.
func (s *Store) Snapshot() (*Snapshot, error) {
	snap := &Snapshot{store: s, nodes: map[string][]byte{}}
	err := s.view(func(tx *bolt.Tx) (err error) { return snap.read(tx) })
	if err != nil {
		return nil, err
	}
	return snap, nil
}

// OpenView reads the index and opens the packs that it names, so that they
// stay readable whatever gc does. The caller closes the view.
func (s *Store) OpenView(cache *blobstore.Cache) (*Snapshot, *blobstore.View, error) {
	for try := 0; ; try++ {
		snap, err := s.Snapshot()
		if err != nil {
			return nil, nil, err
		}
		v, err := blobstore.OpenView(s.PackDir(), snap.Packs, snap, cache)
		if err != nil {
			return nil, nil, err
		}
		if !missing(v) || try == 5 {
			return snap, v, nil
		}
		// Either a gc has removed packs since the index was read, then the
		// next reading names others, or they are really lost.
		again, err := s.Snapshot()
		if err == nil && again.Generation == snap.Generation {
			return snap, v, nil
		}
		v.Close()
		if err != nil {
			return nil, nil, err
		}
	}
}

func missing(v *blobstore.View) bool {
	for _, err := range v.Broken() {
		if errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

func checkFormat(tx *bolt.Tx) error {
	for _, b := range buckets {
		if tx.Bucket(b) == nil {
			return fmt.Errorf("no bucket %s: %w", b, ErrIndex)
		}
	}
	n, err := getNumber(tx, keyFormat)
	if err != nil {
		return err
	}
	if n > Format {
		return fmt.Errorf("the index has format %d, this gofs knows up to %d: %w", n, Format, ErrNewer)
	}
	return nil
}

// getNumber reads a number of the meta bucket.
func getNumber(tx *bolt.Tx, key []byte) (uint64, error) {
	b, err := unseal(tx.Bucket(bucketMeta).Get(key))
	if err != nil || len(b) != 8 {
		return 0, fmt.Errorf("meta %s: %w", key, ErrIndex)
	}
	return binary.BigEndian.Uint64(b), nil
}

// summed are the buckets whose content the meta bucket has the sum of. Their
// keys and most of their values would be taken for others, or be missed, if
// the database is damaged; gc would then remove what is in use.
var summed = [][]byte{bucketPacks, bucketBlobs, bucketFiles, bucketVersions, bucketNodes}

func sumKey(bucket []byte) []byte { return append([]byte("sum of "), bucket...) }

// sum is the number of pairs of a bucket and the CRC-32C of them all.
func sum(b *bolt.Bucket) uint64 {
	n, crc := uint64(0), uint32(0)
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		crc = crc32.Update(crc32.Update(crc, castagnoli, k), castagnoli, v)
		n++
	}
	return n<<32 | uint64(crc)
}

func putSums(tx *bolt.Tx) (err error) {
	for _, b := range summed {
		err = errors.Join(err, tx.Bucket(bucketMeta).Put(sumKey(b), encodeNumber(sum(tx.Bucket(b)))))
	}
	return err
}

func checkSums(tx *bolt.Tx, buckets ...[]byte) error {
	for _, b := range buckets {
		want, err := getNumber(tx, sumKey(b))
		if err != nil {
			return err
		}
		if sum(tx.Bucket(b)) != want {
			return fmt.Errorf("%s: %w", b, ErrIndex)
		}
	}
	return nil
}

func encodeNumber(n uint64) []byte { return seal(binary.BigEndian.AppendUint64(nil, n)) }

func readVersions(tx *bolt.Tx) ([]Version, error) {
	var list []Version
	err := tx.Bucket(bucketVersions).ForEach(func(k, b []byte) error {
		v, err := decodeVersion(string(k), b)
		list = append(list, v)
		return err
	})
	slices.SortFunc(list, func(a, b Version) int { return CompareNames(a.Name, b.Name) })
	return list, err
}

func (snap *Snapshot) read(tx *bolt.Tx) error {
	err := checkFormat(tx)
	if err == nil {
		err = checkSums(tx, bucketVersions, bucketPacks, bucketBlobs, bucketNodes)
	}
	if err == nil {
		snap.Generation, err = getNumber(tx, keyGeneration)
	}
	if err == nil {
		snap.Versions, err = readVersions(tx)
	}
	if err == nil {
		snap.Packs, err = readPacks(tx)
	}
	if err != nil {
		return err
	}
	known := map[uint32]bool{}
	for _, p := range snap.Packs {
		known[p.Number] = true
	}
	c := tx.Bucket(bucketBlobs).Cursor()
	for k, b := c.First(); k != nil; k, b = c.Next() {
		if len(k) != len(blobstore.ID{}) {
			return fmt.Errorf("blob key of %d bytes: %w", len(k), ErrIndex)
		}
		loc, err := decodeLocation(b)
		if err != nil || !known[loc.Pack] {
			return fmt.Errorf("blob %x: %w", k, ErrIndex)
		}
		snap.blobs = append(snap.blobs, placedBlob{blobstore.ID(k), loc})
	}
	return tx.Bucket(bucketNodes).ForEach(func(k, b []byte) error {
		snap.nodes[string(k)] = bytes.Clone(b)
		return nil
	})
}

func readPacks(tx *bolt.Tx) ([]blobstore.PackRef, error) {
	var list []blobstore.PackRef
	err := tx.Bucket(bucketPacks).ForEach(func(k, b []byte) error {
		p, err := decodePack(k, b)
		list = append(list, p)
		return err
	})
	return list, err
}

func encodePack(p blobstore.PackRef) []byte {
	return seal(append(binary.AppendUvarint(nil, uint64(p.Size)), p.Name...))
}

func decodePack(k, b []byte) (blobstore.PackRef, error) {
	b, err := unseal(b)
	if err != nil || len(k) != 4 {
		return blobstore.PackRef{}, fmt.Errorf("pack %x: %w", k, ErrIndex)
	}
	size, n := binary.Uvarint(b)
	var id blobstore.ID // a pack is named like a blob
	if n <= 0 || int64(size) < 0 || id.UnmarshalText(b[n:]) != nil {
		return blobstore.PackRef{}, fmt.Errorf("pack %x: %w", k, ErrIndex)
	}
	return blobstore.PackRef{Number: binary.BigEndian.Uint32(k), Name: id.String(), Size: int64(size)}, nil
}

func encodeLocation(l blobstore.Location) []byte {
	b := binary.AppendUvarint(nil, uint64(l.Pack))
	b = binary.AppendUvarint(b, uint64(l.Record))
	b = binary.AppendUvarint(b, uint64(l.Offset))
	return binary.AppendUvarint(b, uint64(l.Length))
}

func decodeLocation(b []byte) (blobstore.Location, error) {
	d := numbers{b: b}
	l := blobstore.Location{
		Pack:   uint32(d.upTo(1<<32 - 1)),
		Record: int64(d.upTo(1<<63 - 1)),
		Offset: uint32(d.upTo(blobstore.MaxRecord)),
		Length: uint32(d.upTo(blobstore.MaxRecord)),
	}
	if d.err != nil || len(d.b) != 0 {
		return l, ErrIndex
	}
	return l, nil
}

// Locate finds a blob.
func (snap *Snapshot) Locate(id blobstore.ID) (blobstore.Location, bool) {
	i := sort.Search(len(snap.blobs), func(i int) bool { return bytes.Compare(snap.blobs[i].id[:], id[:]) >= 0 })
	if i == len(snap.blobs) || snap.blobs[i].id != id {
		return blobstore.Location{}, false
	}
	return snap.blobs[i].loc, true
}

// Blobs is the number of blobs in the index.
func (snap *Snapshot) Blobs() int { return len(snap.blobs) }

// EachBlob calls fn for every blob in the index, sorted by ID.
func (snap *Snapshot) EachBlob(fn func(blobstore.ID, blobstore.Location)) {
	for _, b := range snap.blobs {
		fn(b.id, b.loc)
	}
}

// HasAll says whether every blob of another snapshot is in the index.
func (snap *Snapshot) HasAll(other *Snapshot) bool {
	rest := snap.blobs
	for _, b := range other.blobs {
		i := 0
		for i < len(rest) && bytes.Compare(rest[i].id[:], b.id[:]) < 0 {
			i++
		}
		if rest = rest[i:]; len(rest) == 0 || rest[0].id != b.id {
			return false
		}
	}
	return true
}

// Find returns the version that a name or an alias means.
func (snap *Snapshot) Find(name string) (*Version, bool) { return Resolve(snap.Versions, name) }

// Tree reads the tree of a version.
func (snap *Snapshot) Tree(ctx context.Context, view *blobstore.View, v *Version) (*Tree, error) {
	b, err := view.Blob(ctx, v.Tree)
	if err == nil {
		var t *Tree
		if t, err = DecodeTree(b); err == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("tree of %s: %w", v.Name, err)
}

// Nodes returns the inodes of a version's entries in the order of the tree;
// the nodes of folders have the number Version.RootNode plus their index and
// the version's time.
func (snap *Snapshot) Nodes(v *Version, t *Tree) ([]Node, error) {
	b, ok := snap.nodes[v.Name]
	if !ok || v.RootNode > MaxNode-uint64(len(t.Folders)) {
		return nil, fmt.Errorf("inodes of %s: %w", v.Name, ErrIndex)
	}
	files, err := decodeNodes(b, len(t.Entries)-len(t.Folders)+1)
	if err != nil {
		return nil, fmt.Errorf("inodes of %s: %w", v.Name, err)
	}
	nodes := make([]Node, len(t.Entries))
	for i := range t.Entries {
		if e := &t.Entries[i]; e.Kind == Folder {
			nodes[i] = Node{v.RootNode + uint64(e.Folder), v.Time}
		} else {
			nodes[i], files = files[0], files[1:]
		}
	}
	return nodes, nil
}
