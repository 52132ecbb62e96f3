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
// behind the end of the folder: entries lie in the order of such a walk. A build
// goes by folders too, but leaves files out.
const sequential = 64

// walked says whether the kernel has been given all small files of some entries.
func (g *grown) walked(first, end int32) bool {
	return !slices.ContainsFunc(g.inodes[first:end], func(n *inode) bool {
		return n != nil && n.pushable() && n.cached.Load() == 0
	})
}

// lost is when a READ of a file that the kernel had means that it has dropped
// its pages, and not that READ and push crossed.
const lost = time.Second

// small says whether the file's neighbours are likely to be wanted with it.
func (n *inode) small() bool { return len(n.refs) == 1 && n.size <= prefetchFile }

// pushable says whether the inode is a file of the kind that is pushed.
func (n *inode) pushable() bool {
	return n.mode&unix.S_IFMT == unix.S_IFREG && n.size != 0 && n.small()
}

// clock is a time for inode.cached: nanoseconds since the mount, never 0.
func (s *Server) clock() int64 { return int64(time.Since(s.started)) | 1 }

// prefetch pushes siblings of a file that was read out of a record.
func (s *Server) prefetch(n *inode, d *blobstore.Decoded) {
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
	p := pusher{Server: s, kernel: *k, tree: g, since: 1, budget: prefetchBytes, class: index.ClassOf(g.Entries[at].Name)}
	if before != 0 && now-before > int64(lost) {
		p.since = now - int64(lost)
	}
	folder := g.folderOf(at)
	f := &g.Folders[folder]
	end := f.First + f.N
	if ahead := g.ahead.Load(); at >= ahead && at-ahead < sequential && g.walked(ahead, at) {
		end, p.class = int32(len(g.Entries)), anyClass
	} else if before == 0 && g.listed.wants(folder, p.class) {
		s.follow(g, folder, d)
		return
	}
	next := p.run(at+1, min(end, at+1+prefetchLook))
	g.ahead.Store(next)
	p.run(max(f.First, at-prefetchLook), at)
}

const anyClass = index.Classes

// pusher pushes files of a tree into the page cache.
type pusher struct {
	*Server
	kernel notifier
	tree   *grown
	since  int64       // the kernel has what was pushed since then
	budget int64       // bytes
	class  index.Class // of the files to push; anyClass for all
}

// run pushes the entries from first up to end while the budget lasts, and
// returns where it stopped.
func (p *pusher) run(first, end int32) int32 {
	for i := first; i < end; i++ {
		if p.budget <= 0 {
			return i
		}
		if n := p.tree.inodes[i]; n != nil && (p.class == anyClass || p.class == index.ClassOf(p.tree.Entries[i].Name)) {
			p.budget -= p.push(p.kernel, n, p.since)
		}
	}
	return end
}

// push gives the kernel a file that it knows and has not had since a time. It
// returns the bytes given.
func (s *Server) push(k notifier, n *inode, since int64) int64 {
	if !s.wants(n, since) {
		return 0
	}
	before := n.cached.Load()
	if before >= since || !n.cached.CompareAndSwap(before, s.clock()) {
		return 0
	}
	d, i, err := s.blobRecord(n.refs[0], again)
	if err != nil {
		n.cached.Store(0) // the reader gets the error
		return 0
	}
	s.give(k, n, d.Bytes(i))
	d.Release()
	return n.size
}

// wants says whether a file is one to push to a kernel that has not had it
// since a time.
func (s *Server) wants(n *inode, since int64) bool {
	return n.pushable() && n.lookups.Load() > 0 && n.cached.Load() < since &&
		!(s.through != nil && s.hot.takes(n)) // the kernel will read that elsewhere
}

// give pushes the bytes of a small file.
func (s *Server) give(k notifier, n *inode, b []byte) {
	switch k.InodeNotifyStoreCache(n.number, 0, b) {
	case fuse.OK:
		s.counters.pushed(n.size)
		n.note()
	case fuse.ENOENT:
		s.counters.storesUnknown.Add(1)
		n.cached.Store(0)
	default:
		s.counters.storesFailed.Add(1)
		n.cached.Store(0)
	}
}
