package fs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A mount answers questions about itself on a Unix socket, which only its
// owner and root may open. Its name follows from the mountpoint and the
// device number, so that who asks need not touch the mount, which may hang.
//
// A question is a line of JSON, [question]; the answers are lines of JSON,
// [answer], the last of which has End set. Hanging up ends the work.

var (
	// ErrNoSocket is returned where a mount cannot be asked.
	ErrNoSocket = errors.New("the mount cannot be asked")
	// ErrRefused is returned where the mount belongs to somebody else.
	ErrRefused = errors.New("only the owner of the mount and root may ask it")
)

type question struct {
	Do      string `json:"do"` // "stats", "reload", "warm", "replace" or "wait" for the mount to be gone
	Warm    *Warm  `json:"warm,omitempty"`
	Program string `json:"program,omitempty"` // to replace the one that serves
}

type answer struct {
	Error   string   `json:"error,omitempty"`
	Stats   *Stats   `json:"stats,omitempty"`
	Files   int      `json:"files,omitempty"` // to be loaded
	Bytes   int64    `json:"bytes,omitempty"`
	Missing []string `json:"missing,omitempty"`
	Absent  int      `json:"absent,omitempty"` // as Warming has them
	Read    string   `json:"read,omitempty"`   // a file for the asker to read
	Hot     string   `json:"hot,omitempty"`    // one that is in the hot layer now
	Size    int64    `json:"size,omitempty"`   // of either
	End     bool     `json:"end,omitempty"`
}

const (
	maxQuestion   = 4 << 20
	maxAskers     = 16
	questionWait  = 10 * time.Second
	answerWait    = time.Minute // for the mount to say it, and the asker to take it
	socketSuffix  = ".sock"
	socketDirMode = 0o700
)

// SocketName is the name of a mount's socket: device is MAJOR:MINOR as in
// /proc/self/mountinfo.
func SocketName(dir, device string) string {
	sum := sha256.Sum256([]byte(dir + "\x00" + device))
	return hex.EncodeToString(sum[:12]) + socketSuffix
}

// CheckRunDir says whether a folder is private to a user, so that nobody else
// can put a socket there.
func CheckRunDir(dir string, uid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != uid || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s is not private to user %d", dir, uid)
	}
	return nil
}

// control is the listening side.
type control struct {
	listener *net.UnixListener
	name     string
	file     os.FileInfo // of the socket
	stop     context.CancelFunc
	serving  sync.WaitGroup
}

// listen makes the socket of the mount below dir. A mount that was here
// before and had the same device number may be ending still, so the socket
// takes the place of one that is there, and neither removes the other's.
func (s *Server) listen(dir string) error {
	if err := os.Mkdir(dir, socketDirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := CheckRunDir(dir, os.Geteuid()); err != nil {
		return err
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer unlock()
	sweepSockets(dir)
	name := filepath.Join(dir, SocketName(s.dir, s.device.Number))
	made := strings.TrimSuffix(name, socketSuffix) + "-"
	_ = os.Remove(made) // of a mount that was killed here
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, name)
	}
	var file os.FileInfo
	if err == nil {
		file, err = os.Lstat(name)
	}
	if err != nil {
		l.Close()
		return errors.Join(err, os.Remove(made))
	}
	ctx, stop := context.WithCancel(context.Background())
	s.control = &control{listener: l, name: name, file: file, stop: stop}
	s.control.serving.Go(func() { s.accept(ctx, l) })
	return nil
}

// lockFolder keeps other mounts from changing the sockets of a folder.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	return func() { f.Close() }, nil
}

// sweepSockets removes what killed mounts left.
func sweepSockets(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "*"+socketSuffix))
	for _, name := range left {
		c, err := net.DialTimeout("unix", name, time.Second)
		if err == nil {
			c.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(name) // else the next mount tries
		}
	}
}

// close removes the socket, and then hangs up on those who wait for the end.
func (c *control) close() {
	if c == nil {
		return
	}
	if unlock, err := lockFolder(filepath.Dir(c.name)); err == nil {
		if now, err := os.Lstat(c.name); err == nil && os.SameFile(now, c.file) {
			_ = os.Remove(c.name) // else the next mount does
		}
		unlock()
	}
	c.listener.Close()
	c.stop()
	c.serving.Wait()
}

func (s *Server) accept(ctx context.Context, l *net.UnixListener) {
	askers := make(chan struct{}, maxAskers)
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, say
			s.log.Warn("asker could not be let in", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			continue
		}
		select {
		case askers <- struct{}{}:
		default:
			c.Close()
			continue
		}
		s.control.serving.Go(func() {
			defer func() { <-askers }()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.attend(ctx, c)
		})
	}
}

// asker writes answers.
type asker struct {
	c   *net.UnixConn
	enc *json.Encoder
	err error // the first; he is gone then
}

func (a *asker) tell(m answer) {
	if a.err == nil {
		_ = a.c.SetWriteDeadline(time.Now().Add(answerWait)) // fails with the write
		a.err = a.enc.Encode(m)
	}
}

func (s *Server) attend(ctx context.Context, c *net.UnixConn) {
	a := &asker{c: c, enc: json.NewEncoder(c)}
	uid, err := peer(c)
	if err != nil || uid != 0 && uid != s.owner.Uid {
		s.counters.refused.Add(1)
		a.tell(answer{Error: ErrRefused.Error(), End: true})
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(questionWait)) // fails with the read
	line, err := bufio.NewReader(io.LimitReader(c, maxQuestion)).ReadBytes('\n')
	if err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	var q question
	switch err := json.Unmarshal(line, &q); {
	case err != nil:
		a.tell(answer{Error: "not a question: " + err.Error(), End: true})
	case q.Do == "stats":
		st := s.Stats()
		a.tell(answer{Stats: &st, End: true})
	case q.Do == "reload":
		m := answer{End: true}
		if err := s.Reload(ctx); err != nil {
			m.Error = err.Error()
		}
		a.tell(m)
	case q.Do == "warm" && q.Warm != nil:
		s.attendWarm(ctx, a, *q.Warm)
	case q.Do == "replace":
		m := answer{End: true}
		if err := s.device.line.replace(ctx, q.Program); err != nil {
			m.Error = err.Error()
		}
		a.tell(m)
		_, _ = c.Read(make([]byte, 1)) // until this process is gone
	case q.Do == "wait":
		a.tell(answer{End: true})
		_, _ = c.Read(make([]byte, 1)) // until one of the two hangs up
	default:
		a.tell(answer{Error: fmt.Sprintf("no question %q", q.Do), End: true})
	}
}

func (s *Server) attendWarm(ctx context.Context, a *asker, w Warm) {
	p, err := s.plan(w)
	if err != nil {
		a.tell(answer{Error: err.Error(), End: true})
		return
	}
	defer p.hush()()
	// A read returns when the asker hangs up, and not before.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = a.c.Read(make([]byte, 1))
		cancel()
	}()
	defer func() { a.c.Close(); <-gone }()

	a.tell(answer{Files: len(p.files), Bytes: p.bytes, Missing: p.missing, Absent: p.absent})
	rest := s.heat(ctx, p, func(f warmFile) { a.tell(answer{Hot: f.path, Size: f.inode.size}) })
	for _, f := range rest {
		a.tell(answer{Read: f.path, Size: f.inode.size})
	}
	a.tell(answer{End: true})
	if a.err == nil {
		<-ctx.Done() // he reads the files meanwhile
	}
}

// peer is the user at the other end.
func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if ctl := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); ctl != nil {
		return 0, ctl
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// Asker asks a mount, also one of another process.
type Asker struct{ c *net.UnixConn }

// Ask connects to the socket of a mount that belongs to a user. The error is
// ErrNoSocket where none answers, or ErrRefused.
func Ask(ctx context.Context, socket string, owner int) (*Asker, error) {
	if err := CheckRunDir(filepath.Dir(socket), owner); err != nil {
		return nil, askError(err)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, askError(err)
	}
	u := c.(*net.UnixConn)
	// The daemon is who it says: nobody else learns what is asked.
	if uid, err := peer(u); err != nil || int(uid) != owner && uid != 0 {
		c.Close()
		return nil, fmt.Errorf("%w: another user listens (%v)", ErrNoSocket, err)
	}
	return &Asker{u}, nil
}

func askError(err error) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return ErrRefused
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: its process is gone", ErrNoSocket)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: it has no socket (it could not make one; its log says why)", ErrNoSocket)
	}
	return fmt.Errorf("%w: %w", ErrNoSocket, err)
}

// Close hangs up.
func (a *Asker) Close() error { return a.c.Close() }

// ask sends a question and passes every answer to each.
func (a *Asker) ask(ctx context.Context, q question, each func(answer)) error {
	stop := context.AfterFunc(ctx, func() { a.c.Close() })
	defer stop()
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if len(b)+1 > maxQuestion {
		return errors.New("the list of paths is too long for one question")
	}
	if _, err := a.c.Write(append(b, '\n')); err != nil {
		return err
	}
	for d := json.NewDecoder(a.c); ; {
		var m answer
		_ = a.c.SetReadDeadline(time.Now().Add(answerWait)) // fails with the read
		if err := d.Decode(&m); err != nil {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, os.ErrDeadlineExceeded):
				return fmt.Errorf("%w: it says nothing", ErrNoSocket)
			}
			return fmt.Errorf("%w: it hung up (%w)", ErrNoSocket, err)
		}
		switch {
		case m.Error == ErrRefused.Error():
			return ErrRefused
		case m.Error != "":
			return errors.New(m.Error)
		}
		each(m)
		if m.End {
			return nil
		}
	}
}

// Stats asks for the counters.
func (a *Asker) Stats(ctx context.Context) (st Stats, err error) {
	err = a.ask(ctx, question{Do: "stats"}, func(m answer) {
		if m.Stats != nil {
			st = *m.Stats
		}
	})
	return st, err
}

// Reload has the mount show what is in the store, and returns when it does.
func (a *Asker) Reload(ctx context.Context) error {
	return a.ask(ctx, question{Do: "reload"}, func(answer) {})
}

// Wait prepares for the end of the mount: the function that it returns waits
// until the mount has ended and its process holds neither the hot folder nor
// the socket any more, and says whether it saw that within a time.
func (a *Asker) Wait(ctx context.Context) (ended func(time.Duration) bool, err error) {
	return a.waitAfter(ctx, question{Do: "wait"})
}

// Replace has another program serve the mount. The function that it returns
// waits until the process that serves is gone; the next one is there some
// milliseconds later. program is an absolute path, and must belong to root or
// the owner of the mount and be writable to nobody else.
func (a *Asker) Replace(ctx context.Context, program string) (gone func(time.Duration) bool, err error) {
	return a.waitAfter(ctx, question{Do: "replace", Program: program})
}

// waitAfter asks and returns a function that waits for the other side to hang
// up.
func (a *Asker) waitAfter(ctx context.Context, q question) (gone func(time.Duration) bool, err error) {
	if err := a.ask(ctx, q, func(answer) {}); err != nil {
		return nil, err
	}
	return func(wait time.Duration) bool {
		_ = a.c.SetReadDeadline(time.Now().Add(wait)) // fails with the read
		_, err := a.c.Read(make([]byte, 1))
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}, nil
}

// Warming is what a mount has to say to a Warm.
type Warming struct {
	Files   int
	Bytes   int64
	Missing []string   // paths that are not there, with their version; at most 1000
	Absent  int        // how many paths are not there
	Hot     int        // files that are in the hot layer now
	Read    []WarmFile // files for the caller to read through the mount
}

// WarmFile is a file that has to be read to be loaded.
type WarmFile struct {
	Path string // relative to the mount
	Size int64
}

// Warm has the mount load what it can and says what is left to the caller.
// Until the asker is closed, the mount does not take those reads for use.
// begin gets the number of bytes there are to load, loaded that of each file.
func (a *Asker) Warm(ctx context.Context, w Warm, begin, loaded func(int64)) (r Warming, err error) {
	err = a.ask(ctx, question{Do: "warm", Warm: &w}, func(m answer) {
		switch {
		case m.Hot != "":
			r.Hot++
			loaded(m.Size)
		case m.Read != "":
			if safePath(m.Read) {
				r.Read = append(r.Read, WarmFile{m.Read, m.Size})
			}
		case !m.End:
			r.Files, r.Bytes, r.Missing, r.Absent = m.Files, m.Bytes, m.Missing, m.Absent
			begin(m.Bytes)
		}
	})
	return r, err
}

// safePath keeps what the mount says below the mount.
func safePath(name string) bool {
	return filepath.IsLocal(name) && !strings.Contains(name, "\x00")
}
