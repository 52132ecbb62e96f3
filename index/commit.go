package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"

	"gofs/blobstore"
)

var (
	// ErrExists is returned for a version whose name another tree has.
	ErrExists = errors.New("is in the store with other content")
	// ErrNoVersion is returned for a version that the store does not have.
	ErrNoVersion = errors.New("is not in the store")
)

// Writer is the right to write to a store. One process has it at a time.
type Writer struct {
	store *Store
	lock  *os.File
}

// Lock waits for the right to write.
func (s *Store) Lock(ctx context.Context, o LockOptions) (*Writer, error) {
	f, err := s.flock(ctx, o)
	if err != nil {
		return nil, err
	}
	w := &Writer{s, f}
	if err := w.heal(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// heal announces a commit whose process was killed before it could, and
// refuses a database that has lost one.
func (w *Writer) heal() error {
	text, terr := w.store.readAnnouncement()
	announced, gerr := announcedGeneration(text)
	var a *announcement
	err := w.store.view(func(tx *bolt.Tx) (err error) {
		if err = checkFormat(tx); err == nil {
			a, err = announcementOf(tx)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case gerr == nil && announced > a.generation:
		// bbolt falls back to the commit before the last where the last one's
		// meta page is damaged. What that does not know, gc would remove.
		return fmt.Errorf("generation %d was announced and %s has %d; if an older one was put there on purpose, remove %s: %w",
			announced, databaseFile, a.generation, w.store.GenerationFile(), ErrIndex)
	case terr != nil || text != a.text():
		return w.store.announce(a)
	}
	return nil
}

// Close gives the right back.
func (w *Writer) Close() error { return w.lock.Close() }

// Addition is a version to be added.
type Addition struct {
	Version Version // RootNode is set by the commit
	Tree    *Tree
}

// Change is what a commit does, all of it or nothing.
type Change struct {
	Packs  []blobstore.Pack // durable already; where a blob lay elsewhere it moves here
	Add    []Addition
	Remove []string // names of versions
	// Describe has versions described anew, as to what proved them. All that
	// says which files they have must be as it is.
	Describe []Version
	Drop     []uint32 // packs, with the blobs that still lie in them
}

// Commit makes the change durable and announces it. After an error the change
// may have been made all the same, if a disk failed in the midst of it; Discard
// takes that into account.
func (w *Writer) Commit(c Change) error {
	err := w.store.update(func(tx *bolt.Tx) error {
		if _, err := c.apply(tx); err != nil {
			return err
		}
		a, err := announcementOf(tx)
		if err != nil {
			return err
		}
		// Before the transaction is final, so that a full disk is found out.
		return w.store.prepare(a)
	})
	if err != nil {
		os.Remove(w.store.GenerationFile() + newSuffix)
		return fmt.Errorf("commit: %w", err)
	}
	if err := w.store.publish(); err != nil {
		return fmt.Errorf("the change is made, but mounts do not see it yet: %w", err)
	}
	// An import touches nearly all pages, whose former ones are free then: half
	// of the file. If that fails the change is made all the same, and the next
	// commit tries again.
	_ = w.store.compactDatabase()
	return nil
}

// Discard removes packs that were written for a commit that did not come to
// pass. Those that the index names stay.
func (w *Writer) Discard(packs []blobstore.Pack) error {
	refs, err := w.store.packRefs()
	if err != nil {
		return nil // they are garbage for gc, or not
	}
	named := map[string]bool{}
	for _, p := range refs {
		named[p.Name] = true
	}
	for _, p := range packs {
		if !named[p.Name] {
			err = errors.Join(err, blobstore.RemovePack(w.store.PackDir(), p.Name))
		}
	}
	return err
}

// apply makes the change in a transaction and returns the new generation.
func (c *Change) apply(tx *bolt.Tx) (uint64, error) {
	if err := checkFormat(tx); err != nil {
		return 0, err
	}
	if err := checkSums(tx, summed...); err != nil {
		return 0, err
	}
	generation, err := getNumber(tx, keyGeneration)
	if err != nil {
		return 0, err
	}
	generation++
	if err := c.putPacks(tx); err != nil {
		return 0, err
	}
	if err := c.dropPacks(tx); err != nil {
		return 0, err
	}
	for _, name := range c.Remove {
		if tx.Bucket(bucketVersions).Get([]byte(name)) == nil {
			return 0, fmt.Errorf("version %s %w", name, ErrNoVersion)
		}
		if err := errors.Join(tx.Bucket(bucketVersions).Delete([]byte(name)), tx.Bucket(bucketNodes).Delete([]byte(name))); err != nil {
			return 0, err
		}
	}
	for i := range c.Add {
		if err := addVersion(tx, &c.Add[i]); err != nil {
			return 0, err
		}
	}
	for i := range c.Describe {
		if err := describeVersion(tx, &c.Describe[i]); err != nil {
			return 0, err
		}
	}
	return generation, errors.Join(tx.Bucket(bucketMeta).Put(keyGeneration, encodeNumber(generation)), putSums(tx))
}

func (c *Change) putPacks(tx *bolt.Tx) error {
	next, err := getNumber(tx, keyPack)
	if err != nil {
		return err
	}
	blobs := tx.Bucket(bucketBlobs)
	for _, p := range c.Packs {
		if next >= 1<<32-1 {
			return errors.New("no pack numbers are left")
		}
		number := uint32(next)
		next++
		if err := tx.Bucket(bucketPacks).Put(be32(number), encodePack(blobstore.PackRef{Number: number, Name: p.Name, Size: p.Size})); err != nil {
			return err
		}
		for _, b := range sortedBlobs(p.Blobs) {
			loc := b.Location
			loc.Pack = number
			if err := blobs.Put(b.ID[:], encodeLocation(loc)); err != nil {
				return err
			}
		}
	}
	return tx.Bucket(bucketMeta).Put(keyPack, encodeNumber(next))
}

// sortedBlobs sorts by ID: bbolt keeps the keys of a transaction in one sorted
// array, and 10,000 random insertions move half of it each.
func sortedBlobs(blobs []blobstore.Placed) []blobstore.Placed {
	return slices.SortedStableFunc(slices.Values(blobs), func(a, b blobstore.Placed) int { return bytes.Compare(a.ID[:], b.ID[:]) })
}

func (c *Change) dropPacks(tx *bolt.Tx) error {
	if len(c.Drop) == 0 {
		return nil
	}
	drop := map[uint32]bool{}
	for _, n := range c.Drop {
		drop[n] = true
		if err := tx.Bucket(bucketPacks).Delete(be32(n)); err != nil {
			return err
		}
	}
	// A cursor must not be moved over keys that are deleted under it.
	var gone [][]byte
	err := tx.Bucket(bucketBlobs).ForEach(func(k, b []byte) error {
		loc, err := decodeLocation(b)
		if err == nil && drop[loc.Pack] {
			gone = append(gone, bytes.Clone(k))
		}
		return err
	})
	for _, k := range gone {
		err = errors.Join(err, tx.Bucket(bucketBlobs).Delete(k))
	}
	return err
}

func addVersion(tx *bolt.Tx, a *Addition) error {
	v := &a.Version
	for _, id := range a.needs() {
		if tx.Bucket(bucketBlobs).Get(id[:]) == nil {
			return fmt.Errorf("version %s: blob %s: %w", v.Name, id, blobstore.ErrNotFound)
		}
	}
	return putVersion(tx, a)
}

// putVersion adds a version whether or not all its blobs are there.
func putVersion(tx *bolt.Tx, a *Addition) error {
	v := &a.Version
	if err := CheckName(v.Name); err != nil {
		return err
	}
	if tx.Bucket(bucketVersions).Get([]byte(v.Name)) != nil {
		return fmt.Errorf("version %s %w", v.Name, ErrExists)
	}
	next, err := getNumber(tx, keyNode)
	if err != nil {
		return err
	}
	v.RootNode = next
	next += uint64(len(a.Tree.Folders))
	nodes, next, err := assignNodes(tx, a, next)
	if err != nil {
		return err
	}
	if next >= MaxNode {
		return errors.New("no inode numbers are left")
	}
	b, err := encodeVersion(v)
	if err != nil {
		return err
	}
	return errors.Join(
		tx.Bucket(bucketVersions).Put([]byte(v.Name), b),
		tx.Bucket(bucketNodes).Put([]byte(v.Name), encodeNodes(nodes)),
		tx.Bucket(bucketMeta).Put(keyNode, encodeNumber(next)))
}

func describeVersion(tx *bolt.Tx, v *Version) error {
	b := tx.Bucket(bucketVersions).Get([]byte(v.Name))
	if b == nil {
		return fmt.Errorf("version %s %w", v.Name, ErrNoVersion)
	}
	old, err := decodeVersion(v.Name, b)
	if err != nil {
		return err
	}
	if old.Tree != v.Tree || old.RootNode != v.RootNode || old.Time != v.Time {
		return fmt.Errorf("version %s %w", v.Name, ErrExists)
	}
	if b, err = encodeVersion(v); err != nil {
		return err
	}
	return tx.Bucket(bucketVersions).Put([]byte(v.Name), b)
}

// needs lists the blobs that the version cannot do without.
func (a *Addition) needs() []blobstore.ID {
	ids := []blobstore.ID{a.Version.Tree}
	for _, r := range a.Tree.AllBlobs() {
		ids = append(ids, r.ID)
	}
	return ids
}

// assignNodes finds the inode of each file and link by what it is, and takes
// new numbers from next on for those that no version had before.
func assignNodes(tx *bolt.Tx, a *Addition, next uint64) ([]Node, uint64, error) {
	files := tx.Bucket(bucketFiles)
	var nodes []Node
	fresh := map[[16]byte]Node{}
	for i := range a.Tree.Entries {
		e := &a.Tree.Entries[i]
		if e.Kind == Folder {
			continue
		}
		key := FileKey(a.Tree, e)
		n, ok := fresh[key]
		if !ok {
			var err error
			if n, ok, err = decodeNode(files.Get(key[:])); err != nil {
				return nil, 0, fmt.Errorf("inode of %s: %w", e.Name, err)
			}
		}
		if !ok {
			n = Node{Number: next, MTime: a.Version.Time}
			next++
			fresh[key] = n
		}
		nodes = append(nodes, n)
	}
	keys := slices.SortedFunc(maps.Keys(fresh), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, key := range keys {
		n := fresh[key]
		if err := files.Put(key[:], seal(binary.AppendVarint(binary.AppendUvarint(nil, n.Number), n.MTime))); err != nil {
			return nil, 0, err
		}
	}
	return nodes, next, nil
}

// decodeNode reads a value of the files bucket; nil is none.
func decodeNode(b []byte) (n Node, ok bool, err error) {
	if b == nil {
		return n, false, nil
	}
	b, err = unseal(b)
	d := numbers{b: b, err: err}
	n = Node{Number: d.upTo(MaxNode - 1), MTime: d.signed()}
	if d.err != nil || len(d.b) != 0 || n.Number < firstNode {
		return n, false, ErrIndex
	}
	return n, true, nil
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
