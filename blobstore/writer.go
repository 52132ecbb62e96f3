package blobstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrSwept is returned by a Writer whose pack a gc has taken for garbage: it was
// used without the right to write to the store.
var ErrSwept = errors.New("an unfinished pack was removed by a gc")

// Suffix ends the file name of every pack.
const Suffix = ".pack"

// Group is a run of blobs that are encoded together.
type Group struct {
	Kind  Kind
	Blobs []Blob
	// Plain, when not nil, is the concatenation of the blobs, which then need
	// not be joined.
	Plain []byte
	// Bases are blobs of the store, or of groups added before, that the group
	// resembles. Where they help, it can be decoded only with them. Depth is
	// the largest of their depths, see View.Depth.
	Bases []Blob
	Depth int
	// Quick groups are encoded for readers, take more room, and stay as they
	// are when the store is compacted.
	Quick bool
}

// Placed is where a writer put a blob; Location.Pack is not set.
type Placed struct {
	ID       ID
	Kind     Kind
	Location Location
	Stored   uint32 // the blob's share of its record, in bytes
	Quick    bool   // its group was
	Program  bool   // it is all of a program, of which others may be deltas by this ID
}

// Pack is a finished pack.
type Pack struct {
	Name  string
	Size  int64
	Plain int64 // plain bytes of its blobs
	Blobs []Placed
}

// WriterOptions are the options of a Writer. The zero value is what an import
// uses.
type WriterOptions struct {
	Level Level
	// Workers encode at the same time. Default: GOMAXPROCS.
	Workers int
	// MaxPack is the size in bytes at which a new pack is begun. Default 1 GiB.
	MaxPack int64
}

// Writer writes packs. Its methods are called by one goroutine; encoding and
// writing happen in others, and the order of the groups in the packs is the
// order of the calls.
type Writer struct {
	dir      string
	opts     WriterOptions
	enc      *encoders
	unnamed  opener
	jobs     chan *job // to the encoders
	ordered  chan *job // the same jobs, to the goroutine that writes
	wg       sync.WaitGroup
	wrote    chan struct{} // closed when all is written
	failed   chan struct{} // closed at the first error
	err      error         // valid once failed is closed
	closed   bool          // no more jobs are taken
	aborted  bool
	finished bool

	// Owned by the writing goroutine until wrote is closed.
	pack  *packFile
	packs []Pack
	names []string // of the packs that were not there before
}

// job is a group on its way into a pack.
type job struct {
	group  Group
	head   []byte // record header with its tables
	header header
	stored []byte
	placed []Placed      // of a copied record the blobs to be read from there
	ready  chan struct{} // closed when head and stored are set
}

// NewWriter returns a writer of packs in dir. A pack appears there when it has
// reached MaxPack, the last one at Finish.
func NewWriter(dir string, opts WriterOptions) (*Writer, error) {
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	if opts.MaxPack <= 0 {
		opts.MaxPack = 1 << 30
	}
	enc, err := newEncoders(opts.Level, opts.Workers)
	if err != nil {
		return nil, err
	}
	w := &Writer{
		dir: dir, opts: opts, enc: enc, unnamed: openat,
		jobs:    make(chan *job),
		ordered: make(chan *job, min(4*opts.Workers, opts.Workers+8)),
		wrote:   make(chan struct{}),
		failed:  make(chan struct{}),
	}
	for range opts.Workers {
		w.wg.Go(w.encodeJobs)
	}
	go w.writeJobs()
	return w, nil
}

// Add queues a group. It blocks while as many groups are under way as keep
// the encoders busy, so memory is bounded by their sizes. The error is that
// of an earlier group or of the context.
func (w *Writer) Add(ctx context.Context, g Group) error {
	plain := 0
	for _, b := range g.Blobs {
		plain += len(b.Data)
	}
	if len(g.Blobs) == 0 || len(g.Blobs) > MaxGroup || plain > MaxRecord || g.Plain != nil && len(g.Plain) != plain {
		return fmt.Errorf("group of %d blobs with %d bytes", len(g.Blobs), plain)
	}
	j := &job{group: g, ready: make(chan struct{})}
	return w.queue(ctx, j, w.jobs)
}

// Copy queues a record as it is stored. It must have been read with its content, or
// encoded, and be one that a reader takes. Of its blobs the pack names those that
// keep agrees to, all if keep is nil: others are to be read from where they are.
func (w *Writer) Copy(ctx context.Context, r *Record, keep func(Placed) bool) error {
	if len(r.stored) != int(r.header.stored) {
		return errors.New("copy of a record that was read without its content")
	}
	j := &job{header: *r.header, stored: r.stored, head: r.header.append(nil), ready: make(chan struct{})}
	f, err := parseFixed(j.head)
	if err == nil {
		_, err = f.tables(j.head[recordFixed:])
	}
	if err != nil {
		return fmt.Errorf("record of blob %s: %w", r.header.blobs[0].id, err)
	}
	j.placed = r.Placed()
	if keep != nil {
		j.placed = slices.DeleteFunc(j.placed, func(p Placed) bool { return !keep(p) })
	}
	close(j.ready)
	return w.queue(ctx, j, nil)
}

func (w *Writer) queue(ctx context.Context, j *job, jobs chan *job) error {
	select {
	case w.ordered <- j:
	case <-w.failed:
		return w.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if jobs != nil {
		jobs <- j // the encoders take jobs until the channel is closed
	}
	return nil
}

func (w *Writer) encodeJobs() {
	for j := range w.jobs {
		j.encode(w.enc)
	}
}

func (j *job) encode(enc *encoders) {
	defer close(j.ready)
	g := j.group
	h := &j.header
	h.kind = g.Kind
	h.blobs = make([]member, len(g.Blobs))
	for i, b := range g.Blobs {
		h.blobs[i] = member{b.ID, uint32(len(b.Data))}
		h.plain += uint32(len(b.Data))
	}
	plain := g.Plain
	if plain == nil {
		plain = join(g.Blobs)
	}
	if g.Quick {
		h.effort = uint8(quickEffort)
	}
	h.enc, j.stored = enc.encode(plain, g.Quick)
	j.encodeBases(enc, plain)
	h.stored = uint32(len(j.stored))
	h.crc = crc32.Checksum(j.stored, castagnoli)
	j.head = h.append(nil)
	j.group = Group{}
}

// encodeBases encodes the group with its bases if that is smaller.
func (j *job) encodeBases(enc *encoders, plain []byte) {
	g, h := &j.group, &j.header
	dict := join(g.Bases)
	if len(dict) == 0 || len(dict) > MaxBases || len(g.Bases) > MaxBaseBlobs || g.Depth >= MaxDepth {
		return
	}
	stored, err := enc.encodeDict(plain, dict)
	if err != nil || len(stored)+len(g.Bases)*baseEntry >= len(j.stored) {
		return
	}
	h.enc, h.depth, j.stored = encDict, uint16(g.Depth+1), stored
	for _, b := range g.Bases {
		h.bases = append(h.bases, b.ID)
	}
}

func join(blobs []Blob) []byte {
	if len(blobs) == 1 {
		return blobs[0].Data
	}
	n := 0
	for _, b := range blobs {
		n += len(b.Data)
	}
	all := make([]byte, 0, n)
	for _, b := range blobs {
		all = append(all, b.Data...)
	}
	return all
}

func (w *Writer) writeJobs() {
	defer close(w.wrote)
	failed := false
	for j := range w.ordered {
		<-j.ready
		if failed {
			continue
		}
		if err := w.write(j); err != nil {
			w.err = err
			failed = true
			close(w.failed)
		}
	}
}

func (w *Writer) write(j *job) (err error) {
	if w.pack != nil && w.pack.size+int64(len(j.head)+len(j.stored)) > w.opts.MaxPack {
		if err := w.finishPack(); err != nil {
			return err
		}
	}
	if w.pack == nil {
		if w.pack, err = createPack(w.dir, w.unnamed); err != nil {
			return err
		}
	}
	return w.pack.add(j)
}

func (w *Writer) finishPack() error {
	p, err := w.pack.finish()
	if err != nil {
		return err
	}
	if !w.pack.replaced {
		w.names = append(w.names, p.Name)
	}
	w.pack = nil
	w.packs = append(w.packs, p)
	return nil
}

// stop ends the goroutines and returns when they are gone.
func (w *Writer) stop() {
	if w.closed {
		return
	}
	w.closed = true
	close(w.jobs)
	close(w.ordered)
	w.wg.Wait()
	<-w.wrote
	w.enc.Close()
}

// Finish makes the packs durable and visible under their names and returns
// them. An error leaves nothing behind.
func (w *Writer) Finish() ([]Pack, error) {
	w.stop()
	if w.aborted {
		return nil, errors.New("writer was aborted")
	}
	if w.err == nil && w.pack != nil {
		w.err = w.finishPack()
	}
	if w.err != nil {
		w.Abort()
		return nil, w.err
	}
	if len(w.packs) > 0 {
		if w.err = SyncDir(w.dir); w.err != nil {
			w.Abort()
			return nil, w.err
		}
	}
	w.finished = true
	return w.packs, nil
}

// Abort ends the writer and leaves nothing behind. It may be called after
// Finish, then it does nothing.
func (w *Writer) Abort() {
	w.stop()
	if w.finished || w.aborted {
		return
	}
	w.aborted = true
	if w.pack != nil {
		w.pack.remove()
		w.pack = nil
	}
	for _, name := range w.names {
		// What cannot be removed is garbage for gc.
		_ = RemovePack(w.dir, name)
	}
}

// packFile is a pack while it is written.
type packFile struct {
	at    int // the folder, whatever becomes of its name
	f     *os.File
	temp  string // its name, where unnamed files are not to be had
	names hash.Hash
	size  int64
	synch int64 // up to here the kernel has been asked to write back
	nrec  int64
	pack  Pack

	replaced bool // it took the place of a pack of the same name
}

// opener is openat.
type opener func(at int, name string, flags int, perm uint32) (fd int, err error)

// createPack makes an unnamed file, which a crash leaves no trace of. File
// systems without O_TMPFILE (NFS, some FUSE ones) get a named one.
func createPack(dir string, unnamed opener) (*packFile, error) {
	at, err := openFolder(dir, unix.O_PATH)
	if err != nil {
		return nil, fmt.Errorf("create pack in %s: %w", dir, err)
	}
	p := &packFile{at: at, names: sha256.New()}
	fd, err := unnamed(at, ".", unix.O_TMPFILE|unix.O_RDWR, 0o644)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		p.temp = TempPrefix + rand.Text()
		fd, err = openat(at, p.temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	}
	if err != nil {
		unix.Close(at)
		return nil, fmt.Errorf("create pack in %s: %w", dir, err)
	}
	p.f = os.NewFile(uintptr(fd), filepath.Join(dir, "new pack"))
	if err := p.put(appendPackHeader(nil)); err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

// TempPrefix begins the name of packs under way where the file system has no
// unnamed files.
const TempPrefix = "new-"

// writeback is how many bytes are gathered before the kernel is asked to
// write them back, so that the sync at the end finds little to do.
const writeback = 8 << 20

func (p *packFile) put(b []byte) error {
	n, err := p.f.Write(b)
	p.size += int64(n)
	if err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	if p.size-p.synch >= writeback {
		// A hint: what it fails to do, the sync does.
		_ = unix.SyncFileRange(int(p.f.Fd()), p.synch, p.size-p.synch, unix.SYNC_FILE_RANGE_WRITE)
		p.synch = p.size
	}
	return nil
}

func (p *packFile) add(j *job) error {
	at := p.size
	p.names.Write(j.head)
	if err := p.put(j.head); err != nil {
		return err
	}
	if err := p.put(j.stored); err != nil {
		return err
	}
	h := &j.header
	p.nrec++
	p.pack.Plain += int64(h.plain)
	placed := j.placed
	if placed == nil {
		placed = (&Record{header: h}).Placed()
	}
	for _, b := range placed {
		b.Location.Record = at
		p.pack.Blobs = append(p.pack.Blobs, b)
	}
	return nil
}

// share is the part of the record's room in the pack that blob i accounts
// for, by its plain length. The shares add up to at most the record's size.
func (h *header) share(i int) uint32 {
	room := uint64(h.size()) + uint64(h.stored)
	if h.whole() && i == 0 {
		return 0 // it is its parts
	}
	if h.plain == 0 {
		return uint32(room) / uint32(len(h.blobs))
	}
	return uint32(room * uint64(h.blobs[i].length) / uint64(h.plain))
}

// finish makes the pack durable and links it under its name.
func (p *packFile) finish() (Pack, error) {
	if err := p.put(appendTrailer(nil, p.nrec, p.size+packTrailer)); err != nil {
		return Pack{}, err
	}
	p.pack.Size = p.size
	p.pack.Name = hex.EncodeToString(p.names.Sum(nil))
	if err := p.f.Sync(); err != nil {
		return Pack{}, fmt.Errorf("sync pack: %w", err)
	}
	if err := p.link(p.pack.Name + Suffix); err != nil {
		return Pack{}, fmt.Errorf("name pack: %w", err)
	}
	unix.Close(p.at)
	p.at = -1
	if err := p.f.Close(); err != nil {
		return Pack{}, fmt.Errorf("close pack: %w", err)
	}
	return p.pack, nil
}

func (p *packFile) link(name string) error {
	if p.temp != "" {
		return p.rename(name)
	}
	from := fmt.Sprintf("/proc/self/fd/%d", p.f.Fd())
	err := unix.Linkat(unix.AT_FDCWD, from, p.at, name, unix.AT_SYMLINK_FOLLOW)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// A pack of this name has these very records: garbage of an import that
	// was killed before its commit. It was synced before it got the name, but
	// it may have been damaged since, and the one at hand has not. The name is
	// never without a pack, should an index have it after all.
	p.replaced = true
	temp := fmt.Sprintf("%s%d-%s", TempPrefix, os.Getpid(), name)
	if err := unix.Unlinkat(p.at, temp, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := unix.Linkat(unix.AT_FDCWD, from, p.at, temp, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	// A file whose last name was removed gets no other any more.
	if err := unix.Renameat(p.at, temp, p.at, name); err != nil {
		_ = unix.Unlinkat(p.at, temp, 0)
		return swept(err)
	}
	return nil
}

// rename gives a pack its name that has another one so far.
func (p *packFile) rename(name string) error {
	if err := p.f.Chmod(0o644); err != nil {
		return err
	}
	if err := unix.Faccessat(p.at, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		p.replaced = true
	}
	if err := unix.Renameat(p.at, p.temp, p.at, name); err != nil {
		return swept(err)
	}
	p.temp = ""
	return nil
}

// swept tells that a name is gone from other errors.
func swept(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return ErrSwept
	}
	return err
}

func (p *packFile) remove() {
	p.f.Close()
	if p.temp != "" {
		_ = unix.Unlinkat(p.at, p.temp, 0)
	}
	unix.Close(p.at)
}

func packPath(dir, name string) string { return filepath.Join(dir, name+Suffix) }

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}
