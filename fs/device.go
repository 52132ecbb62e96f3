package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"gofs/index"
)

// Device is the kernel's side of a mount: what one process mounts, another
// can serve and a third take over.
//
// The kernel ends a mount when the last descriptor of its device is closed,
// and introduces itself only once, with the request INIT. So a supervisor
// keeps the descriptor, that request and what it was answered; each process
// that serves gets all three, see Server.attach.
type Device struct {
	file *os.File
	line *line // to the supervisor; nil without one
	past past
	deviceState
}

// deviceState is what a process that takes the device over has to know.
type deviceState struct {
	Dir        string `json:"dir"`
	Number     string `json:"number"`               // MAJOR:MINOR, as in /proc/self/mountinfo
	Fusermount string `json:"fusermount,omitempty"` // the program that mounted; "": this one did
	Init       []byte `json:"init"`                 // the kernel's first request
	Answer     []byte `json:"answer,omitempty"`     // nil: it was not answered yet
}

// past is what the processes before have shown.
type past struct {
	Started    time.Time         `json:"started"`
	Generation uint64            `json:"generation"`
	Cookies    map[string]uint64 `json:"cookies,omitempty"` // see Server.cookies
	Restarts   int               `json:"restarts"`
}

// maxRead bounds a READ, in bytes.
const maxRead = 1 << 20

// Attach mounts the store on dir. Nobody serves it yet, so whoever looks into
// it waits: the process itself must not. Errors are those of Mount.
func Attach(ctx context.Context, store *index.Store, dir string, o Options) (*Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The daemon must not touch its own mount, so the path is settled before.
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	if below(store.Dir(), dir) {
		return nil, fmt.Errorf("mount %s: it would hide the store in %s", dir, store.Dir())
	}
	if err := checkHot(o, store, dir); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	// The names of time zones may be read from $GOROOT, which may be there.
	_ = time.Now().Local().String()
	d, err := mountDevice(dir, o, source(store, o))
	if err == nil {
		if err = d.meet(); err != nil {
			err = errors.Join(err, d.Detach())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return d, nil
}

func source(store *index.Store, o Options) string {
	if o.FsName != "" {
		return o.FsName
	}
	return store.Dir()
}

// mountDevice mounts directly where that is permitted and with fusermount3
// where it is not.
func mountDevice(dir string, o Options, source string) (*Device, error) {
	// fusermount3 opens it with the user's rights too.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, noDevice(&os.PathError{Op: "open", Path: "/dev/fuse", Err: err})
	}
	d := &Device{file: os.NewFile(uintptr(fd), "/dev/fuse"), deviceState: deviceState{Dir: dir}, past: past{Started: time.Now()}}
	if os.Geteuid() == 0 {
		data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,default_permissions", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxRead)
		if o.AllowOther {
			data += ",allow_other"
		}
		err = unix.Mount(source, dir, "fuse."+fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, data)
		if err == nil {
			return d, nil
		}
		// Root of a container may lack the right that fusermount3 cannot give
		// either; elsewhere the error is the folder's.
		if !errors.Is(err, unix.EPERM) {
			d.file.Close()
			return nil, err
		}
	}
	d.file.Close()
	if d.Fusermount = fusermount(); d.Fusermount == "" {
		if err != nil {
			return nil, ErrMayNot
		}
		return nil, ErrNoFusermount
	}
	if d.file, err = fusermountDevice(d.Fusermount, dir, o, source); err != nil {
		return nil, err
	}
	return d, nil
}

const fsType = "gofs"

// fusermountDevice has fusermount3 mount and hand over the device.
func fusermountDevice(program, dir string, o Options, source string) (*os.File, error) {
	ours, theirs, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	options := fmt.Sprintf("ro,nosuid,nodev,default_permissions,fsname=%s,subtype=%s,max_read=%d", escape.Replace(source), fsType, maxRead)
	if o.AllowOther {
		options += ",allow_other"
	}
	cmd := exec.Command(program, "-o", options, "--", dir)
	cmd.Env = []string{"_FUSE_COMMFD=3", "LC_ALL=C"}
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil {
		text := strings.TrimSpace(string(out))
		if strings.Contains(text, unix.EPERM.Error()) || strings.Contains(text, "Operation not permitted") {
			return nil, fmt.Errorf("%w: %s", ErrMayNot, text)
		}
		return nil, fmt.Errorf("%s (%w)", text, err)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 4), oob)
	if err != nil {
		return nil, fmt.Errorf("%s: device: %w", program, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%s gave no device (%w)", program, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%s gave no device (%w)", program, err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "/dev/fuse"), nil
}

func socketpair(kind int) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// The kernel's first request, from its include/uapi/linux/fuse.h: a header of
// 40 bytes (length, opcode, unique, ...), then major, minor, read-ahead, flags
// and flags2, 4 bytes each.
const (
	opInit         = 26
	initHeader     = 40
	initFlags      = initHeader + 12
	initFlags2     = initHeader + 16
	maxInit        = 4 << 10
	minFuseRead    = 8 << 10 // the kernel gives nothing to a smaller buffer
	notifyResend   = 7
	outHeaderBytes = 16
)

// meet reads what the kernel says first.
func (d *Device) meet() error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	number, ok := mountNumber(string(info), d.Dir)
	if !ok {
		return fmt.Errorf("%s is not in /proc/self/mountinfo", d.Dir)
	}
	d.Number = number
	b := make([]byte, minFuseRead)
	n, err := retryEINTR(func() (int, error) { return unix.Read(d.fd(), b) })
	if err != nil {
		return os.NewSyscallError("read INIT", err)
	}
	d.Init = b[:n:n]
	return d.checkInit()
}

func (d *Device) checkInit() error {
	b := d.Init
	if len(b) < initFlags+4 || len(b) > maxInit || binary.NativeEndian.Uint32(b) != uint32(len(b)) || binary.NativeEndian.Uint32(b[4:]) != opInit {
		return errors.New("the kernel did not begin with INIT")
	}
	return nil
}

func (d *Device) fd() int { return int(d.file.Fd()) }

func retryEINTR(f func() (int, error)) (n int, err error) {
	for {
		if n, err = f(); err != unix.EINTR {
			return n, err
		}
	}
}

// resends says whether the kernel can send again what a process that died had
// read and not answered (Linux 6.9).
func (d *Device) resends() bool {
	if len(d.Init) < initFlags2+4 {
		return false
	}
	flags := uint64(binary.NativeEndian.Uint32(d.Init[initFlags:])) | uint64(binary.NativeEndian.Uint32(d.Init[initFlags2:]))<<32
	return flags&fuse.CAP_HAS_RESEND != 0
}

// resend has the kernel do so. Requests keep their number but for the highest
// bit, which is set.
func (d *Device) resend() error {
	var m [outHeaderBytes]byte
	binary.NativeEndian.PutUint32(m[:], outHeaderBytes)
	binary.NativeEndian.PutUint32(m[4:], notifyResend)
	_, err := retryEINTR(func() (int, error) { return unix.Write(d.fd(), m[:]) })
	return os.NewSyscallError("have requests sent again", err)
}

// connected says whether the kernel still sends requests: the mount or a
// detached part of it is in use. aborted says that it does not because
// somebody aborted the connection, which may be mounted still.
func (d *Device) connected() (ok, aborted bool) {
	p := []unix.PollFd{{Fd: int32(d.fd()), Events: unix.POLLIN}}
	if _, err := retryEINTR(func() (int, error) { return unix.Poll(p, 0) }); err != nil || p[0].Fd < 0 {
		return false, false
	}
	if p[0].Revents&(unix.POLLERR|unix.POLLNVAL) == 0 {
		return true, false
	}
	// Now a read does not wait. It tells the two apart, given room for any
	// request.
	_, err := retryEINTR(func() (int, error) { return unix.Read(d.fd(), make([]byte, 2*maxRead)) })
	return false, err == unix.ECONNABORTED
}

// mounted says whether the folder still shows this mount. It does not touch
// the mount. A mount that is gone has given its number away, perhaps to the next
// one here, so the connection is looked at first.
func (d *Device) mounted() bool {
	if ok, aborted := d.connected(); !ok && !aborted {
		return false
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	number, ok := mountNumber(string(info), d.Dir)
	return ok && number == d.Number
}

// Detach ends a mount that nobody serves: it vanishes, and those who have
// files of it get errors. Forced, the kernel aborts the connection; else that
// would come with the last descriptor of the device, and a process that dies
// can keep one, see showLife.
func (d *Device) Detach() (err error) {
	defer d.file.Close()
	if d.Number != "" && !d.mounted() { // "": the caller has just mounted it
		return nil
	}
	if d.Fusermount != "" {
		_, minor, _ := strings.Cut(d.Number, ":")
		_ = os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0) // where fusectl is mounted
		err = runFusermount(d.Fusermount, "-uz", d.Dir)
	} else {
		err = unix.Unmount(d.Dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: somebody else was quicker
		return fmt.Errorf("unmount %s: %w", d.Dir, err)
	}
	return nil
}

func (d *Device) unmount() error {
	if d.Fusermount != "" {
		return runFusermount(d.Fusermount, "-u", d.Dir)
	}
	return unix.Unmount(d.Dir, unix.UMOUNT_NOFOLLOW)
}

// ErrTakeover is returned where a process cannot go on with the mount of the
// one before it: then it must be mounted anew.
var ErrTakeover = errors.New("the mount cannot be taken over")

// attach has go-fuse serve the device.
//
// go-fuse reads the INIT when a server is made, and the kernel sends it once.
// So the server is made on a socket, where it is given the INIT that the
// kernel sent; its answer goes to the kernel if that has none yet, and must
// be equal to the one it has otherwise. Then the device takes the place of
// the socket, before the first reader starts.
func (s *Server) attach(d *Device, o Options) error {
	ours, theirs, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	if _, err := ours.Write(d.Init); err != nil {
		return err
	}
	// go-fuse closes what it is given.
	fd, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	server, err := fuse.NewServer(newRawFS(s), fmt.Sprintf("/dev/fd/%d", fd), s.mountOptions(o))
	if err != nil {
		return err
	}
	b := make([]byte, maxInit)
	n, err := ours.Read(b)
	if err != nil {
		return err
	}
	answer := b[:n:n]
	resumed := d.Answer != nil
	if !resumed {
		if _, err := retryEINTR(func() (int, error) { return unix.Write(d.fd(), answer) }); err != nil {
			return os.NewSyscallError("answer INIT", err)
		}
		d.Answer = answer
	} else if !bytes.Equal(answer, d.Answer) {
		return fmt.Errorf("%w: this gofs agrees with the kernel on something else than the one before", ErrTakeover)
	}
	if err := keepPresent(server); err != nil {
		return err
	}
	if err := unix.Dup3(d.fd(), fd, unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	if resumed {
		if err := d.resend(); err != nil {
			return fmt.Errorf("%w: %w", ErrTakeover, err)
		}
	}
	s.fuse = server
	return nil
}

// maxRequest is how long a request is at most that waits for an answer: one
// header, and two names of the kernel's NAME_MAX or one of a link.
const maxRequest = 8 << 10

// keepPresent has the memory that requests are read into be there before.
//
// A reader that is killed when it has taken a request and copies it to a page
// that is not there yet does not get that page: the kernel can hand a present
// one to a process that dies, but does not make one for it. It then answers the
// request with EIO, where what was read and not answered is sent again to the
// next process. Of 300 kills at the start of serving, 6 made a reader fail.
//
// go-fuse makes its buffers where nobody else can; hence the look at a field
// that it does not export.
func keepPresent(server *fuse.Server) error {
	field := reflect.ValueOf(server).Elem().FieldByName("readPool")
	if !field.IsValid() || field.Type() != reflect.TypeFor[sync.Pool]() {
		return errors.New("this go-fuse keeps its buffers elsewhere")
	}
	pool := (*sync.Pool)(field.Addr().UnsafePointer())
	make := pool.New
	pool.New = nil
	for pool.Get() != nil { // that of INIT
	}
	pool.New = func() any {
		b, ok := make().([]byte)
		if ok {
			for i := 0; i < min(len(b), maxRequest+os.Getpagesize()); i += os.Getpagesize() {
				b[i] = 0
			}
		}
		return b
	}
	return nil
}

// touch proves that the mount answers. It polls a file of go-fuse's own,
// whereupon the kernel learns that files cannot be polled: Go programs poll
// what they open, from within the runtime, and where one is the process that
// serves, it would come to wait for itself.
func touch(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, _ = unix.Poll(p, 0) // whatever it says
	return unix.Close(fd)
}
