package fs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
)

// Hot is where a mount keeps decoded files: the programs and the files that
// are too large to be pushed into the page cache with their neighbours. The
// others would gain nothing: their group is decoded in less time than the
// files of it take to be made.
type Hot struct {
	// Dir is a folder that outlives the mount; "" stands for a tmpfs of the
	// mount's own. The folder is made where it is missing; it may hold nothing
	// else and no other mount may use it.
	Dir string
	// Size bounds the room it takes, in bytes of whole blocks. Default: 512
	// MiB but at most a quarter of the memory on tmpfs, 2 GiB in a folder.
	Size int64
}

const (
	hotMemory = 512 << 20
	hotDisk   = 2 << 30
	// hotFiles bounds the files that are kept, each of which is held open.
	hotFiles = 4096
	// hotPause is how long nothing is put in after a failure.
	hotPause = 30 * time.Second
)

var (
	// ErrHot is returned where the folder of the hot layer cannot be used.
	ErrHot = errors.New("hot folder")
	// ErrHotInUse is returned where another mount uses the folder.
	ErrHotInUse = errors.New("another mount uses it")

	errNoRoom = errors.New("all that is kept is in use")
)

// hotLayer keeps decoded files in a folder, the least recently used out
// first. It is never larger than its limit, files under way included.
type hotLayer struct {
	folder *hotFolder
	limit  int64
	files  int // bound
	log    *slog.Logger
	blob   func(refs []index.Ref, i int) (*blobstore.Decoded, int, error) // the record with a blob of a file, to be released

	mu      sync.Mutex
	kept    map[hotKey]*hotFile
	size    int64 // of what is kept or under way, or dropped and still open
	flights map[hotKey]*hotFlight
	closed  bool
	busy    sync.WaitGroup // flights
	lastErr error
	pause   time.Time // nothing is put in before

	left       atomic.Int32  // files of an earlier mount that nobody has wanted yet
	fillers    chan struct{} // a slot for each file made ahead
	ticks      atomic.Int64  // the clock of hotFile.used
	unregister func(int32)   // of backing ids

	hits, hitBytes   atomic.Uint64
	made, madeBytes  atomic.Uint64
	checked, corrupt atomic.Uint64
	evicted          atomic.Uint64
	failures         atomic.Uint64
	backings         atomic.Int64 // registered now
}

// hotKey names a content: the SHA-256 of its blobs' IDs and lengths.
type hotKey [16]byte

func (k hotKey) String() string { return hex.EncodeToString(k[:]) }

func keyOf(n *inode) hotKey {
	h := sha256.New()
	var length [4]byte
	for i := range n.refs {
		h.Write(n.refs[i].ID[:])
		binary.LittleEndian.PutUint32(length[:], n.refs[i].Length)
		h.Write(length[:])
	}
	return hotKey(h.Sum(nil)[:16])
}

// hotFile is a file of the hot layer.
type hotFile struct {
	layer *hotLayer
	key   hotKey
	size  int64
	file  *os.File     // nil: left by an earlier mount and not wanted yet
	refs  atomic.Int64 // one is the layer's, for as long as it is kept
	used  atomic.Int64 // when, by hotLayer.ticks

	// What an earlier mount left is checked blob by blob, as it is read.
	unchecked atomic.Int32  // blobs
	sound     []atomic.Bool // the others

	mu      sync.Mutex
	backing int32 // 0: not registered
}

type hotFlight struct {
	done chan struct{}
	file *hotFile
	err  error
}

// openHot opens the layer.
func openHot(o Hot, log *slog.Logger, blob func([]index.Ref, int) (*blobstore.Decoded, int, error)) (*hotLayer, error) {
	if o.Size == 0 {
		o.Size = defaultHotSize(o.Dir == "")
	}
	h := &hotLayer{
		limit: o.Size &^ (blockSize - 1), files: hotFiles, log: log, blob: blob,
		kept: map[hotKey]*hotFile{}, flights: map[hotKey]*hotFlight{},
		fillers: make(chan struct{}, 1),
	}
	var nofile unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &nofile) == nil {
		h.files = int(min(uint64(h.files), max(nofile.Cur/4, 16)))
	}
	if h.limit < blockSize {
		return nil, fmt.Errorf("%w: a size of %d bytes holds nothing", ErrHot, o.Size)
	}
	f, err := openHotFolder(o.Dir, h.limit)
	if err != nil {
		return nil, err
	}
	h.folder = f
	if err := h.start(); err != nil {
		f.close()
		return nil, fmt.Errorf("%w %s: %w", ErrHot, f.place, err)
	}
	return h, nil
}

func defaultHotSize(memory bool) int64 {
	var si unix.Sysinfo_t
	switch {
	case !memory:
		return hotDisk
	case unix.Sysinfo(&si) != nil:
		return hotMemory
	}
	return min(hotMemory, int64(si.Totalram)*int64(si.Unit)/4)
}

// start takes over what an earlier mount left and makes sure that files can
// be made.
func (h *hotLayer) start() error {
	found, err := h.folder.list()
	if err != nil {
		return err
	}
	for _, e := range found { // the oldest first
		f := &hotFile{layer: h, key: e.key, size: e.size}
		f.refs.Store(1)
		f.used.Store(h.ticks.Add(1))
		h.kept[e.key] = f
		h.size += room(e.size)
	}
	h.left.Store(int32(len(found)))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.makeRoom(0)
	for {
		err := h.folder.try()
		if !errors.Is(err, unix.ENOSPC) || !h.evictOne() {
			return err
		}
	}
}

// room is what a file takes of the limit.
func room(size int64) int64 { return (size + blockSize - 1) &^ (blockSize - 1) }

// takes says whether a file is one for the layer.
func (h *hotLayer) takes(n *inode) bool {
	return h != nil && n.mode&unix.S_IFMT == unix.S_IFREG && n.size > 0 && room(n.size) <= h.limit &&
		(!n.small() || n.mode&0o111 != 0)
}

func (f *hotFile) acquire() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *hotFile) release() {
	if f.refs.Add(-1) == 0 {
		f.layer.mu.Lock()
		defer f.layer.mu.Unlock()
		f.layer.gone(f)
	}
}

// gone frees a file that nobody uses any more; h.mu is held.
func (h *hotLayer) gone(f *hotFile) {
	if f.backing != 0 {
		h.unregister(f.backing)
		h.backings.Add(-1)
	}
	if f.file != nil {
		f.file.Close()
	} else {
		h.left.Add(-1)
	}
	h.size -= room(f.size)
}

// read reads from the kept file of an inode. It says false where there is
// none, or none that can be read.
func (h *hotLayer) read(n *inode, buf []byte, offset int64) (int, bool) {
	f := n.hot.Load()
	if f == nil && h.left.Load() > 0 {
		f = h.find(n)
	}
	if f == nil || !f.acquire() {
		return 0, false
	}
	defer f.release()
	buf = buf[:min(int64(len(buf)), n.size-offset)]
	if err := f.check(n, offset, int64(len(buf))); err != nil {
		h.unfit(f, err)
		return 0, false
	}
	if k, err := f.file.ReadAt(buf, offset); k < len(buf) {
		h.drop(f)
		h.failed(fmt.Errorf("read %s: %w", f.key, err))
		return 0, false
	}
	if now := h.ticks.Load(); f.used.Load() != now {
		f.used.Store(h.ticks.Add(1))
	}
	h.hits.Add(1)
	h.hitBytes.Add(uint64(len(buf)))
	return len(buf), true
}

// find finds what an earlier mount left of an inode's file; nil where that is
// nothing of use.
func (h *hotLayer) find(n *inode) *hotFile {
	h.mu.Lock()
	f := h.kept[keyOf(n)]
	err := error(nil)
	if f != nil {
		err = h.open(f, n)
	}
	h.mu.Unlock()
	switch {
	case f == nil:
		return nil
	case err != nil:
		h.unfit(f, err)
		return nil
	}
	n.hot.Store(f)
	return f
}

// open opens a file that an earlier mount left; h.mu is held.
func (h *hotLayer) open(f *hotFile, n *inode) error {
	if f.file != nil {
		return nil
	}
	file, err := h.folder.open(f.key)
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != n.size) {
		err = fmt.Errorf("%d bytes instead of %d: %w", st.Size(), n.size, blobstore.ErrDamaged)
	}
	if err != nil {
		file.Close()
		return err
	}
	f.sound = make([]atomic.Bool, len(n.refs))
	f.unchecked.Store(int32(len(n.refs)))
	f.file = file
	f.used.Store(h.ticks.Add(1))
	h.left.Add(-1)
	return nil
}

// unfit drops a file that an earlier mount left and that cannot be used.
func (h *hotLayer) unfit(f *hotFile, err error) {
	h.drop(f)
	if errors.Is(err, blobstore.ErrDamaged) {
		h.corrupt.Add(1)
		h.log.Warn("file in the hot folder is damaged, it is made anew", "file", f.key, "err", err)
	}
}

// check compares what lies in [offset, offset+size) of a file that an earlier
// mount left with its blobs, each the first time.
func (f *hotFile) check(n *inode, offset, size int64) error {
	if f.unchecked.Load() == 0 {
		return nil
	}
	var buf []byte
	start := int64(0)
	for i, ref := range n.refs {
		end := start + int64(ref.Length)
		if start < offset+size && end > offset && !f.sound[i].Load() {
			if buf == nil {
				buf = make([]byte, 256<<10)
			}
			h := sha256.New()
			if _, err := io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(f.file, start, end-start)}, buf); err != nil {
				return err
			}
			if blobstore.ID(h.Sum(nil)) != ref.ID {
				return fmt.Errorf("blob %s: checksum: %w", ref.ID, blobstore.ErrDamaged)
			}
			if f.sound[i].CompareAndSwap(false, true) && f.unchecked.Add(-1) == 0 {
				_ = f.layer.folder.touch(f.key) // only the order of the next mount rests on it
				f.layer.checked.Add(1)
			}
		}
		start = end
	}
	return nil
}

// want has a file put into the layer in another goroutine, unless enough are
// under way.
func (h *hotLayer) want(n *inode) {
	if f := n.hot.Load(); f != nil && f.refs.Load() > 0 {
		return
	}
	select {
	case h.fillers <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-h.fillers }()
		if f, err := h.fetch(n); err == nil {
			f.release()
		}
	}()
}

// fetch returns the kept file of an inode, acquired, and makes it where it is
// missing. Many askers wait for one making.
func (h *hotLayer) fetch(n *inode) (*hotFile, error) {
	if f := n.hot.Load(); f != nil && f.unchecked.Load() == 0 && f.acquire() {
		f.used.Store(h.ticks.Add(1))
		return f, nil
	}
	key := keyOf(n)
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return nil, os.ErrClosed
		}
		f := h.kept[key]
		if f != nil && f.file != nil && f.unchecked.Load() == 0 && f.acquire() {
			h.mu.Unlock()
			f.used.Store(h.ticks.Add(1))
			n.hot.Store(f)
			return f, nil
		}
		if w := h.flights[key]; w != nil {
			h.mu.Unlock()
			if <-w.done; w.err != nil {
				return nil, w.err
			}
			continue
		}
		if time.Now().Before(h.pause) {
			err := h.lastErr
			h.mu.Unlock()
			return nil, err
		}
		w := &hotFlight{done: make(chan struct{}), err: os.ErrClosed}
		h.flights[key] = w
		h.busy.Add(1)
		h.mu.Unlock()
		h.fly(w, n, key, f)
		if w.err == nil {
			n.hot.Store(w.file)
		}
		return w.file, w.err
	}
}

// fly checks what an earlier mount left of a file, or makes the file.
func (h *hotLayer) fly(w *hotFlight, n *inode, key hotKey, left *hotFile) {
	defer func() {
		h.mu.Lock()
		delete(h.flights, key)
		h.mu.Unlock()
		close(w.done)
		h.busy.Done()
	}()
	if left != nil {
		if w.file, w.err = h.take(n, left); w.err == nil {
			return
		}
		h.unfit(left, w.err)
	}
	w.file, w.err = h.make(n, key)
	switch {
	case w.err == nil || errors.Is(w.err, errNoRoom) || errors.Is(w.err, os.ErrClosed):
	case errors.Is(w.err, errBlob): // has been reported
	default:
		h.failed(w.err)
	}
}

// errBlob marks the errors that are the store's and not the hot layer's.
var errBlob = errors.New("not decoded")

// failed notes that the folder does not do what it should. The mount serves
// without it meanwhile.
func (h *hotLayer) failed(err error) {
	h.failures.Add(1)
	h.mu.Lock()
	first := h.lastErr == nil
	h.lastErr, h.pause = err, time.Now().Add(hotPause)
	h.mu.Unlock()
	if first {
		h.log.Error("the hot layer fails, files are served without it", "place", h.folder.place, "err", err)
	}
}

// take checks all of a file that an earlier mount left. It is returned
// acquired.
func (h *hotLayer) take(n *inode, f *hotFile) (*hotFile, error) {
	h.mu.Lock()
	err := h.open(f, n)
	h.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case !f.acquire():
		return nil, os.ErrClosed
	}
	if err := f.check(n, 0, n.size); err != nil {
		f.release()
		return nil, err
	}
	return f, nil
}

// make decodes a file into the folder. Each blob has been checked when it
// comes. The file is returned acquired.
func (h *hotLayer) make(n *inode, key hotKey) (*hotFile, error) {
	h.mu.Lock()
	ok := h.makeRoom(room(n.size))
	if ok {
		h.size += room(n.size)
	}
	h.mu.Unlock()
	if !ok {
		return nil, errNoRoom
	}
	file, err := h.write(n, key)
	if errors.Is(err, unix.ENOSPC) && h.evict(room(n.size)) {
		file, err = h.write(n, key) // others use the disk too
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.size -= room(n.size)
		return nil, err
	}
	f := &hotFile{layer: h, key: key, size: n.size, file: file}
	f.refs.Store(2)
	f.used.Store(h.ticks.Add(1))
	h.kept[key] = f
	h.lastErr = nil // the next failure is worth a line again
	h.made.Add(1)
	h.madeBytes.Add(uint64(n.size))
	return f, nil
}

func (h *hotLayer) write(n *inode, key hotKey) (*os.File, error) {
	return h.folder.create(key, func(f *os.File) error {
		// A tmpfs gives huge pages to what lies within the size of a file.
		if err := f.Truncate(n.size); err != nil {
			return err
		}
		for i := range n.refs {
			d, k, err := h.blob(n.refs, i)
			if err != nil {
				return fmt.Errorf("%w: %w", errBlob, err)
			}
			_, err = f.Write(d.Bytes(k))
			d.Release()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// makeRoom evicts until a file of a size fits; h.mu is held.
func (h *hotLayer) makeRoom(size int64) bool {
	for h.size+size > h.limit || len(h.kept) >= h.files {
		if !h.evictOne() {
			return false
		}
	}
	return true
}

// evict frees at least size bytes where it can, and says whether it freed
// any.
func (h *hotLayer) evict(size int64) (freed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for want := h.size - size; h.size > want && h.evictOne(); {
		freed = true
	}
	return freed
}

// evictOne removes the file that was not used for longest, of those that
// nobody has open; h.mu is held.
func (h *hotLayer) evictOne() bool {
	for {
		var oldest *hotFile
		for _, f := range h.kept {
			if f.refs.Load() == 1 && h.flights[f.key] == nil && (oldest == nil || f.used.Load() < oldest.used.Load()) {
				oldest = f
			}
		}
		if oldest == nil {
			return false
		}
		if !oldest.refs.CompareAndSwap(1, 0) { // a reader came
			continue
		}
		delete(h.kept, oldest.key)
		h.folder.remove(oldest.key)
		h.gone(oldest)
		h.evicted.Add(1)
		return true
	}
}

// drop removes a file that is no good.
func (h *hotLayer) drop(f *hotFile) {
	h.mu.Lock()
	mine := h.kept[f.key] == f
	if mine {
		delete(h.kept, f.key)
		h.folder.remove(f.key)
	}
	h.mu.Unlock()
	if mine {
		f.release()
	}
}

// close closes all files; those of a folder that outlives the mount stay.
func (h *hotLayer) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.busy.Wait()
	h.mu.Lock()
	kept := h.kept
	h.kept = map[hotKey]*hotFile{}
	h.mu.Unlock()
	order := make([]*hotFile, 0, len(kept))
	for _, f := range kept {
		order = append(order, f)
	}
	slices.SortFunc(order, func(a, b *hotFile) int { return int(a.used.Load() - b.used.Load()) })
	for _, f := range order {
		if f.file != nil {
			_ = h.folder.touch(f.key)
		}
		f.release()
	}
	h.folder.close()
}

// HotStats counts the use of the hot layer.
type HotStats struct {
	Place     string `json:"place"` // tmpfs, or a folder
	Limit     int64  `json:"limit"` // bytes
	Bytes     int64  `json:"bytes"` // in it now, whole blocks
	Files     int    `json:"files"`
	Hits      uint64 `json:"hits"` // READs answered from it
	HitBytes  uint64 `json:"hit_bytes"`
	Made      uint64 `json:"made"` // files put in
	MadeBytes uint64 `json:"made_bytes"`
	Checked   uint64 `json:"checked"` // left by an earlier mount and found sound
	Corrupt   uint64 `json:"corrupt"` // and not sound
	Evicted   uint64 `json:"evicted"`
	Failures  uint64 `json:"failures"`        // of the folder
	Error     string `json:"error,omitempty"` // the last of them, while it lasts
	Backings  int64  `json:"backings"`        // files the kernel reads itself
}

func (h *hotLayer) stats() *HotStats {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st := &HotStats{
		Place: h.folder.place, Limit: h.limit, Bytes: h.size, Files: len(h.kept),
		Hits: h.hits.Load(), HitBytes: h.hitBytes.Load(), Made: h.made.Load(), MadeBytes: h.madeBytes.Load(),
		Checked: h.checked.Load(), Corrupt: h.corrupt.Load(), Evicted: h.evicted.Load(),
		Failures: h.failures.Load(), Backings: h.backings.Load(),
	}
	if h.lastErr != nil {
		st.Error = h.lastErr.Error()
	}
	return st
}
