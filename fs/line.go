package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A supervisor and the process that serves for it talk over a socket, in
// lines of JSON: first the supervisor's [handover], then the other's
// [report]s and the supervisor's [order]s. Both are the same program, or two
// that agree on handoverVersion.

// handoverVersion changes with the meaning of what is handed over, to another
// process and to another gofs.
const handoverVersion = 1

type handover struct {
	Version int         `json:"version"`
	Device  deviceState `json:"device"`
	Past    past        `json:"past"`
}

// report is what the serving process says.
type report struct {
	Error   string `json:"error,omitempty"` // it ends, and why
	Anew    bool   `json:"anew,omitempty"`  // the error is ErrTakeover
	Answer  []byte `json:"answer,omitempty"`
	Shown   *past  `json:"shown,omitempty"` // before the kernel can see it
	Ready   bool   `json:"ready,omitempty"`
	Replace string `json:"replace,omitempty"` // a program asks to take over
	Parted  bool   `json:"parted,omitempty"`  // it is ready to be killed
}

// order is what the supervisor says.
type order struct {
	Part    bool   `json:"part,omitempty"`    // another process takes over
	Refused string `json:"refused,omitempty"` // why not
}

const (
	maxLine  = 8 << 20
	lineWait = 5 * time.Second // for the other side to take or say something
)

// line is the serving process's end.
type line struct {
	conn *net.UnixConn
	in   *bufio.Scanner
	mu   sync.Mutex // of who writes

	replacing sync.Mutex
	replies   chan order // to who holds replacing
	lost      chan struct{}
}

var errAlone = errors.New("no supervisor keeps this mount, so it cannot be handed on (gofs umount and gofs mount do it)")

// The descriptors that a process that serves gets from its supervisor.
const (
	inheritDevice = 3 + iota
	inheritLine
	inheritLife
)

// Inherit gets a mount from the supervisor that started this process.
func Inherit() (*Device, error) {
	unix.CloseOnExec(inheritDevice)
	f := os.NewFile(inheritLine, "supervisor")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("inherit a mount: %w", err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("inherit a mount: not a Unix socket")
	}
	if err := showLife(inheritLife); err != nil {
		return nil, fmt.Errorf("inherit a mount: %w", err)
	}
	l := &line{conn: u, in: newScanner(u), replies: make(chan order, 1), lost: make(chan struct{})}
	var h handover
	if err := receive(l.in, &h); err != nil {
		return nil, fmt.Errorf("inherit a mount: %w", err)
	}
	d := &Device{file: os.NewFile(inheritDevice, "/dev/fuse"), line: l, past: h.Past, deviceState: h.Device}
	return d, d.checkHandover(h.Version)
}

// showLife has a pipe be at its end as soon as this process begins to die,
// which the other descriptors are not: a thread that pushes a file into the
// page cache can wait in the kernel, and not be killed, for a page whose READ
// this process has not answered; the next process will. So a thread that
// waits for nothing is the only one to have the pipe.
func showLife(fd int) error {
	unix.CloseOnExec(fd)
	began := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var all unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil)
		if err == nil {
			err = unix.Unshare(unix.CLONE_FILES)
		}
		if began <- err; err != nil {
			return // and the thread with it
		}
		for {
			_, _ = unix.Poll(nil, -1) // for ever
		}
	}()
	if err := <-began; err != nil {
		return fmt.Errorf("a thread of its own: %w", err)
	}
	return unix.Close(fd)
}

// checkHandover does not trust another gofs.
func (d *Device) checkHandover(version int) error {
	if version != handoverVersion {
		return fmt.Errorf("%w: it is that of another gofs (version %d, this one has %d)", ErrTakeover, version, handoverVersion)
	}
	if err := d.checkInit(); err != nil {
		return fmt.Errorf("%w: %w", ErrTakeover, err)
	}
	seen := map[uint64]bool{}
	for _, c := range d.past.Cookies {
		if c < firstCookie || c-firstCookie >= uint64(len(d.past.Cookies)) || seen[c] {
			return fmt.Errorf("%w: the offsets of its names are wrong", ErrTakeover)
		}
		seen[c] = true
	}
	return nil
}

// Fail tells the supervisor, where there is one, why the device is not
// served. It says whether it was told.
func (d *Device) Fail(err error) bool {
	if d.line == nil {
		return false
	}
	return d.line.say(report{Error: err.Error(), Anew: errors.Is(err, ErrTakeover)}) == nil
}

func newScanner(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	return s
}

func receive(s *bufio.Scanner, v any) error {
	if !s.Scan() {
		if err := s.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	return json.Unmarshal(s.Bytes(), v)
}

func send(c *net.UnixConn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_ = c.SetWriteDeadline(time.Now().Add(lineWait)) // fails with the write
	_, err = c.Write(append(b, '\n'))
	return err
}

func (l *line) say(r report) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return send(l.conn, r)
}

// tellShown tells the supervisor what the kernel is going to see, for the
// process after this one.
func (s *Server) tellShown(e *epoch) {
	if s.device == nil || s.device.line == nil {
		return
	}
	err := s.device.line.say(report{Answer: s.device.Answer, Shown: &past{
		Started: s.started, Generation: e.generation, Cookies: s.cookies, Restarts: s.restarts,
	}})
	if err != nil {
		s.log.Warn("the supervisor was not told what changed", "err", err)
	}
}

// attend says that the mount is served and follows orders from then on. Where
// the supervisor is gone, the mount goes on without.
func (l *line) attend(s *Server) {
	if l == nil {
		return
	}
	_ = l.say(report{Ready: true}) // the end of the line shows below
	go func() {
		defer close(l.lost)
		for {
			var o order
			if err := receive(l.in, &o); err != nil {
				select {
				case <-s.done:
				default:
					s.log.Warn("the supervisor is gone: the mount goes on, but nobody restarts it", "err", err)
				}
				return
			}
			select {
			case l.replies <- o:
			default: // nobody waits any more
			}
			if o.Part {
				s.part()
				_ = l.say(report{Parted: true}) // else the supervisor waits a little
			}
		}
	}()
}

// part prepares for another process to take over: nothing new is shown any
// more, and what was read is noted.
func (s *Server) part() {
	s.reloading.Lock()
	s.closed = true
	s.reloading.Unlock()
	s.keepNotes()
}

// replace asks the supervisor to have another program serve, and returns when
// that is under way.
func (l *line) replace(ctx context.Context, program string) error {
	if l == nil {
		return errAlone
	}
	l.replacing.Lock()
	defer l.replacing.Unlock()
	select {
	case <-l.replies: // came too late for who asked before
	default:
	}
	if err := l.say(report{Replace: program}); err != nil {
		return errAlone
	}
	ctx, cancel := context.WithTimeout(ctx, lineWait)
	defer cancel()
	select {
	case o := <-l.replies:
		if o.Refused != "" {
			return errors.New(o.Refused)
		}
		return nil
	case <-l.lost:
		return errAlone
	case <-ctx.Done():
		return fmt.Errorf("the supervisor says nothing: %w", ctx.Err())
	}
}
