package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
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
	slots chan struct{} // one for each decoding under way
	spare sync.Pool     // of *[]byte, for stored bytes on their way to a decoder
}

type openPack struct {
	ref PackRef
	f   *os.File
	err error // why it could not be opened
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
	}
	for _, ref := range refs {
		p := &openPack{ref: ref}
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
	f, err := os.Open(packPath(dir, ref.Name))
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

// Close closes the packs. Reads under way fail with os.ErrClosed.
func (v *View) Close() {
	for _, p := range v.packs {
		if p.f != nil {
			p.f.Close()
		}
	}
}

// Decoded is the plain bytes of a record. They are shared: nobody may write
// to them.
type Decoded struct {
	Plain []byte
	Blobs []Member
	depth int
}

// Member is a blob of a decoded record.
type Member struct {
	ID     ID
	Offset uint32 // in the plain bytes
	Length uint32
	Bad    bool // its bytes are not those of its ID and must not be used
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

// cost is the memory that d takes, in bytes.
func (d *Decoded) cost() int64 { return int64(cap(d.Plain)) + int64(len(d.Blobs))*48 + 200 }

// Blob returns the bytes of a blob, which the caller must not change. The
// error is ErrNotFound, ErrDamaged or one of the file system.
func (v *View) Blob(ctx context.Context, id ID) ([]byte, error) {
	d, i, err := v.Record(ctx, id)
	if err != nil {
		return nil, err
	}
	return d.Bytes(i), nil
}

// Record returns the decoded record that holds a blob, and the blob's place
// in it. The blob itself is sound; others of the record may be Bad.
func (v *View) Record(ctx context.Context, id ID) (*Decoded, int, error) {
	loc, ok := v.loc.Locate(id)
	if !ok {
		return nil, 0, fmt.Errorf("blob %s: %w", id, ErrNotFound)
	}
	d, err := v.decoded(ctx, loc)
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", id, err)
	}
	i := d.find(id, loc.Offset)
	if i < 0 || d.Blobs[i].Length != loc.Length {
		return nil, 0, fmt.Errorf("blob %s: the record does not hold it: %w", id, ErrDamaged)
	}
	if d.Blobs[i].Bad {
		return nil, 0, fmt.Errorf("blob %s: checksum: %w", id, ErrDamaged)
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
	return d.depth, nil
}

func (v *View) decoded(ctx context.Context, loc Location) (*Decoded, error) {
	for {
		d, err := v.cache.get(recordKey{loc.Pack, loc.Record}, func() (*Decoded, error) {
			return v.load(ctx, loc)
		})
		gaveUp := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if !gaveUp || ctx.Err() != nil {
			return d, err
		}
		// The asker that did the work gave up; this one has not.
	}
}

func (v *View) load(ctx context.Context, loc Location) (*Decoded, error) {
	p := v.packs[loc.Pack]
	if p == nil {
		return nil, fmt.Errorf("pack number %d: %w", loc.Pack, ErrNotFound)
	}
	if p.err != nil {
		return nil, p.err
	}
	spare, _ := v.spare.Get().(*[]byte)
	if spare == nil {
		spare = new([]byte)
	}
	r, err := readRecordInto(*spare, p.f, loc.Record, p.ref.Size)
	var d *Decoded
	if err == nil {
		d, err = v.decode(ctx, r)
		if r.header.enc != encRaw && cap(r.stored) <= maxSpare {
			*spare = r.stored[:0]
		}
	}
	v.spare.Put(spare)
	if err != nil {
		return nil, fmt.Errorf("pack %s at %d: %w", p.ref.Name, loc.Record, err)
	}
	return d, nil
}

// maxSpare is the largest buffer that is kept for the next record, in bytes.
// Without them, 64 readers of different files made the garbage collector let
// the heap grow by 50 MB.
const maxSpare = 8 << 20

// decode decodes a record and, before it, its bases.
func (v *View) decode(ctx context.Context, r *Record) (*Decoded, error) {
	bases, err := v.bases(ctx, r.header)
	if err != nil {
		return nil, err
	}
	// Decoding is all computation: more at once than there are processors
	// would only take memory. The bases are decoded before a slot is taken,
	// so that nobody waits for one while holding one.
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return r.decode(v.dec, bases)
}

// bases returns the plain bytes of the bases of a record. Their depth is less
// than the record's, so this ends.
func (v *View) bases(ctx context.Context, h *header) ([]byte, error) {
	var all []byte
	for _, id := range h.bases {
		loc, ok := v.loc.Locate(id)
		if !ok {
			return nil, fmt.Errorf("base %s: %w: %w", id, ErrNotFound, ErrDamaged)
		}
		if p := v.packs[loc.Pack]; p != nil && p.err == nil {
			// Checked before decoding: this is what keeps a hostile chain from
			// being followed, and from waiting for itself in the cache.
			b, err := readHeader(p.f, loc.Record, p.ref.Size)
			if err == nil && b.depth >= h.depth {
				err = fmt.Errorf("its depth is %d: %w", b.depth, ErrDamaged)
			}
			if err != nil {
				return nil, fmt.Errorf("base %s: %w", id, err)
			}
		}
		plain, err := v.Blob(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("base: %w", err)
		}
		if len(all)+len(plain) > MaxBases {
			return nil, fmt.Errorf("bases of more than %d bytes: %w", MaxBases, ErrDamaged)
		}
		all = append(all, plain...)
	}
	return all, nil
}
