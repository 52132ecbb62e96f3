// Package fs serves a store's releases as a read-only FUSE file system.
//
// The root has a folder for each version, a symbolic link for each alias
// (1.23, latest) and bin with a link go<version> for each version of this
// machine's platform.
//
// The aim is a daemon that is not asked: node ids are the permanent inode
// numbers of package index, so every entry, attribute, negative lookup, link
// and page may stay in the kernel for ever, opens and closes are answered
// ENOSYS once and never sent again, and a second identical build sends no
// message at all. A reload invalidates exactly the names of the root and of
// bin that changed.
//
// The folder of a version always shows mode 0755, whatever mode the archive
// gave it: so listing the root reads no tree.
package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"gofs/blobstore"
	"gofs/index"
)

// Options are the options of a mount. The zero value mounts for the own user
// only.
type Options struct {
	// AllowOther lets all users see the mount. Users other than root need
	// user_allow_other in /etc/fuse.conf for it.
	AllowOther bool
	// DecodedCache bounds the memory for decoded records, in bytes. The
	// kernel caches what was read too, so it only needs to hold what several
	// reads of one record share. Default: 64 MiB.
	DecodedCache int64
	// Hot has the mount keep decoded files; nil keeps none.
	Hot *Hot
	// Passthrough has the kernel read the files of the hot layer by itself.
	// It needs Hot, Linux 6.9 and CAP_SYS_ADMIN. Every open(2) then costs a
	// request.
	Passthrough bool
	// Notes is the file that tells later mounts which files were read.
	// Default: that is not noted.
	Notes string
	// RunDir is the folder for the socket on which the mount can be asked, see
	// Ask; it is made with mode 0700 where it is missing. Default: no socket.
	RunDir string
	// Log gets damaged blobs and failed reloads. Default: nothing is logged.
	Log *slog.Logger
	// Debug logs every message of the kernel.
	Debug bool
	// Launcher is the program that bin/go and bin/gofmt link to, which picks a
	// release and runs it. Default: there are no such links.
	Launcher string
	// FsName is the source shown in /proc/mounts. Default: the store's folder.
	FsName string
}

const defaultDecodedCache = 64 << 20

var (
	// ErrBusy is returned where files of the mount are in use.
	ErrBusy = errors.New("mount is in use")
	// ErrNoFuse is returned where the kernel has no FUSE device.
	ErrNoFuse = errors.New("no /dev/fuse (load the fuse module; in a container, pass the device in)")
	// ErrNoFusermount is returned where a user other than root has no program
	// to mount with.
	ErrNoFusermount = errors.New("no fusermount3 (install the package fuse3)")
	// ErrMayNot is returned where the kernel does not permit to mount, as in
	// a container that has not been given the right.
	ErrMayNot = errors.New("mounting is not permitted (a container needs --cap-add SYS_ADMIN --device /dev/fuse, and no AppArmor profile that forbids it)")
	// ErrReplaced is returned by a reload where another store lies in the
	// folder now, whose inode numbers mean other files.
	ErrReplaced = errors.New("another store took this one's place: mount it anew")
)

// Server is a mount.
type Server struct {
	store    *index.Store
	launcher string
	dir      string
	log      *slog.Logger
	cache    *blobstore.Cache
	owner    fuse.Owner

	fuse   *fuse.Server // nil before the mount
	device *Device
	kernel atomic.Pointer[notifier]
	backer atomic.Pointer[backer]
	done   chan struct{}

	now    atomic.Pointer[epoch]
	inodes table

	hot     *hotLayer    // nil without one
	through *passthrough // nil where the kernel reads through the daemon
	control *control     // nil without a socket
	notes   string       // file
	noted   time.Time    // when it was written
	idle    idleness

	// reloading serializes what changes now, retired and cookies. No handler
	// of a request may take it: the kernel is notified while it is held.
	reloading sync.Mutex
	cookies   map[string]uint64 // of all names that were ever shown in the root and in bin
	closed    bool
	announced atomic.Uint64 // generation that needs no reload
	pruning   sync.RWMutex  // keeps prune from missing trees that come meanwhile

	retiredMu sync.Mutex
	retired   []retiredPacks

	pushers  chan struct{} // a slot for each prefetch under way
	decoders chan struct{} // a slot for each decoding ahead
	reported sync.Map      // blob ID -> whether its failure has been logged
	failed   atomic.Pointer[string]
	counters counters
	started  time.Time
	restarts int // of the process that serves
}

// notifier is what the file system tells the kernel.
type notifier interface {
	EntryNotify(parent uint64, name string) fuse.Status
	InodeNotify(node uint64, off, length int64) fuse.Status
	InodeNotifyStoreCache(node uint64, offset int64, data []byte) fuse.Status
}

// newServer opens the store; nothing is served yet.
func newServer(store *index.Store, o Options, before past) (*Server, error) {
	if o.DecodedCache == 0 {
		o.DecodedCache = defaultDecodedCache
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s := &Server{
		store:    store,
		notes:    o.Notes,
		noted:    time.Now(),
		log:      o.Log,
		cache:    blobstore.NewCache(o.DecodedCache),
		owner:    fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())},
		done:     make(chan struct{}),
		cookies:  map[string]uint64{},
		pushers:  make(chan struct{}, 4*runtime.GOMAXPROCS(0)),
		decoders: make(chan struct{}, runtime.GOMAXPROCS(0)),
		started:  before.Started,
		restarts: before.Restarts,
		launcher: o.Launcher,
	}
	maps.Copy(s.cookies, before.Cookies)
	snap, view, err := store.OpenView(s.cache)
	if err != nil {
		return nil, err
	}
	if snap.Generation < before.Generation {
		view.Close()
		return nil, fmt.Errorf("%w: %w", ErrTakeover, ErrReplaced)
	}
	for name, err := range view.Broken() {
		s.log.Warn("pack cannot be read", "pack", name, "err", err)
	}
	s.announced.Store(snap.Generation)
	s.now.Store(s.newEpoch(nil, snap, newPacks(view)))
	return s, nil
}

// Mount mounts the store on dir and returns when the kernel gets answers. The
// error is ErrNoFuse, ErrNoFusermount, ErrMayNot, one of package index or one
// of mount(2).
func Mount(ctx context.Context, store *index.Store, dir string, o Options) (*Server, error) {
	d, err := Attach(ctx, store, dir, o)
	if err != nil {
		return nil, err
	}
	s, err := Serve(ctx, store, d, o)
	if err != nil {
		return nil, errors.Join(err, d.Detach())
	}
	return s, nil
}

// Serve serves what Attach has mounted, or Inherit has got from the process
// before, and returns when the kernel gets answers. The device is the
// server's then; on an error it stays the caller's. The error is ErrTakeover
// where only a mount anew can help. The threads of the process get a timer slack
// of 1 ms where that is permitted.
func Serve(ctx context.Context, store *index.Store, d *Device, o Options) (*Server, error) {
	if d.line == nil { // else the supervisor has seen to it
		slacken()
	}
	resumed := d.Answer != nil
	s, err := newServer(store, o, d.past)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", d.Dir, err)
	}
	s.dir, s.device = d.Dir, d
	err = s.openHot(o)
	if resumed && errors.Is(err, ErrHotInUse) {
		// The process before is not gone yet, and will not be until its reads
		// are answered.
		s.log.Error("the mount goes on without the hot layer (gofs mount --replace brings it back)", "err", err)
		err = nil
	}
	if err == nil {
		err = s.attach(d, o)
	}
	if err != nil {
		s.hot.close()
		s.closeViews()
		return nil, fmt.Errorf("mount %s: %w", d.Dir, err)
	}
	s.tellShown(s.now.Load())
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watcher sync.WaitGroup
	settled := make(chan struct{})
	settle := sync.OnceFunc(func() { close(settled) })
	defer settle()
	watcher.Go(func() { s.watch(watching) })
	watcher.Go(func() { s.preload(watching) })
	go func() {
		s.fuse.Serve()
		stop()
		watcher.Wait()
		<-settled
		s.keepNotes()
		s.through.closeAll()
		s.hot.close()
		s.closeViews()
		s.control.close()
		close(s.done)
	}()
	if resumed {
		s.invalidateAll()
	} else if err := s.begin(); err != nil {
		settle()
		return nil, errors.Join(fmt.Errorf("mount %s: %w", d.Dir, err), s.Unmount())
	}
	if err := s.raiseReadahead(); err != nil {
		s.log.Debug("read-ahead is left as it is", "err", err)
	}
	if o.RunDir != "" {
		if err := s.listen(o.RunDir); err != nil {
			s.log.Warn("no socket: gofs mount-stats and gofs warm cannot reach the mount", "err", err)
		}
	}
	d.file.Close() // go-fuse has its own
	d.line.attend(s)
	s.logStart()
	return s, nil
}

// begin tries a new mount.
func (s *Server) begin() error {
	if err := touch(s.dir); err != nil {
		return err
	}
	if s.through == nil {
		return nil
	}
	return s.probePassthrough(s.fuse.KernelSettings().Flags64())
}

// logStart says what the mount makes use of.
func (s *Server) logStart() {
	st := s.Stats()
	attrs := []any{"store", s.store.Dir(), "versions", st.Versions, "io", st.IO.Mode}
	if st.Hot != nil {
		attrs = append(attrs, "hot", st.Hot.Place, "hot_limit", st.Hot.Limit, "hot_files", st.Hot.Files)
	}
	s.log.Info("serving", attrs...)
}

// checkHot refuses what cannot be before anything is made.
func checkHot(o Options, store *index.Store, dir string) error {
	if o.Passthrough {
		if o.Hot == nil {
			return fmt.Errorf("%w: it hands out the files of the hot layer, and there is none", ErrPassthrough)
		}
		if err := checkPassthrough(); err != nil {
			return err
		}
	}
	if o.Hot != nil && o.Hot.Dir != "" {
		for _, other := range []string{dir, store.Dir()} {
			if below(o.Hot.Dir, other) {
				return fmt.Errorf("%w %s lies in %s", ErrHot, o.Hot.Dir, other)
			}
		}
	}
	return nil
}

// openHot opens the hot layer.
func (s *Server) openHot(o Options) (err error) {
	if o.Hot == nil {
		return nil
	}
	s.hot, err = openHot(*o.Hot, s.log, func(refs []index.Ref, i int) (*blobstore.Decoded, int, error) {
		if i+1 < len(refs) {
			s.decodeAhead(refs[i+1:], 0, int64(refs[i+1].Length))
		}
		return s.blobRecord(refs[i], again)
	})
	if err != nil {
		return err
	}
	s.hot.unregister = s.unregister
	if o.Passthrough {
		s.through = &passthrough{open: map[uint64]*openInode{}}
	}
	return nil
}

// below says whether name, which need not be there, is dir or lies in it.
func below(name, dir string) bool {
	name, err := filepath.Abs(name)
	for rest := ""; err == nil; {
		real, missing := filepath.EvalSymlinks(name)
		if missing == nil {
			name = filepath.Join(real, rest)
			return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
		}
		if name == "/" {
			break
		}
		name, rest = filepath.Dir(name), filepath.Join(filepath.Base(name), rest)
	}
	return false
}

// mountOptions are what go-fuse needs to know.
func (s *Server) mountOptions(o Options) *fuse.MountOptions {
	level := slog.LevelWarn
	if o.Debug {
		level = slog.LevelInfo
	}
	return &fuse.MountOptions{
		Debug:  o.Debug,
		Logger: slog.NewLogLogger(s.log.Handler(), level),
		PanicHandler: func(v any) fuse.Status {
			s.log.Error("panic while answering a request", "panic", v, "stack", stack())
			return fuse.EIO
		},
		MaxWrite:      maxRead,
		MaxBackground: 64,
		// A reply of 1 MiB does not fit into a pipe.
		DisableSplice:            true,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		// The supervisor tells an aborted connection from an unmounted one.
		ExtraCapabilities: fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_ABORT_ERROR,
	}
}

func stack() string {
	b := make([]byte, 16<<10)
	return string(b[:runtime.Stack(b, false)])
}

// Wait returns when nothing is mounted any more and all is cleaned up.
func (s *Server) Wait() { <-s.done }

// Dir is where the store is mounted.
func (s *Server) Dir() string { return s.dir }

// unmountWait bounds the wait for the kernel to let go after an unmount. It
// does so at once unless another mount namespace has a copy of the mount.
const unmountWait = 5 * time.Second

// Unmount unmounts and cleans up. It returns ErrBusy where the mount is in
// use, which then goes on serving; where nothing is mounted any more it does
// nothing.
func (s *Server) Unmount() error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := s.unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	select {
	case <-s.done:
	case <-time.After(unmountWait):
		s.log.Warn("unmounted here, but a copy of the mount is in use elsewhere", "dir", s.dir)
	}
	return nil
}
