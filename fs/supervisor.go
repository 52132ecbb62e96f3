package fs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gofs/index"
)

// Supervision says how a mount is kept.
type Supervision struct {
	// Worker are the arguments with which this program serves what it gets
	// from Inherit.
	Worker []string
	// Resume are the arguments with which a program goes on as the
	// supervisor; the number of a descriptor for Resume is added.
	Resume []string
	// Crashes of the serving process within CrashTime are one too many. 0 stands
	// for 5.
	Crashes int
	// GoneWait is how long the next process waits for one that dies to be gone.
	// 0 stands for 50 ms, and 500 ms with a hot folder on disk, which has to be
	// let go of. It may take until the next process serves: see showLife.
	GoneWait time.Duration
}

const (
	defaultCrashes = 5
	// CrashTime is how long a crash counts.
	CrashTime       = 10 * time.Second
	crashPause      = 50 * time.Millisecond // after a second crash in this time
	partWait        = 2 * time.Second       // for a process to note what was read
	defaultGoneWait = 50 * time.Millisecond
	hotGoneWait     = 500 * time.Millisecond
)

// ErrCrashes is returned where a mount was given up.
var ErrCrashes = errors.New("the serving process crashed too often")

// Supervisor keeps a mount while processes that serve it come and go. It has
// the device, so that a process that dies ends nothing: the next one serves
// on, and who waits for an answer waits until then. Where the kernel cannot
// send requests again, or has files of the process that died (passthrough),
// the store is mounted anew in the same place; who had files of the old mount
// gets errors.
//
// A supervisor must not touch the mount: with nobody to serve, it would wait
// for itself. If it is killed, the serving process goes on alone.
type Supervisor struct {
	store *index.Store
	dir   string
	o     Options
	how   Supervision
	log   *slog.Logger

	device  *Device
	anew    bool // the next process cannot take the device over
	worker  *worker
	crashes []time.Time
	signals chan os.Signal
	hung    chan struct{}
	ending  bool
	done    chan struct{}
	err     error
}

// worker is a process that serves.
type worker struct {
	process *os.Process
	conn    *net.UnixConn
	life    *os.File              // at its end when the process begins to die
	wait    time.Duration         // for it to be gone then
	reports chan report           // closed when it dies
	ended   chan *os.ProcessState // after that; nil: it is not gone yet
}

// Supervise mounts the store on dir, has a process of this program serve it,
// and returns when that answers. Errors are those of Mount.
func Supervise(ctx context.Context, store *index.Store, dir string, o Options, how Supervision) (*Supervisor, error) {
	s := newSupervisor(store, dir, o, how)
	if err := s.mount(ctx); err != nil {
		return nil, err
	}
	if err := s.first(ctx); err != nil {
		return nil, errors.Join(err, s.device.Detach())
	}
	go s.run()
	return s, nil
}

func newSupervisor(store *index.Store, dir string, o Options, how Supervision) *Supervisor {
	if how.Crashes == 0 {
		how.Crashes = defaultCrashes
	}
	switch {
	case how.GoneWait != 0:
	case o.Hot != nil && o.Hot.Dir != "":
		how.GoneWait = hotGoneWait
	default:
		how.GoneWait = defaultGoneWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return &Supervisor{
		store: store, dir: dir, o: o, how: how, log: o.Log,
		signals: make(chan os.Signal, 4), hung: make(chan struct{}), done: make(chan struct{}),
	}
}

func (s *Supervisor) mount(ctx context.Context) error {
	d, err := Attach(ctx, s.store, s.dir, s.o)
	if err != nil {
		return err
	}
	s.device, s.anew = d, false
	return nil
}

// first starts the first process. It is not started again where it fails.
func (s *Supervisor) first(ctx context.Context) error {
	if err := s.start(); err != nil {
		return err
	}
	w := s.worker
	stop := context.AfterFunc(ctx, func() { _ = w.process.Kill() })
	defer stop()
	var said error
	for r := range w.reports {
		if s.note(r); r.Ready {
			return nil
		}
		if r.Error != "" {
			said = errors.New(r.Error)
			_ = w.process.Kill() // it ends anyway
		}
	}
	state := <-w.ended
	return cmp.Or(said, ctx.Err(), fmt.Errorf("the serving process ended without a word (%s)", says(state)))
}

// Wait returns when nothing is mounted any more. The error is ErrCrashes
// where the mount was given up.
func (s *Supervisor) Wait() error {
	<-s.done
	return s.err
}

// Signal passes a signal on to the process that serves: SIGTERM ends the mount.
func (s *Supervisor) Signal(sig os.Signal) {
	select {
	case s.signals <- sig:
	case <-s.done:
	}
}

// Restart ends the process that serves, since it does not answer; another goes
// on in its place. While none serves it does nothing.
func (s *Supervisor) Restart() {
	select {
	case s.hung <- struct{}{}:
	default:
	}
}

// withoutMount are the variables that the serving process must not see: the
// runtime might look into a GOROOT of the mount, and systemd waits for the
// supervisor's messages.
var withoutMount = []string{"GOROOT=", "ZONEINFO=", "NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID="}

// start starts a process and hands the device over to it.
func (s *Supervisor) start() error {
	ours, theirs, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return err
	}
	life, alive, err := os.Pipe()
	if err != nil {
		conn.Close()
		return err
	}
	defer alive.Close()
	w := s.newWorker(conn.(*net.UnixConn), life)
	// The program may have been replaced or removed meanwhile; this is the one
	// that runs here.
	cmd := exec.Command("/proc/self/exe", s.how.Worker...)
	cmd.Args[0] = fsType
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{s.device.file, theirs, alive} // as Inherit has them
	// A group of its own: Ctrl-C is for the supervisor.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return slices.ContainsFunc(withoutMount, func(name string) bool { return strings.HasPrefix(kv, name) })
	})
	if err := startSlack(cmd); err != nil {
		conn.Close()
		life.Close()
		return fmt.Errorf("start the serving process: %w", err)
	}
	w.process = cmd.Process
	s.worker = w
	// If it died at once, that shows at the end of the line.
	_ = send(w.conn, handover{handoverVersion, s.device.deviceState, s.device.past})
	go w.listen()
	return nil
}

func (s *Supervisor) newWorker(conn *net.UnixConn, life *os.File) *worker {
	return &worker{conn: conn, life: life, wait: s.how.GoneWait, reports: make(chan report), ended: make(chan *os.ProcessState, 1)}
}

// listen passes on what the process says until it dies. What it said last
// counts: it may have shown names since.
func (w *worker) listen() {
	go func() {
		_, _ = w.life.Read(make([]byte, 1)) // nobody writes
		_ = w.conn.CloseRead()              // what is there already is read
		w.life.Close()
	}()
	for in := newScanner(w.conn); ; {
		var r report
		if receive(in, &r) != nil {
			break
		}
		w.reports <- r
	}
	_ = w.process.Kill() // it has hung up or talks nonsense
	w.conn.Close()
	close(w.reports)
	gone := make(chan *os.ProcessState, 1)
	go func() {
		state, _ := w.process.Wait() // nil says enough
		gone <- state
	}()
	select {
	case state := <-gone:
		w.ended <- state
	case <-time.After(w.wait):
		w.ended <- nil
	}
}

// note keeps what the next process has to know.
func (s *Supervisor) note(r report) {
	if r.Answer != nil {
		s.device.Answer = r.Answer
	}
	if r.Shown != nil {
		s.device.past = *r.Shown
	}
	s.anew = s.anew || r.Anew
}

func (s *Supervisor) run() {
	defer close(s.done)
	for again := true; again; {
		if s.worker == nil && !s.next() {
			return
		}
		again = s.after(s.watch())
		s.worker = nil
	}
}

// watch follows the serving process until it has ended. The state is nil
// where none could be started.
func (s *Supervisor) watch() *os.ProcessState {
	w := s.worker
	if w == nil {
		return nil
	}
	for reports := w.reports; ; {
		select {
		case r, ok := <-reports:
			if !ok {
				return <-w.ended
			}
			s.note(r)
			if r.Error != "" {
				s.log.Error("the mount cannot be served", "err", r.Error)
			}
			if r.Replace != "" {
				s.replace(r.Replace)
			}
		case sig := <-s.signals:
			s.ending = true
			_ = w.process.Signal(sig) // it may be gone
		case <-s.hung:
			s.log.Error("the mount does not answer: its process is killed")
			_ = w.process.Kill()
		}
	}
}

// after decides what follows the end of a process.
func (s *Supervisor) after(state *os.ProcessState) (again bool) {
	d := s.device
	connected, _ := d.connected()
	switch {
	case !connected && !d.mounted():
		d.file.Close() // unmounted
		return false
	case s.ending:
		s.err = errors.Join(fmt.Errorf("%s: ended while in use (%s)", s.dir, says(state)), d.Detach())
		return false
	case !connected: // somebody aborted it
		s.anew = true
	}
	now := time.Now()
	s.crashes = append(slices.DeleteFunc(s.crashes, func(t time.Time) bool { return now.Sub(t) >= CrashTime }), now)
	n := len(s.crashes)
	if n >= s.how.Crashes {
		s.err = errors.Join(fmt.Errorf("%w: %d times in %v, last %v; %s is unmounted",
			ErrCrashes, n, now.Sub(s.crashes[0]).Round(time.Millisecond), says(state), s.dir), d.Detach())
		return false
	}
	s.log.Warn("the serving process has ended, the next one starts", "state", says(state), "crashes", n)
	if n > 1 {
		select {
		case sig := <-s.signals:
			s.err = errors.Join(fmt.Errorf("%s: ended (%v) while nobody served", s.dir, sig), d.Detach())
			return false
		case <-time.After(crashPause):
		}
	}
	d.past.Restarts++
	return true
}

// says tells how a process ended.
func says(state *os.ProcessState) string {
	if state == nil {
		return "not gone yet"
	}
	return state.String()
}

// next has another process serve, and mounts anew where it must. It says no
// where there is nothing to serve any more.
func (s *Supervisor) next() (again bool) {
	if d := s.device; s.anew || s.o.Passthrough || !d.resends() || d.Answer == nil {
		if !d.mounted() {
			d.file.Close() // it was detached: its users get errors
			return false
		}
		restarts := d.past.Restarts
		if s.err = errors.Join(d.Detach(), s.mount(context.Background())); s.err != nil {
			return false
		}
		s.device.past.Restarts = restarts
		s.log.Warn("mounted anew: who had files open gets errors")
	}
	if err := s.start(); err != nil {
		s.log.Error("no process serves the mount", "err", err) // counts as a crash
	}
	return true
}

// replace has a program go on as the supervisor, in this process.
func (s *Supervisor) replace(name string) {
	w := s.worker
	f, err := openProgram(name)
	if err != nil {
		s.log.Warn("not replaced", "err", err)
		_ = send(w.conn, order{Refused: err.Error()}) // who asked hears nothing then
		return
	}
	defer f.Close()
	s.log.Info("another program takes over", "program", name)
	if s.part() {
		s.log.Error("not replaced", "err", s.exec(f))
	}
	_ = w.process.Kill() // it waits for a successor
}

// part has the serving process prepare, for a while. It says no where the
// process has ended.
func (s *Supervisor) part() bool {
	if send(s.worker.conn, order{Part: true}) != nil {
		return false
	}
	for late := time.After(partWait); ; {
		select {
		case r, ok := <-s.worker.reports:
			if !ok {
				return false
			}
			if s.note(r); r.Parted {
				return true
			}
		case <-late:
			return true
		}
	}
}

// openProgram opens a program that only root or this user can have written.
func openProgram(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	switch {
	case !strings.HasPrefix(name, "/") || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0:
		err = fmt.Errorf("%s is no program", name)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		err = fmt.Errorf("%s belongs to user %d, neither to root nor to the user of the mount", name, st.Uid)
	case st.Mode&0o022 != 0:
		err = fmt.Errorf("others may write to %s (chmod go-w)", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// resumption is what a supervisor leaves to the program that takes its place.
type resumption struct {
	handover
	File    int         `json:"file"` // descriptors of the device
	Line    int         `json:"line"` // of the socket to the serving process
	Life    int         `json:"life"` // and of the pipe that tells of its end
	Process int         `json:"process"`
	Crashes []time.Time `json:"crashes,omitempty"`
}

// exec returns only where it fails.
func (s *Supervisor) exec(program *os.File) error {
	raw, err := s.worker.conn.SyscallConn()
	if err != nil {
		return err
	}
	line := -1
	if err := raw.Control(func(fd uintptr) { line = int(fd) }); err != nil {
		return err
	}
	life := -1
	if raw, err = s.worker.life.SyscallConn(); err == nil {
		err = raw.Control(func(fd uintptr) { life = int(fd) })
	}
	if err != nil {
		return err
	}
	state, err := unix.MemfdCreate("gofs", 0)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	m := os.NewFile(uintptr(state), "gofs")
	defer m.Close()
	b, err := json.Marshal(resumption{
		handover{handoverVersion, s.device.deviceState, s.device.past},
		s.device.fd(), line, life, s.worker.process.Pid, s.crashes,
	})
	if err != nil {
		return err
	}
	if _, err := m.WriteAt(append(b, '\n'), 0); err != nil {
		return err
	}
	for _, fd := range []int{s.device.fd(), line, life} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		defer unix.CloseOnExec(fd)
	}
	args := append(append([]string{fsType}, s.how.Resume...), fmt.Sprint(state))
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), args, os.Environ())
	return &os.PathError{Op: "exec", Path: program.Name(), Err: err}
}

// Resume goes on as the supervisor that this process was before its program
// was replaced: it ends the process that serves and starts one of this
// program.
func Resume(store *index.Store, o Options, how Supervision, state int) (*Supervisor, error) {
	m := os.NewFile(uintptr(state), "state")
	defer m.Close()
	var r resumption
	if err := receive(newScanner(io.NewSectionReader(m, 0, maxLine)), &r); err != nil {
		return nil, fmt.Errorf("take over a mount: %w", err)
	}
	unix.CloseOnExec(r.File)
	unix.CloseOnExec(r.Line)
	unix.CloseOnExec(r.Life)
	s := newSupervisor(store, r.Device.Dir, o, how)
	s.device = &Device{file: os.NewFile(uintptr(r.File), "/dev/fuse"), past: r.Past, deviceState: r.Device}
	s.anew = s.device.checkHandover(r.Version) != nil
	s.crashes = r.Crashes
	f := os.NewFile(uintptr(r.Line), "worker")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("take over a mount: %w", err)
	}
	w := s.newWorker(conn.(*net.UnixConn), os.NewFile(uintptr(r.Life), "life"))
	if w.process, err = os.FindProcess(r.Process); err != nil {
		return nil, fmt.Errorf("take over a mount: %w", err)
	}
	// It may have died, and its number been given to another.
	if pid, err := unix.Wait4(r.Process, nil, unix.WNOHANG, nil); pid == 0 && err == nil {
		_ = w.process.Kill()
	}
	go w.listen()
	for r := range w.reports {
		s.note(r)
	}
	<-w.ended
	go s.run()
	return s, nil
}
