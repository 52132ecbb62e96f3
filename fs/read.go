package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
)

// Read answers with slices of the decoded records, so nothing is copied
// before the kernel does. It does not heed cancel: a Go program interrupts
// its own reads all the time to preempt goroutines, a read takes milliseconds
// at most, and EINTR in answer to a page fault would be a SIGBUS.
func (r *rawFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r.counters.add(opRead)
	n := r.inode(in.NodeId)
	switch {
	case n == nil:
		return nil, estale
	case n.mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fuse.EINVAL
	case in.Offset >= uint64(n.size) || in.Size == 0:
		return fuse.ReadResultData(nil), fuse.OK
	}
	n.note()
	if r.hot.takes(n) {
		if k, ok := r.hot.read(n, buf, int64(in.Offset)); ok {
			r.counters.readBytes.Add(uint64(k))
			return fuse.ReadResultData(buf[:k]), fuse.OK
		}
		r.hot.want(n)
	}
	if in.Flags&fmodeExec != 0 {
		r.runs(n)
	}
	res := readResults.Get().(*readResult)
	if err := r.slices(res, n, int64(in.Offset), int64(in.Size)); err != nil {
		res.Done()
		return nil, fuse.EIO
	}
	r.counters.readBytes.Add(uint64(res.size))
	if n.small() {
		if in.Offset == 0 {
			res.server, res.read = r.Server, n
		}
	} else if res.whole != nil {
		res.server, res.read = r.Server, n
	} else if end := int64(in.Offset) + int64(res.size); n.next.Swap(end) == int64(in.Offset) {
		r.decodeAhead(n.refs, end, int64(in.Size))
		if end == n.size {
			r.decodeNext(n)
		}
	}
	return res, fuse.OK
}

// decodeAhead has the blobs that lie in [offset, offset+size) of a file
// decoded in other goroutines, as many as may run at once.
func (s *Server) decodeAhead(refs []index.Ref, offset, size int64) {
	for _, ref := range refs {
		if size <= 0 {
			return
		}
		if offset >= int64(ref.Length) {
			offset -= int64(ref.Length)
			continue
		}
		size -= int64(ref.Length) - offset
		offset = 0
		if !s.decode(ref.ID) {
			return
		}
	}
}

// decode has the record of a blob decoded in another goroutine, unless enough
// are under way.
func (s *Server) decode(id blobstore.ID) bool {
	select {
	case s.decoders <- struct{}{}:
	default:
		return false
	}
	go func() {
		defer func() { <-s.decoders }()
		// The READ that wants it will meet the error.
		if d, _, err := s.record(context.Background(), id, again); err == nil {
			d.Release()
		}
	}()
	return true
}

// slices adds to res the part of a file's bytes that lies in [offset,
// offset+size).
func (s *Server) slices(res *readResult, n *inode, offset, size int64) error {
	size = min(size, n.size-offset)
	for i, ref := range n.refs {
		if size == 0 {
			break
		}
		if offset >= int64(ref.Length) {
			offset -= int64(ref.Length)
			continue
		}
		if len(res.bytes) == 0 {
			s.decodeAhead(n.refs[i+1:], 0, size-int64(ref.Length)+offset)
		}
		d, k, err := s.blobRecord(ref, again)
		if err != nil {
			return err
		}
		res.records = append(res.records, d)
		if len(n.refs) > 1 && len(d.Plain) >= int(n.size) {
			res.whole, res.first = d, k-i
		}
		b := d.Bytes(k)[offset:]
		b = b[:min(size, int64(len(b)))]
		offset, size = 0, size-int64(len(b))
		res.bytes = append(res.bytes, b)
		res.size += len(b)
	}
	if size != 0 { // the tree's decoder makes sure of it
		return fmt.Errorf("inode %d: its blobs are shorter than the file", n.number)
	}
	return nil
}

// blobRecord returns the record that holds a blob, and its place in it. The
// caller has to release it. Errors have been reported.
func (s *Server) blobRecord(ref index.Ref, use use) (*blobstore.Decoded, int, error) {
	d, i, err := s.record(context.Background(), ref.ID, use)
	if err == nil {
		if d.Blobs[i].Length == ref.Length {
			return d, i, nil
		}
		d.Release()
		err = fmt.Errorf("blob %s: not the length that the tree says: %w", ref.ID, blobstore.ErrDamaged)
	}
	s.reportFailure(ref.ID, err)
	return nil, 0, err
}

// reportFailure counts a blob that cannot be read, and logs it the first time.
func (s *Server) reportFailure(id blobstore.ID, err error) {
	if errors.Is(err, os.ErrClosed) {
		return // the mount has ended while a file was pushed
	}
	if errors.Is(err, blobstore.ErrDamaged) {
		s.counters.damaged.Add(1)
	} else {
		s.counters.failures.Add(1)
	}
	if _, again := s.reported.LoadOrStore(id, true); !again {
		s.log.Error("cannot be read, its files give I/O errors", "err", err)
	}
}

// readResult is the answer to a READ: slices of decoded records. go-fuse
// writes what has a method Slices without joining it, and calls Done when the
// kernel has it.
type readResult struct {
	bytes   [][]byte
	records []*blobstore.Decoded // that have them
	size    int
	server  *Server // set where the read is to be followed by a prefetch
	read    *inode
	// The record that may hold the whole file, and where its first blob is.
	whole *blobstore.Decoded
	first int
}

var readResults = sync.Pool{New: func() any { return new(readResult) }}

var _ fuse.ReadResult = (*readResult)(nil)

func (res *readResult) Slices() ([][]byte, fuse.Status) { return res.bytes, fuse.OK }

func (res *readResult) Size() int { return res.size }

func (res *readResult) Bytes(buf []byte) ([]byte, fuse.Status) {
	buf = buf[:0]
	for _, b := range res.bytes {
		buf = append(buf, b...)
	}
	return buf, fuse.OK
}

// Done starts the prefetch: the reader has its answer, and the kernel has let
// go of the pages that it locked for it.
func (res *readResult) Done() {
	s, n, whole, first := res.server, res.read, res.whole, res.first
	switch {
	case n == nil:
	case whole != nil:
		s.pushWhole(n, whole, first)
	default:
		s.prefetch(n, res.records[0])
	}
	for _, d := range res.records {
		d.Release()
	}
	clear(res.bytes) // they would keep records in memory
	clear(res.records)
	*res = readResult{bytes: res.bytes[:0], records: res.records[:0]}
	readResults.Put(res)
}
