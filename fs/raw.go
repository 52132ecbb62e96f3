package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"gofs/index"
)

var _ fuse.RawFileSystem = (*rawFS)(nil)

// rawFS answers the kernel. It embeds the answers to whatever would change
// something; the kernel keeps most of that to itself, since the mount is
// read-only.
type rawFS struct {
	readOnly
	*Server
}

func newRawFS(s *Server) *rawFS { return &rawFS{newReadOnly(), s} }

// forever is how long the kernel may keep what it was told, in seconds: node
// ids never mean anything else, and what can change is invalidated.
const forever = 365 * 24 * 3600

const estale = fuse.Status(unix.ESTALE)

func (r *rawFS) String() string { return "gofs" }

func (r *rawFS) Init(server *fuse.Server) {
	var k notifier = server
	r.kernel.Store(&k)
	var b backer = server
	r.backer.Store(&b)
}

func (r *rawFS) OnUnmount() {
	r.kernel.Store(nil)
	r.backer.Store(nil)
}

func (r *rawFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r.counters.add(opLookup)
	if l := r.now.Load().listing(h.NodeId); l != nil {
		if n := l.byName[name]; n != nil {
			r.namedOut(n, out)
		} else {
			negative(out)
		}
		return fuse.OK
	}
	g, folder, ok, err := r.findFolder(h.NodeId)
	switch {
	case err != nil:
		return fuse.EIO
	case !ok && r.inode(h.NodeId) != nil:
		return fuse.ENOTDIR
	case !ok:
		return estale
	}
	i, ok := g.lookup(folder, name)
	if !ok {
		negative(out)
		return fuse.OK
	}
	r.entryOut(g, i, out)
	return fuse.OK
}

// negative makes the kernel remember that there is no such name.
func negative(out *fuse.EntryOut) { out.EntryValid = forever }

func (r *rawFS) Forget(node, n uint64) {
	r.counters.add(opForget)
	if i := r.inodes.get(node); i != nil && i.lookups.Add(-int64(n)) <= 0 {
		i.cached.Store(0) // its pages are gone with it
	}
}

func (r *rawFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r.counters.add(opGetAttr)
	out.AttrValid = forever
	e := r.now.Load()
	if l := e.listing(in.NodeId); l != nil {
		r.listingAttr(l, &out.Attr)
		return fuse.OK
	}
	if l := e.links[in.NodeId]; l != nil {
		r.linkAttr(l, &out.Attr)
		return fuse.OK
	}
	if n := r.inodes.get(in.NodeId); n != nil {
		r.inodeAttr(n, &out.Attr)
		return fuse.OK
	}
	if rel := e.release(in.NodeId); rel != nil && rel.version.RootNode == in.NodeId {
		r.versionAttr(rel, &out.Attr)
		return fuse.OK
	}
	if g, folder, ok, err := r.findFolder(in.NodeId); err != nil {
		return fuse.EIO
	} else if ok {
		r.folderAttr(g, folder, &out.Attr)
		return fuse.OK
	}
	if n := r.inode(in.NodeId); n != nil {
		r.inodeAttr(n, &out.Attr)
		return fuse.OK
	}
	return estale
}

func (r *rawFS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	r.counters.add(opReadlink)
	if l := r.now.Load().links[h.NodeId]; l != nil {
		return []byte(l.target), fuse.OK
	}
	switch n := r.inode(h.NodeId); {
	case n == nil:
		return nil, estale
	case n.mode&unix.S_IFMT != unix.S_IFLNK:
		return nil, fuse.EINVAL
	default:
		return []byte(n.target), fuse.OK
	}
}

// The first ENOSYS to each of these makes the kernel do without the request
// for as long as the mount lives. To OPEN and OPENDIR it also means that
// pages and listings may stay cached: find took 0.053 s with opens answered
// and 0.016 without, reading every file 0.70 and 0.23.

func (r *rawFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.counters.add(opOpen)
	if r.through == nil {
		return fuse.ENOSYS
	}
	n := r.inode(in.NodeId)
	if n == nil {
		return estale
	}
	n.note()
	r.openThrough(n, out)
	return fuse.OK
}

func (r *rawFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	r.counters.add(opRelease)
	if in.Fh == tracked {
		r.through.end(in.NodeId)
	}
}

func (r *rawFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	r.counters.add(opOpenDir)
	return fuse.ENOSYS
}

func (r *rawFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	r.counters.add(opFlush)
	return fuse.ENOSYS
}

func (r *rawFS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status {
	r.counters.add(opAccess)
	return fuse.ENOSYS
}

func (r *rawFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r.counters.add(opStatFs)
	e := r.now.Load()
	*out = fuse.StatfsOut{
		Blocks: uint64(e.bytes+blockSize-1) / blockSize, Files: uint64(e.files),
		Bsize: blockSize, Frsize: blockSize, NameLen: index.MaxName,
	}
	return fuse.OK
}

const blockSize = 4096

// attr fills in what all attributes have in common.
func (r *rawFS) attr(a *fuse.Attr, ino uint64, mode uint32, size int64, mtime int64) {
	a.Ino, a.Mode, a.Size = ino, mode, uint64(size)
	a.Blocks, a.Blksize = uint64(size+511)/512, blockSize
	a.Atime, a.Mtime, a.Ctime = uint64(mtime), uint64(mtime), uint64(mtime)
	a.Nlink = 1 // of a folder: not counted
	a.Owner = r.owner
}

func (r *rawFS) inodeAttr(n *inode, a *fuse.Attr) { r.attr(a, n.number, n.mode, n.size, n.mtime) }

func (r *rawFS) linkAttr(l *link, a *fuse.Attr) {
	r.attr(a, l.node, unix.S_IFLNK|0o777, int64(len(l.target)), l.mtime)
}

func (r *rawFS) folderAttr(g *grown, folder int32, a *fuse.Attr) {
	mode := uint32(g.Folders[folder].Mode)
	if folder == 0 {
		mode = versionMode
	}
	r.attr(a, g.root+uint64(folder), unix.S_IFDIR|mode, blockSize, g.mtime)
}

// versionMode is that of a version's folder.
const versionMode = 0o755

func (r *rawFS) versionAttr(rel *release, a *fuse.Attr) {
	r.attr(a, rel.version.RootNode, unix.S_IFDIR|versionMode, blockSize, rel.version.Time)
}

func (r *rawFS) listingAttr(l *listing, a *fuse.Attr) {
	r.attr(a, l.node, unix.S_IFDIR|0o755, blockSize, 0)
	a.SetTimes(&time.Time{}, &l.mtime, &l.mtime)
	a.Atime, a.Atimensec = a.Mtime, a.Mtimensec
}

// entryOut hands out entry i of a tree.
func (r *rawFS) entryOut(g *grown, i int32, out *fuse.EntryOut) {
	out.EntryValid, out.AttrValid = forever, forever
	if n := g.inodes[i]; n != nil {
		n.handOut(g, i)
		out.NodeId = n.number
		r.inodeAttr(n, &out.Attr)
		return
	}
	out.NodeId = g.node(i)
	r.folderAttr(g, g.Entries[i].Folder, &out.Attr)
}

// namedOut hands out an entry of the root or bin.
func (r *rawFS) namedOut(n *named, out *fuse.EntryOut) {
	out.NodeId, out.EntryValid, out.AttrValid = n.node, forever, forever
	switch {
	case n.link != nil:
		r.linkAttr(n.link, &out.Attr)
	case n.folder != nil:
		r.versionAttr(n.folder, &out.Attr)
	default:
		r.listingAttr(r.now.Load().bin, &out.Attr)
	}
}
