package blobstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"
)

// View reads blobs out of a fixed set of packs. It holds their files open, so
// that a pack which gc removes stays readable until the view is closed.
//
// Safe for concurrent use.
type View struct {
	loc   Locator
	packs map[uint32]*openPack
	cache *Cache
	dec   *zstd.Decoder
	slots chan struct{}       // one for each decoding under way
	room  *semaphore.Weighted // bytes that chains under way may decode at once
}

type openPack struct {
	ref   PackRef
	f     *os.File
	views *atomic.Int32 // that have f open
	err   error         // why it could not be opened
}

// OpenView opens the packs of dir that refs name. A pack that is missing or of
// another size than refs says is reported by the reads that need it, so that
// the rest stays readable; [View.Broken] lists them.
func OpenView(dir string, refs []PackRef, loc Locator, cache *Cache) (*View, error) {
	dec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	v := &View{
		loc: loc, cache: cache, dec: dec,
		packs: make(map[uint32]*openPack, len(refs)),
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
		room:  semaphore.NewWeighted(maxRoom),
	}
	for _, ref := range refs {
		p := &openPack{ref: ref, views: new(atomic.Int32)}
		p.views.Store(1)
		p.f, p.err = openPackFile(dir, ref)
		if isShortage(p.err) {
			v.Close()
			return nil, p.err
		}
		v.packs[ref.Number] = p
	}
	return v, nil
}

// isShortage tells an error of this process (too many open files, no memory)
// from one of the pack.
func isShortage(err error) bool {
	return err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) &&
		!errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission)
}

func openPackFile(dir string, ref PackRef) (*os.File, error) {
	f, err := openPackAt(dir, ref.Name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("pack %s is missing: %w: %w", ref.Name, fs.ErrNotExist, ErrDamaged)
		}
		return nil, err
	}
	if err := checkPack(f, ref); err != nil {
		f.Close()
		return nil, fmt.Errorf("pack %s: %w", ref.Name, err)
	}
	return f, nil
}

func checkPack(f *os.File, ref PackRef) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != ref.Size {
		return fmt.Errorf("%d bytes instead of %d: %w", st.Size(), ref.Size, ErrDamaged)
	}
	var b [packHeader]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return readError(err)
	}
	return checkPackHeader(b[:])
}

// Broken lists the packs that cannot be read and why.
func (v *View) Broken() map[string]error {
	var broken map[string]error
	for _, p := range v.packs {
		if p.err != nil {
			if broken == nil {
				broken = map[string]error{}
			}
			broken[p.ref.Name] = p.err
		}
	}
	return broken
}

// Has says whether a blob lies in a pack that can be read.
func (v *View) Has(id ID) bool {
	loc, ok := v.loc.Locate(id)
	p := v.packs[loc.Pack]
	return ok && p != nil && p.err == nil
}

// Share has v read from the files that another view of the store has open,
// where they are the same, so that views of many generations have each pack
// open once. Nobody may read from v yet, nor close the other view meanwhile.
func (v *View) Share(other *View) {
	byName := make(map[string]*openPack, len(other.packs))
	for _, p := range other.packs {
		byName[p.ref.Name] = p
	}
	for _, p := range v.packs {
		// A pack that was mended has the name of the damaged one.
		if o := byName[p.ref.Name]; o != nil && sameFile(p.f, o.f) {
			p.f.Close()
			o.views.Add(1)
			p.f, p.views = o.f, o.views
		}
	}
}

func sameFile(a, b *os.File) bool {
	if a == nil || b == nil {
		return false
	}
	sa, erra := a.Stat()
	sb, errb := b.Stat()
	return erra == nil && errb == nil && os.SameFile(sa, sb)
}

// Close closes the packs that no other view shares. Reads under way fail with
// os.ErrClosed.
func (v *View) Close() {
	for _, p := range v.packs {
		if p.f != nil && p.views.Add(-1) == 0 {
			p.f.Close()
		}
	}
}

// Decoded is the plain bytes of a record. They are shared: nobody may write
// to them, nor look at them after the Release.
type Decoded struct {
	Plain []byte
	Blobs []Member
	depth int
	whole bool            // the first blob is all bytes, the others are its parts
	sound []atomic.Uint32 // what is known of each blob

	refs    atomic.Int32 // who may look at Plain
	room    []byte       // that Plain lies in; nil: it is the garbage collector's
	buffers buffers      // where the room goes back to
}

// Release says that the caller does not look at the bytes any more, so that
// their memory can serve again. Who got a Decoded owes one Release: memory
// that it was forgotten for serves nobody until the cache is gone.
func (d *Decoded) Release() {
	if d.refs.Add(-1) == 0 && d.room != nil {
		d.Plain = nil // who looks all the same must not find another record
		d.buffers.put(d.room)
		d.room = nil
	}
}

// What is known of a blob in a decoded record.
const (
	unchecked = iota
	isSound
	isBad
)

// Member is a blob of a decoded record.
type Member struct {
	ID     ID
	Offset uint32 // in the plain bytes
	Length uint32
}

// Sound says whether the bytes of blob i are those of its ID; others must not
// be used. It is found out when it is first asked: of the groups that a build
// reads from, two thirds are never used.
func (d *Decoded) Sound(i int) bool {
	known := d.sound[i].Load()
	if known == unchecked {
		known = isBad
		if Sum(d.Bytes(i)) == d.Blobs[i].ID {
			known = isSound
		}
		d.sound[i].Store(known)
	}
	return known == isSound
}

// Bytes are the plain bytes of blob i.
func (d *Decoded) Bytes(i int) []byte {
	m := d.Blobs[i]
	return d.Plain[m.Offset : m.Offset+m.Length : m.Offset+m.Length]
}

// find returns the index of the blob at offset; -1 when there is none.
func (d *Decoded) find(id ID, offset uint32) int {
	for i, m := range d.Blobs {
		if m.Offset == offset && m.ID == id {
			return i
		}
	}
	return -1
}

// large says whether d is kept as programs are.
func (d *Decoded) large() bool { return len(d.Plain) >= largeRecord }

// cost is the memory that d takes, in bytes.
func (d *Decoded) cost() int64 {
	return int64(max(cap(d.Plain), cap(d.room))) + int64(len(d.Blobs))*52 + 200
}

// Blob returns the bytes of a blob, which are the caller's. The error is
// ErrNotFound, ErrDamaged or one of the file system.
func (v *View) Blob(ctx context.Context, id ID) ([]byte, error) {
	d, i, err := v.Record(ctx, id)
	if err != nil {
		return nil, err
	}
	defer d.Release()
	return bytes.Clone(d.Bytes(i)), nil
}

// Record returns the decoded record that holds a blob, and the blob's place
// in it. The blob itself is sound; others of the record need not be.
func (v *View) Record(ctx context.Context, id ID) (*Decoded, int, error) {
	return v.record(ctx, id, true)
}

// RecordOnce is Record for who needs all of the record now and none of it later:
// it is not kept in the cache, nor left there, unless it is large or a program.
func (v *View) RecordOnce(ctx context.Context, id ID) (*Decoded, int, error) {
	return v.record(ctx, id, false)
}

func (v *View) record(ctx context.Context, id ID, keep bool) (*Decoded, int, error) {
	loc, ok := v.loc.Locate(id)
	if !ok {
		return nil, 0, fmt.Errorf("blob %s: %w", id, ErrNotFound)
	}
	if d, i := v.cache.holds(id); d != nil {
		if d.Blobs[i].Length == loc.Length && d.Sound(i) {
			return d, i, nil
		}
		d.Release()
	}
	d, err := v.decoded(ctx, loc, keep)
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", id, err)
	}
	i, err := d.at(id, loc)
	if err != nil {
		d.Release()
		return nil, 0, err
	}
	return d, i, nil
}

// Depth is the depth of the record that holds a blob: 0 where it needs no
// bases.
func (v *View) Depth(ctx context.Context, id ID) (int, error) {
	d, _, err := v.Record(ctx, id)
	if err != nil {
		return 0, err
	}
	defer d.Release()
	return d.depth, nil
}
