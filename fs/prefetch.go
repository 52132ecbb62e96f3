package fs

import (
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
)

// A program that reads one file of a folder mostly reads the others next, and
// records are groups of a folder's small files. So a small file's first READ
// is followed by a push of its siblings into the page cache (NOTIFY_STORE):
// the following ones first, since most readers go by name.
//
// It happens after the answer is written and in the goroutine that wrote it.
// Before the answer it could deadlock: NOTIFY_STORE waits for the lock of a
// page, which the kernel holds while it waits for the answer to another READ,
// whose prefetch could wait for a page of this one. Another goroutine would
// wake up too late: the reader is two files ahead by then.
const (
	prefetchFile  = 256 << 10 // larger files are not pushed, in bytes
	prefetchBytes = 1 << 20   // pushed for one READ
	prefetchLook  = 512       // entries looked at for one READ, each way
)

// sequential is how many entries behind the last push a READ may lie to count
// as that of a reader who takes folder after folder. Then the push goes on
// behind the end of the folder: entries lie in the order of such a walk.
const sequential = 64

// lost is when a READ of a file that the kernel had means that it has dropped
// its pages, and not that READ and push crossed.
const lost = time.Second

// small says whether the file's neighbours are likely to be wanted with it.
func (n *inode) small() bool { return len(n.refs) == 1 && n.size <= prefetchFile }

// clock is a time for inode.cached: nanoseconds since the mount, never 0.
func (s *Server) clock() int64 { return int64(time.Since(s.started)) | 1 }

// prefetch pushes siblings of a file that was read into the page cache.
func (s *Server) prefetch(n *inode) {
	now := s.clock()
	before := n.cached.Swap(now)
	select {
	case s.pushers <- struct{}{}:
		defer func() { <-s.pushers }()
	default:
		return // the next READ of the folder will do it
	}
	k, g, at := s.kernel.Load(), n.home.Load(), n.place.Load()
	if k == nil || g == nil || int(at) >= len(g.inodes) || g.inodes[at] != n { // changed just now
		return
	}
	p := pusher{Server: s, kernel: *k, tree: g, since: 1, budget: prefetchBytes}
	if before != 0 && now-before > int64(lost) {
		p.since = now - int64(lost)
	}
	f := &g.Folders[g.folderOf(at)]
	end := f.First + f.N
	if ahead := g.ahead.Load(); at >= ahead && at-ahead < sequential {
		end = int32(len(g.Entries))
	}
	next := p.run(at+1, min(end, at+1+prefetchLook))
	g.ahead.Store(next)
	p.run(max(f.First, at-prefetchLook), at)
}

// pusher pushes files of a tree into the page cache.
type pusher struct {
	*Server
	kernel notifier
	tree   *grown
	since  int64 // the kernel has what was pushed since then
	budget int64 // bytes
}

// run pushes the entries from first up to end while the budget lasts, and
// returns where it stopped.
func (p *pusher) run(first, end int32) int32 {
	for i := first; i < end; i++ {
		if p.budget <= 0 {
			return i
		}
		if n := p.tree.inodes[i]; n != nil {
			p.budget -= p.push(p.kernel, n, p.since)
		}
	}
	return end
}

// push gives the kernel a file that it knows and has not had since a time. It
// returns the bytes given.
func (s *Server) push(k notifier, n *inode, since int64) int64 {
	if n.mode&unix.S_IFMT != unix.S_IFREG || n.size == 0 || !n.small() || n.lookups.Load() <= 0 {
		return 0
	}
	if s.through != nil && s.hot.takes(n) { // the kernel will read it elsewhere
		return 0
	}
	before := n.cached.Load()
	if before >= since || !n.cached.CompareAndSwap(before, s.clock()) {
		return 0
	}
	b, err := s.blob(n.refs[0])
	if err != nil {
		n.cached.Store(0) // the reader gets the error
		return 0
	}
	switch k.InodeNotifyStoreCache(n.number, 0, b) {
	case fuse.OK:
		s.counters.stores.Add(1)
		s.counters.storedBytes.Add(uint64(n.size))
		n.note()
	case fuse.ENOENT:
		s.counters.storesUnknown.Add(1)
		n.cached.Store(0)
	default:
		s.counters.storesFailed.Add(1)
		n.cached.Store(0)
	}
	return n.size
}

// pushPiece is how much of a large file is pushed at once, in bytes.
const pushPiece = 1 << 20

// pushWhole pushes a file that has been read from and lies in one record, as
// programs do in a compacted store. To decode such a record takes 100 ms and
// more; with many programs read at a time, those in memory would drive each
// other out between two READs of one.
func (s *Server) pushWhole(n *inode, d *blobstore.Decoded, first int) {
	k, now := s.kernel.Load(), s.clock()
	before := n.cached.Load()
	if k == nil || before != 0 && now-before < int64(lost) || !holds(d.Blobs, d.Sound, first, n.refs) || !n.cached.CompareAndSwap(before, now) {
		return
	}
	b := d.Plain[d.Blobs[first].Offset:][:n.size]
	for offset := int64(0); offset < n.size; offset += pushPiece {
		switch (*k).InodeNotifyStoreCache(n.number, offset, b[offset:min(offset+pushPiece, n.size)]) {
		case fuse.OK:
			continue
		case fuse.ENOENT:
			s.counters.storesUnknown.Add(1)
		default:
			s.counters.storesFailed.Add(1)
		}
		n.cached.Store(0)
		return
	}
	s.counters.stores.Add(1)
	s.counters.storedBytes.Add(uint64(n.size))
	if n.afterPushed() {
		s.decodeNext(n)
	}
}

// afterPushed says whether the file pushed whole before this one in its tree
// is the large file before it in its folder: then somebody takes one after
// the other, whose last READ of each never comes.
func (n *inode) afterPushed() bool {
	g, at := n.home.Load(), n.place.Load()
	if g == nil || int(at) >= len(g.inodes) || g.inodes[at] != n { // changed just now
		return false
	}
	before := g.pushed.Swap(at)
	if before < g.Folders[g.folderOf(at)].First || before >= at {
		return false
	}
	return !slices.ContainsFunc(g.inodes[before+1:at], func(n *inode) bool { return n != nil && len(n.refs) > 1 })
}

// holds says whether blobs lie in a record one behind the other from its blob
// first on, and are sound.
func holds(blobs []blobstore.Member, sound func(i int) bool, first int, refs []index.Ref) bool {
	if first < 0 || len(refs) > len(blobs)-first {
		return false
	}
	next := blobs[first].Offset
	for i, m := range blobs[first : first+len(refs)] {
		if !sound(first+i) || m.ID != refs[i].ID || m.Length != refs[i].Length || m.Offset != next {
			return false
		}
		next += m.Length
	}
	return true
}
