package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"gofs/index"
)

func (r *rawFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.counters.add(opReadDir)
	return r.readDir(in, out, false)
}

// ReadDirPlus makes the kernel know all inodes of the folder, which spares it
// a LOOKUP for each and is what prefetch rests on.
func (r *rawFS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.counters.add(opReadDirPlus)
	return r.readDir(in, out, true)
}

func (r *rawFS) readDir(in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	if l := r.now.Load().listing(in.NodeId); l != nil {
		r.readListing(l, in.Offset, out, plus)
		return fuse.OK
	}
	g, folder, ok, err := r.findFolder(in.NodeId)
	switch {
	case err != nil:
		return fuse.EIO
	case !ok:
		return estale
	}
	r.readFolder(g, folder, in.Offset, out, plus)
	return fuse.OK
}

// readFolder lists a folder of a tree. Offsets: 1 is behind ".", 2 behind
// "..", and i+3 behind entry i of the folder.
func (r *rawFS) readFolder(g *grown, folder int32, offset uint64, out *fuse.DirEntryList, plus bool) {
	parent := uint64(rootNode)
	if folder != 0 {
		parent = g.root + uint64(g.Folders[folder].Parent)
	}
	if !addDots(out, g.root+uint64(folder), parent, offset, plus) {
		return
	}
	f := &g.Folders[folder]
	if plus && offset == 0 {
		defer r.list(g, folder)
	}
	for k := max(offset, 2) - 2; k < uint64(f.N); k++ {
		i := f.First + int32(k)
		e := fuse.DirEntry{Name: g.Entries[i].Name, Mode: kindMode(g.Entries[i].Kind), Ino: g.node(i), Off: k + firstCookie}
		if plus {
			entry := out.AddDirLookupEntry(e)
			if entry == nil {
				return
			}
			r.entryOut(g, i, entry)
		} else if !out.AddDirEntry(e) {
			return
		}
	}
}

// readListing lists the root or bin. The offset behind a name is its cookie.
func (r *rawFS) readListing(l *listing, offset uint64, out *fuse.DirEntryList, plus bool) {
	if !addDots(out, l.node, rootNode, offset, plus) {
		return
	}
	list := l.after(offset)
	for i := range list {
		n := &list[i]
		e := fuse.DirEntry{Name: n.name, Mode: n.mode(), Ino: n.node, Off: n.cookie}
		if plus {
			entry := out.AddDirLookupEntry(e)
			if entry == nil {
				return
			}
			r.namedOut(n, entry)
		} else if !out.AddDirEntry(e) {
			return
		}
	}
}

// addDots adds "." and ".."; false means that there is no room. They get no
// node id, which would count as a lookup that the kernel does not forget.
func addDots(out *fuse.DirEntryList, self, parent, offset uint64, plus bool) bool {
	for i, e := range [...]fuse.DirEntry{{Name: ".", Ino: self}, {Name: "..", Ino: parent}} {
		e.Mode, e.Off = unix.S_IFDIR, uint64(i)+1
		if offset >= e.Off {
			continue
		}
		if plus {
			if out.AddDirLookupEntry(e) == nil {
				return false
			}
		} else if !out.AddDirEntry(e) {
			return false
		}
	}
	return true
}

func kindMode(k index.Kind) uint32 {
	switch k {
	case index.Folder:
		return unix.S_IFDIR
	case index.Symlink:
		return unix.S_IFLNK
	}
	return unix.S_IFREG
}
