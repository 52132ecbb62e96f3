package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

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

// heal announces a commit whose process was killed before it could.
func (w *Writer) heal() error {
	announced, gerr := w.store.Generation()
	var committed uint64
	err := w.store.view(func(tx *bolt.Tx) (err error) {
		if err = checkFormat(tx); err == nil {
			committed, err = getNumber(tx, keyGeneration)
		}
		return err
	})
	if err == nil && (gerr != nil || announced != committed) {
		err = w.store.writeGeneration(committed)
	}
	return err
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
	Drop   []uint32 // packs, with the blobs that still lie in them
}

// Commit makes the change durable and announces it.
func (w *Writer) Commit(c Change) error {
	var generation uint64
	err := w.store.update(func(tx *bolt.Tx) (err error) {
		if err := checkFormat(tx); err != nil {
			return err
		}
		if generation, err = getNumber(tx, keyGeneration); err != nil {
			return err
		}
		generation++
		if err := c.putPacks(tx); err != nil {
			return err
		}
		if err := c.dropPacks(tx); err != nil {
			return err
		}
		for _, name := range c.Remove {
			if tx.Bucket(bucketVersions).Get([]byte(name)) == nil {
				return fmt.Errorf("version %s %w", name, ErrNoVersion)
			}
			if err := errors.Join(tx.Bucket(bucketVersions).Delete([]byte(name)), tx.Bucket(bucketNodes).Delete([]byte(name))); err != nil {
				return err
			}
		}
		for i := range c.Add {
			if err := addVersion(tx, &c.Add[i]); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyGeneration, encodeNumber(generation))
	})
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return w.store.writeGeneration(generation)
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
		for _, b := range p.Blobs {
			loc := b.Location
			loc.Pack = number
			if err := blobs.Put(b.ID[:], encodeLocation(loc)); err != nil {
				return err
			}
		}
	}
	return tx.Bucket(bucketMeta).Put(keyPack, encodeNumber(next))
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
	if err := CheckName(v.Name); err != nil {
		return err
	}
	if tx.Bucket(bucketVersions).Get([]byte(v.Name)) != nil {
		return fmt.Errorf("version %s %w", v.Name, ErrExists)
	}
	for _, id := range a.needs() {
		if tx.Bucket(bucketBlobs).Get(id[:]) == nil {
			return fmt.Errorf("version %s: blob %s: %w", v.Name, id, blobstore.ErrNotFound)
		}
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
	for i := range a.Tree.Entries {
		e := &a.Tree.Entries[i]
		if e.Kind == Folder {
			continue
		}
		key := FileKey(a.Tree, e)
		if b := files.Get(key[:]); b != nil {
			b, err := unseal(b)
			d := numbers{b: b, err: err}
			n := Node{Number: d.upTo(MaxNode - 1), MTime: d.signed()}
			if d.err != nil || n.Number < firstNode {
				return nil, 0, fmt.Errorf("inode of %s: %w", e.Name, ErrIndex)
			}
			nodes = append(nodes, n)
			continue
		}
		n := Node{Number: next, MTime: a.Version.Time}
		next++
		if err := files.Put(key[:], seal(binary.AppendVarint(binary.AppendUvarint(nil, n.Number), n.MTime))); err != nil {
			return nil, 0, err
		}
		nodes = append(nodes, n)
	}
	return nodes, next, nil
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
