package recordfs

import (
	"maps"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// FS is the file system. A process that maps its files must not be the one
// that serves it: a fault that waits for the server would keep the runtime from
// running it.
type FS struct {
	fuse.RawFileSystem
	server *fuse.Server

	mu      sync.Mutex
	disk    *Disk
	last    uint64 // number that was given out last
	log     []Op
	done    int // operations asked for since Before was set, whether or not they were done
	before  func(n int, o *Op) unix.Errno
	unnamed bool
}

var _ fuse.RawFileSystem = (*FS)(nil)

// Options say what the file system is like.
type Options struct {
	// NoUnnamed refuses files without a name, as network file systems do.
	NoUnnamed bool
}

// Mount mounts an empty file system on dir.
func Mount(dir string, o Options) (*FS, error) {
	f := &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: NewDisk(), last: Root, unnamed: !o.NoUnnamed}
	server, err := fuse.NewServer(f, dir, &fuse.MountOptions{
		FsName: "recordfs", Name: "recordfs", DirectMount: true, DisableXAttrs: true, MaxWrite: 1 << 20,
	})
	if err != nil {
		return nil, err
	}
	f.server = server
	go server.Serve()
	return f, server.WaitMount()
}

// Unmount ends it.
func (f *FS) Unmount() error { return f.server.Unmount() }

// Log returns the operations so far.
func (f *FS) Log() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Disk returns a copy of what the file system holds.
func (f *FS) Disk() *Disk {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk.Clone()
}

// Reset has it hold a copy of a disk, which must be what it held at some time.
// Nothing in it may be open.
func (f *FS) Reset(d *Disk) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disk, f.log = d.Clone(), nil
}

// Before has fn asked before each operation, with how many it was asked about
// before that. What it returns fails the operation unless it is 0. With nil,
// nothing is asked.
func (f *FS) Before(fn func(n int, o *Op) unix.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.done = fn, 0
}

// Asked is how many operations Before's fn was asked about.
func (f *FS) Asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

// do logs an operation and does it. The caller has f.mu.
func (f *FS) do(o Op) fuse.Status {
	if f.before != nil {
		n := f.done
		f.done++
		if errno := f.before(n, &o); errno != 0 {
			return fuse.Status(errno)
		}
	}
	f.log = append(f.log, o)
	f.disk.Apply(&o)
	return fuse.OK
}

func (f *FS) attr(node uint64, a *fuse.Attr) {
	*a = fuse.Attr{Ino: node, Nlink: 1, Mtime: 1_700_000_000, Ctime: 1_700_000_000, Atime: 1_700_000_000}
	if _, ok := f.disk.folders[node]; ok {
		a.Mode, a.Nlink = unix.S_IFDIR|0o755, 2
		return
	}
	a.Mode, a.Size = unix.S_IFREG|0o644, uint64(len(f.disk.files[node]))
	a.Blocks = (a.Size + 511) / 512
}

func (f *FS) entry(node uint64, out *fuse.EntryOut) {
	out.NodeId, out.Generation = node, 1
	f.attr(node, &out.Attr)
}

func (f *FS) String() string { return "recordfs" }

func (f *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, ok := f.disk.folders[h.NodeId][name]
	if !ok {
		return fuse.ENOENT
	}
	f.entry(node, out)
	return fuse.OK
}

func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		if s := f.do(Op{Kind: Truncate, Node: in.NodeId, Size: int64(size)}); !s.Ok() {
			return s
		}
	}
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	s := f.do(Op{Kind: Mkdir, Node: f.last, Dir: in.NodeId, Name: name})
	if s.Ok() {
		f.entry(f.last, out)
	}
	return s
}

func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	s := f.do(Op{Kind: Create, Node: f.last, Dir: in.NodeId, Name: name})
	if s.Ok() {
		f.entry(f.last, &out.EntryOut)
	}
	return s
}

func (f *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.unnamed {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	f.last++
	s := f.do(Op{Kind: Unnamed, Node: f.last})
	if s.Ok() {
		f.entry(f.last, &out.EntryOut)
		out.Nlink = 0
	}
	return s
}

func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.disk.folders[in.NodeId][name]; ok {
		return fuse.Status(unix.EEXIST)
	}
	s := f.do(Op{Kind: Link, Node: in.Oldnodeid, Dir: in.NodeId, Name: name})
	if s.Ok() {
		f.entry(in.Oldnodeid, out)
	}
	return s
}

func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, to string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, ok := f.disk.folders[in.NodeId][name]
	if !ok || in.Flags != 0 {
		return fuse.EINVAL
	}
	return f.do(Op{Kind: Rename, Node: node, Dir: in.NodeId, Name: name, ToDir: in.Newdir, To: to})
}

func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, ok := f.disk.folders[h.NodeId][name]
	if !ok {
		return fuse.ENOENT
	}
	return f.do(Op{Kind: Remove, Node: node, Dir: h.NodeId, Name: name})
}

func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in.Flags&unix.O_TRUNC != 0 {
		return f.do(Op{Kind: Truncate, Node: in.NodeId})
	}
	return fuse.OK
}

func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.disk.files[in.NodeId]
	n := 0
	if in.Offset < uint64(len(b)) {
		n = copy(buf, b[in.Offset:])
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.do(Op{Kind: Write, Node: in.NodeId, Offset: int64(in.Offset), Data: slices.Clone(data)})
	if !s.Ok() {
		return 0, s
	}
	return uint32(len(data)), s
}

func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.do(Op{Kind: Sync, Node: in.NodeId})
}

func (f *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.do(Op{Kind: SyncDir, Node: in.NodeId})
}

func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (f *FS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

func (f *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry != nil {
			f.entry(e.Ino, entry)
		}
		return entry != nil
	})
}

func (f *FS) list(in *fuse.ReadIn, add func(fuse.DirEntry) bool) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := slices.Sorted(maps.Keys(f.disk.folders[in.NodeId]))
	for i := in.Offset; i < uint64(len(names)); i++ {
		node := f.disk.folders[in.NodeId][names[i]]
		e := fuse.DirEntry{Name: names[i], Ino: node, Mode: unix.S_IFREG, Off: i + 1}
		if f.disk.folders[node] != nil {
			e.Mode = unix.S_IFDIR
		}
		if !add(e) {
			break
		}
	}
	return fuse.OK
}

func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Blocks: 1 << 30, Bfree: 1 << 29, Bavail: 1 << 29, Files: 1 << 20, Ffree: 1 << 19, Bsize: 4096, NameLen: 255, Frsize: 4096}
	return fuse.OK
}

// Wait has Before's fn wait for c while others are answered.
func (f *FS) Wait(c <-chan struct{}) {
	f.mu.Unlock()
	<-c
	f.mu.Lock()
}
