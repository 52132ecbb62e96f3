package fs

import (
	"path/filepath"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
)

// fmodeExec is among ReadIn.Flags where a file was opened to run it
// (__FMODE_EXEC of Linux's fs.h, which stays in the flags of the open file).
const fmodeExec = 0x20

// A program is read by page faults: here and there, each waiting for the one
// before. So whoever runs one has all of it pushed into the page cache meanwhile,
// which keeps a second processor busy: the first go version after a mount took
// 112 ms and takes 81.

// runs starts to push a program that was opened to run it.
func (s *Server) runs(n *inode) {
	now := s.clock()
	before := n.cached.Load()
	if n.small() || before != 0 && now-before < int64(lost) || s.through != nil && s.hot.takes(n) || !n.cached.CompareAndSwap(before, now) {
		return
	}
	if g := n.home.Load(); g != nil && g.isGo(n) {
		g.toTools.Store(toolsAfter)
	}
	go s.pushProgram(n)
}

// pushProgram pushes a program, out of the hot layer where that has it.
func (s *Server) pushProgram(n *inode) {
	if s.pushHot(n) {
		return
	}
	p := pieces{n: n, buf: make([]byte, 0, pushPiece)}
	for _, ref := range n.refs {
		// A record that has the whole program is large, and so kept.
		d, i, err := s.blobRecord(ref, once)
		if err != nil { // the reader gets it
			n.cached.Store(0)
			return
		}
		ok := p.give(s, d.Bytes(i))
		d.Release()
		if !ok {
			return
		}
	}
	s.counters.pushed(n.size)
}

// pushHot says whether the hot layer had all of a program.
func (s *Server) pushHot(n *inode) bool {
	if !s.hot.takes(n) {
		return false
	}
	buf := make([]byte, min(pushPiece, n.size))
	for offset := int64(0); offset < n.size; {
		k, ok := s.hot.read(n, buf, offset)
		if !ok {
			return false
		}
		if !s.givePiece(n, offset, buf[:k]) {
			return true // the kernel does not want it
		}
		offset += int64(k)
	}
	s.counters.pushed(n.size)
	return true
}

// pieces pushes a file that comes blob by blob. The kernel counts a page that
// it is given in part for nothing, so blobs are joined to pieces of whole pages.
type pieces struct {
	n      *inode
	offset int64
	buf    []byte
}

func (p *pieces) give(s *Server, b []byte) bool {
	for len(b) > 0 {
		k := min(len(b), pushPiece-len(p.buf))
		p.buf, b = append(p.buf, b[:k]...), b[k:]
		if len(p.buf) < pushPiece && p.offset+int64(len(p.buf)) < p.n.size {
			return true
		}
		if !s.givePiece(p.n, p.offset, p.buf) {
			return false
		}
		p.offset, p.buf = p.offset+int64(len(p.buf)), p.buf[:0]
	}
	return true
}

// givePiece pushes a part of a large file.
func (s *Server) givePiece(n *inode, offset int64, b []byte) bool {
	k := s.kernel.Load()
	if k == nil {
		return false
	}
	switch (*k).InodeNotifyStoreCache(n.number, offset, b) {
	case fuse.OK:
		return true
	case fuse.ENOENT:
		s.counters.storesUnknown.Add(1)
	default:
		s.counters.storesFailed.Add(1)
	}
	n.cached.Store(0)
	return false
}

// A go command that has listed some folders is about to build, and first asks
// the compiler and the assembler for their versions. It looks at folders for 100
// ms and more before, in which a processor is idle: they are brought then, and
// with them what it runs at the end, since in a compacted store the tools are
// deltas of each other, whose bases are in memory now. One that has read tests by
// then is go list, which runs none.
const toolsAfter = 8

var tools = []string{"compile", "asm", "link", "cgo"}

// builds says whether the folder that is listed now shows that the go command
// that runs is about to build; g.listed.mu is held.
func (g *grown) builds() bool {
	left := g.toTools.Load()
	return left > 0 && g.toTools.CompareAndSwap(left, left-1) && left == 1 && g.listed.tests == 0
}

// isGo says whether a file is the go command of the release.
func (g *grown) isGo(n *inode) bool {
	at, ok := g.find("bin", "go")
	return ok && g.inodes[at] == n
}

// find returns the entry with a path.
func (g *grown) find(path ...string) (i int32, ok bool) {
	folder := int32(0)
	for k, name := range path {
		if i, ok = g.lookup(folder, name); !ok {
			return 0, false
		}
		e := &g.Entries[i]
		if isFolder := e.Kind == index.Folder; isFolder != (k < len(path)-1) {
			return 0, false
		}
		folder = e.Folder
	}
	return i, true
}

// bringTools decodes the programs that a build is about to run, and pushes them.
// A build of a net/http program took 3 % less than when they were only decoded,
// and pushed when they ran: each chunk is decoded, checked and pushed while the
// processor has it at hand, and none is kept.
func (s *Server) bringTools(g *grown) {
	for _, name := range tools {
		path := []string{"pkg", "tool", g.platform, name}
		i, ok := g.find(path...)
		if !ok || g.inodes[i].cached.Load() != 0 {
			continue
		}
		if s.kernel.Load() == nil {
			return // nobody is there to push to
		}
		n := g.inodes[i]
		if s.hot.takes(n) {
			if f, err := s.hot.fetch(n); err == nil { // else whoever runs it sees to it
				f.release()
			}
			if s.through != nil {
				continue
			}
		}
		s.acquaint(g, path)
		if n.lookups.Load() > 0 && n.cached.CompareAndSwap(0, s.clock()) {
			n.note()
			s.pushProgram(n)
		}
	}
}

// acquaint has the kernel know a file: it takes no bytes of others. The way to
// that is to look the file up in the mount. It is not for who answers a request:
// another goroutine has to answer this one.
func (s *Server) acquaint(g *grown, path []string) {
	if r := s.now.Load().release(g.root); r != nil && r.tree.Load() == g {
		var st unix.Stat_t
		// Where the mount cannot be reached by its path, the file stays unknown.
		_ = unix.Lstat(filepath.Join(append([]string{s.dir, r.version.Name}, path...)...), &st)
	}
}

// pushPiece is how much of a large file is pushed at once, in bytes.
const pushPiece = 1 << 20

// pushWhole pushes a file that has been read from and lies in one record, as
// programs do in a compacted store. To decode such a record takes 100 ms and
// more; with many programs read at a time, those in memory would drive each
// other out between two READs of one.
func (s *Server) pushWhole(n *inode, d *blobstore.Decoded, first int) {
	now := s.clock()
	before := n.cached.Load()
	if before != 0 && now-before < int64(lost) || !holds(d.Blobs, d.Sound, first, n.refs) || !n.cached.CompareAndSwap(before, now) {
		return
	}
	b := d.Plain[d.Blobs[first].Offset:][:n.size]
	for offset := int64(0); offset < n.size; offset += pushPiece {
		if !s.givePiece(n, offset, b[offset:min(offset+pushPiece, n.size)]) {
			return
		}
	}
	s.counters.pushed(n.size)
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
