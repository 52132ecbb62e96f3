package fs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// With passthrough, an OPEN is answered with a file of the hot layer, which
// the kernel then reads by itself. It costs an OPEN and a RELEASE for every
// open(2), which a mount without passthrough is never sent, and saves the
// second copy in memory.
//
// The kernel has rules for it: all who have an inode open at a time must
// have it the same way, passed through to the same registered file or not at
// all; else open(2) fails with EIO. So it is decided when an inode is opened
// that nobody has open. The RELEASE comes after the kernel has let go, so
// what is counted here is never less than what the kernel counts.

// ErrPassthrough is returned where passthrough was asked for and cannot be.
var ErrPassthrough = errors.New("no passthrough")

// passthrough is the state of a mount with --io passthrough.
type passthrough struct {
	mu   sync.Mutex
	open map[uint64]*openInode

	opens  atomic.Uint64 // passed through
	cached atomic.Uint64 // answered without
}

// openInode is an inode that is open.
type openInode struct {
	opens int
	file  *hotFile // nil: read through the daemon
}

// backer registers files with the kernel.
type backer interface {
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(int32) syscall.Errno
}

const capSysAdmin = 21

// checkPassthrough says before the mount whether passthrough can be.
func checkPassthrough() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("%w: %w", ErrPassthrough, err)
	}
	if caps[0].Effective&(1<<capSysAdmin) == 0 {
		return fmt.Errorf("%w: it needs the capability CAP_SYS_ADMIN (root has it)", ErrPassthrough)
	}
	return nil
}

// probePassthrough says once the kernel has answered whether it can do it
// with the hot folder.
func (s *Server) probePassthrough(kernel uint64) error {
	if kernel&fuse.CAP_PASSTHROUGH == 0 {
		var u unix.Utsname
		_ = unix.Uname(&u)
		return fmt.Errorf("%w: Linux %s does not know it (6.9 does, built with CONFIG_FUSE_PASSTHROUGH)", ErrPassthrough, unix.ByteSliceToString(u.Release[:]))
	}
	name := tempName()
	f, err := s.hot.folder.openat(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPassthrough, err)
	}
	defer f.Close()
	defer unix.Unlinkat(s.hot.folder.fd(), name, 0)
	id, err := s.register(f)
	switch {
	case err == nil:
		s.unregister(id)
		return nil
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: the hot folder %s lies on a stacked file system such as overlay (--hot tmpfs does not)", ErrPassthrough, s.hot.folder.place)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the kernel does not permit it (CAP_SYS_ADMIN outside of user namespaces is needed)", ErrPassthrough)
	}
	return fmt.Errorf("%w: %w", ErrPassthrough, err)
}

// register has the kernel know a file by an id.
func (s *Server) register(f *os.File) (int32, error) {
	b := s.backer.Load()
	if b == nil {
		return 0, os.ErrClosed
	}
	id, errno := (*b).RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.Fd())})
	if errno != 0 {
		return 0, os.NewSyscallError("register backing file", errno)
	}
	return id, nil
}

func (s *Server) unregister(id int32) {
	if b := s.backer.Load(); b != nil {
		(*b).UnregisterBackingFd(id) // else it went with the mount
	}
}

// backingID is the id of a file of the hot layer. It stays registered for as
// long as the file is kept, so there are as many as files at most.
func (s *Server) backingID(f *hotFile) (int32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.backing == 0 {
		id, err := s.register(f.file)
		if err != nil {
			return 0, err
		}
		f.backing = id
		s.hot.backings.Add(1)
	}
	return f.backing, nil
}

// tracked is the file handle of the opens that are counted.
const tracked = 1

// openThrough answers an OPEN.
func (s *Server) openThrough(n *inode, out *fuse.OpenOut) {
	p := s.through
	if !s.hot.takes(n) {
		p.cached.Add(1)
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		return
	}
	o, id := p.join(n.number), int32(0)
	if o == nil {
		file := s.backingOf(n)
		var first bool
		if o, first = p.begin(n.number, file); !first && file != nil {
			file.release()
		}
	}
	if o.file != nil {
		id, _ = s.backingID(o.file) // it is registered
	}
	s.answerOpen(o, id, out)
}

func (s *Server) answerOpen(o *openInode, id int32, out *fuse.OpenOut) {
	out.Fh = tracked
	if o.file == nil {
		s.through.cached.Add(1)
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		return
	}
	s.through.opens.Add(1)
	out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, id
}

// backingOf returns the file in the hot layer, acquired and registered; nil
// where the inode is to be read through the daemon.
func (s *Server) backingOf(n *inode) *hotFile {
	file, err := s.hot.fetch(n)
	if err != nil {
		return nil
	}
	if _, err := s.backingID(file); err != nil {
		file.release()
		s.hot.failed(err)
		return nil
	}
	return file
}

// join counts an open of an inode that is open; nil where it is not.
func (p *passthrough) join(node uint64) *openInode {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.open[node]
	if o != nil {
		o.opens++
	}
	return o
}

// begin counts an open. The first says how the inode is opened.
func (p *passthrough) begin(node uint64, file *hotFile) (o *openInode, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o = p.open[node]; o == nil {
		o, first = &openInode{file: file}, true
		p.open[node] = o
	}
	o.opens++
	return o, first
}

// end counts a RELEASE.
func (p *passthrough) end(node uint64) {
	p.mu.Lock()
	o := p.open[node]
	if o == nil {
		p.mu.Unlock()
		return
	}
	o.opens--
	last := o.opens == 0
	if last {
		delete(p.open, node)
	}
	p.mu.Unlock()
	if last && o.file != nil {
		o.file.release()
	}
}

// closeAll lets go of what the kernel did not get to release.
func (p *passthrough) closeAll() {
	if p == nil {
		return
	}
	p.mu.Lock()
	open := p.open
	p.open = map[uint64]*openInode{}
	p.mu.Unlock()
	for _, o := range open {
		if o.file != nil {
			o.file.release()
		}
	}
}
