package blobstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gofs/blobstore/internal/goprog"
)

// Record is a record as it is stored.
type Record struct {
	Offset int64 // in its pack
	header *header
	stored []byte
}

// readRecord reads the record at off of a pack that is size bytes long.
func readRecord(r io.ReaderAt, off, size int64) (*Record, error) {
	h, err := readHeader(r, off, size)
	if err != nil {
		return nil, err
	}
	return readStored(nil, r, off, h)
}

// readStored reads the stored bytes of a record, into buf where they fit.
func readStored(buf []byte, r io.ReaderAt, off int64, h *header) (*Record, error) {
	var stored []byte
	if int(h.stored) <= cap(buf) {
		stored = buf[:h.stored]
	} else {
		stored = make([]byte, h.stored)
	}
	if _, err := r.ReadAt(stored, off+int64(h.size())); err != nil {
		return nil, readError(err)
	}
	return &Record{off, h, stored}, nil
}

// decode decodes a record that is no program, into memory from the buffers.
func (r *Record) decode(dec *zstd.Decoder, bases [][]byte, from buffers) (*Decoded, error) {
	h := r.header
	if h.enc == encRaw {
		if h.plain != h.stored {
			return nil, fmt.Errorf("record lengths: %w", ErrDamaged)
		}
		return r.decoded(r.stored), nil
	}
	room := from.get(int(h.plain))
	plain, err := decode(dec, h, r.stored, bases, room, from)
	if err != nil {
		from.put(room)
		return nil, err
	}
	d := r.decoded(plain)
	d.room, d.buffers = room, from
	return d, nil
}

// unpack returns the filtered form of a record's program, in memory from the
// buffers.
func (r *Record) unpack(dec *zstd.Decoder, bases [][]byte, from buffers) (*Decoded, error) {
	h := r.header
	room := from.get(int(h.inner))
	var filtered []byte
	var err error
	if h.enc == encProgram {
		filtered, err = decodeFrame(dec, r.stored, h.inner, room)
	} else {
		filtered, err = decodeDelta(r.stored, bases, h.inner, room, from)
	}
	if err != nil {
		from.put(room)
		return nil, fmt.Errorf("filtered program: %w", err)
	}
	return &Decoded{Plain: filtered, room: room, buffers: from}, nil
}

// restore makes the plain program of a filtered one, whose memory it takes or lets go of.
func (r *Record) restore(filtered *Decoded) (*Decoded, error) {
	room, from := filtered.room, filtered.buffers
	plain, err := goprog.Inverse(filtered.Plain, int(r.header.plain))
	if err == nil && len(plain) != int(r.header.plain) {
		err = fmt.Errorf("program of %d bytes, not %d", len(plain), r.header.plain)
	}
	if err != nil {
		from.put(room)
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if len(filtered.Plain)-len(plain) > len(plain)/2 {
		// What was inflated in it is no more than an empty half of the memory.
		fit := from.get(len(plain))
		plain = append(fit, plain...)
		from.put(room)
		room = fit
	}
	d := r.decoded(plain)
	d.room, d.buffers = room, from
	return d, nil
}

// decoded makes the record's blobs of its plain bytes. Those of a program are
// checked here, since its reader waits for all of them and so all processors
// can do it; but not the one that names it as a whole, which few ask for.
func (r *Record) decoded(plain []byte) *Decoded {
	d := &Decoded{Plain: plain, Blobs: r.Blobs(), depth: int(r.header.depth), whole: r.header.whole()}
	d.sound = make([]atomic.Uint32, len(d.Blobs))
	if len(plain) < largeRecord {
		return d
	}
	var wg sync.WaitGroup
	var next atomic.Int32
	if d.whole {
		next.Store(1)
	}
	for range min(runtime.GOMAXPROCS(0), len(d.Blobs)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(d.Blobs); i = int(next.Add(1)) - 1 {
				d.Sound(i)
			}
		})
	}
	wg.Wait()
	return d
}

// Kind is what the record's blobs are for.
func (r *Record) Kind() Kind { return r.header.kind }

// Size is the room the record takes in its pack, in bytes.
func (r *Record) Size() int64 { return int64(r.header.size()) + int64(r.header.stored) }

// Decodes is how many bytes are decoded for the record besides its bases, as MaxChain counts them.
func (r *Record) Decodes() int64 {
	return int64(r.header.plain) + int64(r.header.inner) + int64(r.header.size())
}

// Plain is the length of its plain bytes.
func (r *Record) Plain() int64 { return int64(r.header.plain) }

// Bases lists the blobs that must be decoded before the record can be.
func (r *Record) Bases() []ID { return r.header.bases }

// Depth is the length of the longest chain of bases below the record.
func (r *Record) Depth() int { return int(r.header.depth) }

// Encoding names how it is stored.
func (r *Record) Encoding() string {
	if r.Quick() {
		return r.header.enc.String() + ", quick"
	}
	return r.header.enc.String()
}

// Blobs lists the record's blobs.
func (r *Record) Blobs() []Member {
	ms := make([]Member, len(r.header.blobs))
	off := uint32(0)
	for i, m := range r.header.blobs {
		ms[i] = Member{ID: m.id, Offset: off, Length: m.length}
		if i > 0 || !r.header.whole() {
			off += m.length
		}
	}
	return ms
}

// Placed lists the record's blobs as a Writer would.
func (r *Record) Placed() []Placed {
	ps := make([]Placed, len(r.header.blobs))
	for i, m := range r.Blobs() {
		ps[i] = Placed{m.ID, r.header.kind, Location{Record: r.Offset, Offset: m.Offset, Length: m.Length}, r.header.share(i), r.Quick(), i == 0 && r.IsProgram()}
	}
	return ps
}

// Records reads a pack's records one after the other, without their stored
// bytes unless content is set. It ends with an error when the pack is not
// whole; the records before that are good to use.
func (p *PackReader) Records(content bool) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		off, n := int64(packHeader), uint64(0)
		for off < p.size-packTrailer {
			h, err := readHeader(p.f, off, p.size-packTrailer)
			if err != nil {
				yield(nil, fmt.Errorf("pack %s at %d: %w", p.name, off, err))
				return
			}
			r := &Record{Offset: off, header: h}
			if content {
				r.stored = make([]byte, h.stored)
				if _, err := p.f.ReadAt(r.stored, off+int64(h.size())); err != nil {
					yield(nil, fmt.Errorf("pack %s at %d: %w", p.name, off, readError(err)))
					return
				}
			}
			if !yield(r, nil) {
				return
			}
			off += r.Size()
			n++
		}
		if err := p.checkTrailer(n); err != nil {
			yield(nil, fmt.Errorf("pack %s: %w", p.name, err))
		}
	}
}

// PackReader reads one pack from front to back. It is for one goroutine.
type PackReader struct {
	f    *os.File
	mine bool // to be closed
	name string
	size int64
}

// Pack returns a reader of a pack that the view has open, whatever has become
// of its name since. The error is that of opening it.
func (v *View) Pack(number uint32) (*PackReader, error) {
	p, err := v.pack(number)
	if err != nil {
		return nil, err
	}
	return &PackReader{f: p.f, name: p.ref.Name, size: p.ref.Size}, nil
}

// OpenPack opens a pack of dir, whether or not an index names it.
func OpenPack(dir, name string) (*PackReader, error) {
	f, err := openPackAt(dir, name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil {
		err = checkPack(f, PackRef{Name: name, Size: st.Size()})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("pack %s: %w", name, err)
	}
	return &PackReader{f, true, name, st.Size()}, nil
}

// Size is the length of the pack's file in bytes.
func (p *PackReader) Size() int64 { return p.size }

// Close closes the pack's file, unless it is a view's.
func (p *PackReader) Close() error {
	if !p.mine {
		return nil
	}
	return p.f.Close()
}

// At reads the record at an offset of the pack.
func (p *PackReader) At(off int64) (*Record, error) {
	r, err := readRecord(p.f, off, p.size-packTrailer)
	if err != nil {
		return nil, fmt.Errorf("pack %s at %d: %w", p.name, off, err)
	}
	return r, nil
}

func (p *PackReader) checkTrailer(records uint64) error {
	var b [packTrailer]byte
	if p.size < packHeader+packTrailer {
		return fmt.Errorf("cut short: %w", ErrDamaged)
	}
	if _, err := p.f.ReadAt(b[:], p.size-packTrailer); err != nil {
		return readError(err)
	}
	if string(b[:8]) != endMagic || binary.LittleEndian.Uint64(b[8:]) != records ||
		binary.LittleEndian.Uint64(b[16:]) != uint64(p.size) {
		return fmt.Errorf("trailer: %w", ErrDamaged)
	}
	return nil
}

// Damage is something wrong in a pack.
type Damage struct {
	Pack   string
	Offset int64 // of the record, 0 for the pack as a whole
	Blobs  []ID  // that cannot be read because of it, where known
	Err    error
}

// Decode returns the plain bytes of a record that was read with its content,
// from whichever pack; bases come from the view.
func (v *View) Decode(ctx context.Context, r *Record) (*Decoded, error) { return v.decode(ctx, r) }

// RecordAt decodes the record at a place. Unlike [View.Record] it does not
// care whether something in memory has the blobs as well.
func (v *View) RecordAt(ctx context.Context, loc Location) (*Decoded, error) {
	return v.decoded(ctx, loc, true)
}

// Check says why a blob cannot be read from the record that its location is
// in; nil if it can.
func (d *Decoded) Check(id ID, loc Location) error {
	_, err := d.at(id, loc)
	return err
}

// VerifyPack decodes every record of a pack of the view that something is read from,
// also those behind damage, and checks every blob, and of other records the
// checksum, with as many goroutines as there are processors. It reports damage through found, which is not called
// concurrently; read, which is, gets the size of each record that was read and
// the blobs in it that are sound. The error is the context's, or one that is
// not damage.
func (v *View) VerifyPack(ctx context.Context, ref PackRef, found func(Damage), read func(int64, []Placed)) error {
	p, err := v.Pack(ref.Number)
	if err != nil {
		found(Damage{Pack: ref.Name, Err: err})
		return nil
	}

	g, ctx := errgroup.WithContext(ctx)
	records := make(chan *Record)
	damage := make(chan Damage)
	var left atomic.Int32
	left.Store(int32(runtime.GOMAXPROCS(0)) + 1)
	leave := func() {
		if left.Add(-1) == 0 {
			close(damage)
		}
	}
	g.Go(func() error {
		defer leave()
		defer close(records)
		return p.findRecords(ctx, records, damage)
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			defer leave()
			for r := range records {
				sound, bad := v.check(ctx, ref, r)
				if bad != nil {
					damage <- *bad
				}
				read(r.Size(), sound)
			}
			return nil
		})
	}
	for d := range damage {
		found(d)
	}
	return g.Wait()
}

// findRecords reads all records of a pack that can be found. The error is the
// context's.
func (p *PackReader) findRecords(ctx context.Context, records chan<- *Record, damage chan<- Damage) error {
	s := newSalvage(ctx, p.f, p.size)
	names, whole, n := sha256.New(), true, uint64(0)
	report := func(off int64, err error) {
		damage <- Damage{Pack: p.name, Offset: off, Err: err}
		whole = false
	}
	for off := int64(packHeader); off < p.size-packTrailer; {
		h, err := readHeader(p.f, off, p.size) // as readers do
		if err != nil {
			report(off, err)
			if off, err = s.next(off + 1); err != nil {
				report(0, err)
				break
			}
			continue
		}
		n++
		names.Write(h.append(nil))
		r, err := readStored(nil, p.f, off, h)
		if err != nil {
			report(off, err)
			off += (&Record{header: h}).Size()
			continue
		}
		select {
		case records <- r:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		off += r.Size()
	}
	if !whole { // what follows says no more than that
		return context.Cause(ctx)
	}
	if err := p.checkTrailer(n); err != nil {
		report(0, err)
	} else if sum := hex.EncodeToString(names.Sum(nil)); sum != p.name {
		report(0, fmt.Errorf("the records are those of pack %s: %w", sum, ErrDamaged))
	}
	return nil
}

// check decodes a record and says which of its blobs are sound, and what is
// wrong with it.
func (v *View) check(ctx context.Context, ref PackRef, r *Record) (sound []Placed, bad *Damage) {
	bad = &Damage{Pack: ref.Name, Offset: r.Offset}
	if crc32.Checksum(r.stored, castagnoli) != r.header.crc {
		bad.Err = fmt.Errorf("checksum of the stored bytes: %w", ErrDamaged)
	}
	if bad.Err == nil && !v.reads(ref.Number, r) {
		return nil, nil
	}
	d, err := v.decode(ctx, r)
	if err == nil {
		defer d.Release()
	}
	if ctx.Err() != nil {
		return nil, nil
	}
	if err != nil {
		for _, m := range r.header.blobs {
			bad.Blobs = append(bad.Blobs, m.id)
		}
		bad.Err = err
		return nil, bad
	}
	for i, b := range r.Placed() {
		if !d.Sound(i) {
			bad.Blobs = append(bad.Blobs, b.ID)
			bad.Err = fmt.Errorf("checksum of a blob: %w", ErrDamaged)
			continue
		}
		b.Location.Pack = ref.Number
		sound = append(sound, b)
	}
	if bad.Err == nil {
		bad = nil
	}
	return sound, bad
}

// reads says whether any blob of a record is read from it. One that a compaction under
// way has replaced may have bases that lie deeper by now; gc removes it.
func (v *View) reads(pack uint32, r *Record) bool {
	return slices.ContainsFunc(r.Placed(), func(p Placed) bool {
		loc, ok := v.loc.Locate(p.ID)
		return ok && loc.Pack == pack && loc.Record == r.Offset
	})
}

// ListPacks names the packs in dir, whether or not an index names them, and
// the files under way that a crash left (see TempPrefix).
func ListPacks(dir string) (packs, temps []string, err error) {
	// What lies behind a link is not the store's, least of all to be removed.
	fd, err := openFolder(dir, unix.O_RDONLY)
	if err != nil {
		return nil, nil, &os.PathError{Op: "list", Path: dir, Err: err}
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, TempPrefix):
			temps = append(temps, name)
		case strings.HasSuffix(name, Suffix):
			packs = append(packs, strings.TrimSuffix(name, Suffix))
		}
	}
	return packs, temps, nil
}

// RemovePack removes a pack of dir. That it is gone already is no error.
func RemovePack(dir, name string) error {
	err := Remove(filepath.Dir(dir), filepath.Join(filepath.Base(dir), name+Suffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
