package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	gofs "gofs/fs"
	"gofs/index"
)

type mountCmd struct {
	g          *globals
	cmd        *cobra.Command
	foreground bool
	allowOther bool
	debug      bool
	cache      string
	hotArg     string
	io         string
	log        string
	supervise  bool
	replace    bool

	// What processes of a mount say to each other.
	readyFD  int
	detached bool // from the terminal
	crashes  int
	goneWait time.Duration
	stopWait time.Duration
	worker   bool
	resumeFD int
	probe    bool
}

func newMountCmd(g *globals) *cobra.Command {
	c := &mountCmd{g: g}
	cmd := &cobra.Command{
		Use:   "mount DIR",
		Short: "Show the releases below a folder",
		Long: `Mount shows every release of the store below DIR: DIR/1.23.3 is a GOROOT.
DIR/1.23 is the newest patch of 1.23, DIR/latest the newest release, and
DIR/bin has a link go1.23.3 for each and a go that picks the right one, for the
search path.

It returns when the mount answers; the mount is served in the background until
gofs umount DIR, or until its process gets SIGTERM. Releases that are imported
or removed meanwhile appear and disappear. DIR is made if it is not there, and
a mount on it whose process died is taken away.

With --supervise, the default in the background, a second small process keeps
the mount. When the one that serves dies, another goes on in its place, and who
reads meanwhile waits some milliseconds; before Linux 6.9, and with --io
passthrough, the store is mounted anew, and open files give errors. A process
that dies 5 times in 10 seconds is not started again: the mount is taken away.

--replace has the mount at DIR go on with this gofs, with the options that it
has. It needs a supervised mount, and a program that belongs to root or the
user of the mount and is writable to nobody else.

--hot keeps decoded programs and large files, so that they are decoded once:
"tmpfs" in a tmpfs of the mount's own, a folder on disk for the next mount too.
The least recently used go first; SIZE is 512MiB by default in memory (a
quarter of the memory at most) and 2GiB on disk. A file larger than that is not
kept. Where the hot layer fails, the mount goes on without it.

--io cache, the default, has the kernel cache what it was given: a second build
asks nothing. --io passthrough has it read the files of the hot layer itself,
so that none is in memory twice, at the price of a request for every file that
is opened. It needs Linux 6.9 and CAP_SYS_ADMIN.

What is read is noted for gofs warm, in gofs in the user's cache folder (root:
/var/cache/gofs unless XDG_CACHE_HOME is set). gofs mount-stats shows what the
mount does.

Users other than root need fusermount3 (package fuse3).

EXIT STATUS
  0  mounted (with -f: unmounted again)
  1  it could not be mounted or replaced (with -f: or it crashed too often)
  2  wrong usage`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) },
	}
	c.cmd = cmd
	f := cmd.Flags()
	f.BoolVarP(&c.foreground, "foreground", "f", false, "serve the mount in this process")
	f.BoolVar(&c.allowOther, "allow-other", false, "let other users see the mount (needs user_allow_other in /etc/fuse.conf unless root)")
	f.StringVar(&c.cache, "decoded-cache", "64MiB", "memory for decoded content")
	f.StringVar(&c.hotArg, "hot", "", "keep decoded files in `tmpfs|DIR[:SIZE]`")
	f.StringVar(&c.io, "io", "cache", "how the kernel reads: `cache|passthrough`")
	f.StringVar(&c.log, "log", "", "`FILE` for what the background process has to say (default /var/log/gofs.log for root, $XDG_STATE_HOME/gofs/mount.log for others)")
	f.BoolVar(&c.debug, "debug", false, "log every request")
	f.BoolVar(&c.supervise, "supervise", false, "keep the mount when the process that serves it dies (default true without -f)")
	f.BoolVar(&c.replace, "replace", false, "have the mount at DIR go on with this gofs")
	f.IntVar(&c.readyFD, "ready-fd", 0, "write a line to this file descriptor once the mount answers")
	f.IntVar(&c.crashes, "crashes", 0, "give a mount up after this many crashes in 10 seconds")
	f.DurationVar(&c.goneWait, "gone-wait", 0, "wait this long for a process that dies to be gone")
	f.DurationVar(&c.stopWait, "stop-wait", 10*time.Second, "serve a mount in use this long after systemd has ended it")
	f.BoolVar(&c.worker, "worker", false, "serve for a supervisor")
	f.IntVar(&c.resumeFD, "resume-fd", 0, "go on as the supervisor of which this file descriptor tells")
	f.BoolVar(&c.probe, "probe", false, "ask the mount whether it answers")
	for _, name := range []string{"ready-fd", "crashes", "gone-wait", "stop-wait", "worker", "resume-fd", "probe"} {
		_ = f.MarkHidden(name)
	}
	return cmd
}

func (c *mountCmd) run(ctx context.Context, dir string) error {
	cache, err := humanize.ParseBytes(c.cache)
	if err != nil || cache > 1<<40 {
		return usagef("--decoded-cache %q: not a size like 64MiB", c.cache)
	}
	hot, err := parseHot(c.hotArg)
	if err != nil {
		return err
	}
	through, err := parseIO(c.io, hot)
	if err != nil {
		return err
	}
	if c.replace {
		return c.replaceMount(ctx, dir)
	}
	if c.probe {
		var st unix.Statfs_t
		return unix.Statfs(dir, &st)
	}
	if !c.cmd.Flags().Changed("supervise") {
		c.supervise = !c.foreground
	}
	if c.foreground {
		// One byte keeps nothing; 0 would stand for the default.
		err := c.serve(ctx, dir, gofs.Options{DecodedCache: max(int64(cache), 1), Hot: hot, Passthrough: through})
		if err != nil && c.readyFD != 0 {
			// The parent prints it.
			c.ready(err.Error())
			return exitStatus(exitFailed)
		}
		return err
	}
	// What the user can mend is said here, before a second process starts.
	store, dir, err := c.places(ctx, dir)
	if err != nil {
		return err
	}
	if err := c.background(dir, hot); err != nil {
		return err
	}
	if !c.g.quiet {
		fmt.Fprintf(c.cmd.OutOrStdout(), "mounted %s on %s\n", store.Dir(), dir)
	}
	return nil
}

// places opens the store and checks the folder to mount on, before anything is
// made in either.
func (c *mountCmd) places(ctx context.Context, dir string) (*index.Store, string, error) {
	storeDir, err := c.g.storeDir()
	if err != nil {
		return nil, "", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	if within(abs, storeDir) || within(storeDir, abs) {
		return nil, "", fmt.Errorf("%s: a store and its mount cannot lie in each other (the store is %s)", dir, storeDir)
	}
	store, err := c.g.createStore(ctx)
	if err != nil {
		return nil, "", err
	}
	dir, err = mountPlace(ctx, dir)
	return store, dir, err
}

// mountPlace checks the folder to mount on, makes it if it is not there, and
// returns its path without links.
func mountPlace(ctx context.Context, dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// A mount that is there already is found without touching it: a dead one
	// does not answer.
	if m, ok, err := mountAt(realPath(abs)); err != nil {
		return "", err
	} else if ok {
		if m.fstype == mountType && !dead(ctx, m) {
			return "", fmt.Errorf("%s is mounted already, with the store %s (gofs umount %s)", dir, m.source, dir)
		}
		if m.fstype == mountType {
			if err := unmount(m.dir, true); err != nil {
				return "", fmt.Errorf("%s is a mount whose process died: %w", dir, err)
			}
			return mountPlace(ctx, dir)
		}
		return "", fmt.Errorf("%s is a mount of another file system already (%s)", dir, m.fstype)
	}
	entries, err := os.ReadDir(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(abs, 0o755); err != nil {
			return "", fmt.Errorf("make mountpoint: %w", err)
		}
	case err != nil:
		return "", fmt.Errorf("mountpoint: %w", err)
	case len(entries) > 0:
		return "", fmt.Errorf("%s is not empty (%s is in it)", dir, entries[0].Name())
	}
	return filepath.EvalSymlinks(abs)
}

// background starts a process that serves the mount and waits until it
// answers.
func (c *mountCmd) background(dir string, hot *gofs.Hot) error {
	log, err := c.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	args, err := c.args(hot)
	if err != nil {
		w.Close()
		return err
	}
	args = append(args, "--foreground", "--ready-fd=3", fmt.Sprintf("--supervise=%v", c.supervise), "--", dir)
	child := exec.Command(self, args...)
	child.Dir = "/"
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{w}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = child.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start background process: %w", err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if line = strings.TrimSpace(line); line == readyLine {
		return child.Process.Release()
	}
	_ = child.Wait() // it has ended or is about to; the line says why
	if line == "" {
		return fmt.Errorf("the background process ended without a word (%v; see %s)", err, log.Name())
	}
	return errors.New(line)
}

// args are the arguments for other processes of the mount, but for the folder.
func (c *mountCmd) args(hot *gofs.Hot) ([]string, error) {
	store, err := c.g.storeDir()
	if err != nil {
		return nil, err
	}
	args := []string{"mount", "--store=" + store, "--decoded-cache=" + c.cache, "--io=" + c.io}
	if hot != nil {
		args = append(args, "--hot="+hotArg(hot))
	}
	if c.allowOther {
		args = append(args, "--allow-other")
	}
	if c.debug {
		args = append(args, "--debug")
	}
	if c.crashes != 0 {
		args = append(args, fmt.Sprintf("--crashes=%d", c.crashes))
	}
	if c.goneWait != 0 {
		args = append(args, fmt.Sprintf("--gone-wait=%v", c.goneWait))
	}
	return args, nil
}

const readyLine = "ready"

// ready tells the process that started this one how it went.
func (c *mountCmd) ready(line string) {
	f := os.NewFile(uintptr(c.readyFD), "ready")
	fmt.Fprintln(f, strings.ReplaceAll(line, "\n", " "))
	f.Close()
	c.readyFD = 0
}

// openLog opens the log. Root of a user namespace is not root of /var/log.
func (c *mountCmd) openLog() (*os.File, error) {
	name := c.log
	if name == "" && os.Geteuid() == 0 {
		if f, err := openForLog("/var/log/gofs.log"); !errors.Is(err, fs.ErrPermission) {
			return f, err
		}
	}
	if name == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if state == "" {
			state = filepath.Join(os.Getenv("HOME"), ".local", "state")
		}
		name = filepath.Join(state, "gofs", "mount.log")
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return nil, fmt.Errorf("open log: %w (--log names another)", err)
		}
	}
	return openForLog(name)
}

func openForLog(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w (--log names another)", err)
	}
	return f, nil
}

// serve mounts and serves until somebody unmounts, or has another process
// serve, or is that process.
func (c *mountCmd) serve(ctx context.Context, dir string, o gofs.Options) error {
	level := slog.LevelInfo
	if c.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(c.cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	if c.readyFD != 0 {
		unix.CloseOnExec(c.readyFD)
		c.detached = true
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if ctx.Err() != nil { // it came before
		signals <- syscall.SIGTERM
	}
	o.AllowOther, o.Debug, o.Log = c.allowOther, c.debug, log.With("mount", dir)
	switch {
	case c.worker:
		return c.work(ctx, dir, o, signals)
	case c.resumeFD != 0:
		return c.resume(ctx, dir, o, signals)
	}
	store, dir, err := c.places(ctx, dir)
	if err != nil {
		return err
	}
	o.Log = log.With("mount", dir)
	if c.supervise {
		return c.keep(ctx, store, dir, o, signals)
	}
	// The signals that end other verbs here end the mount, in their own way.
	s, err := gofs.Mount(context.WithoutCancel(ctx), store, dir, c.servingOptions(store, o))
	if err != nil {
		return err
	}
	defer c.started(ctx, store, dir, func() {})()
	return c.attend(s, signals)
}

// servingOptions are those of the process that serves.
func (c *mountCmd) servingOptions(store *index.Store, o gofs.Options) gofs.Options {
	boundMemory(o.DecodedCache)
	o.Launcher, o.Notes, o.RunDir = launcher(), notesFile(store.Dir()), runDir()
	if o.RunDir == "" {
		o.Log.Warn("no folder for a socket: gofs mount-stats and gofs warm cannot reach the mount")
	}
	return o
}

// started says to all who want to know that the mount answers; hung is called
// when it does not any more, see watchHealth. The function that it returns ends
// what it began.
func (c *mountCmd) started(ctx context.Context, store *index.Store, dir string, hung func()) (stop func()) {
	if c.readyFD != 0 {
		c.ready(readyLine)
	} else if !c.g.quiet {
		fmt.Fprintf(c.cmd.OutOrStdout(), "mounted %s on %s\n", store.Dir(), dir)
	}
	return watchHealth(ctx, dir, hung)
}

// attend waits for the end of a mount, or for a signal to end it.
func (c *mountCmd) attend(s *gofs.Server, signals <-chan os.Signal) error {
	done := make(chan struct{})
	go func() { s.Wait(); close(done) }()
	for asked := false; ; {
		select {
		case <-done:
			return nil
		case sig := <-signals:
			if sig == syscall.SIGHUP && c.detached {
				continue // the terminal it was started from is gone
			}
			if asked {
				return fmt.Errorf("%s: ended while in use", s.Dir())
			}
			asked = true
			tellSystemd("STOPPING=1")
			if err := c.end(s, s.Dir()); err != nil {
				return err
			}
		}
	}
}

// end unmounts. A mount in use is detached: nobody finds it any more, those
// that have it go on, and the process ends with the last of them.
func (c *mountCmd) end(s *gofs.Server, dir string) error {
	err := s.Unmount()
	if !errors.Is(err, gofs.ErrBusy) {
		return err
	}
	fmt.Fprintf(c.cmd.ErrOrStderr(), "gofs: %s is in use %s; detached, serving them until they end (again to end now)\n", dir, busyText(dir))
	return unmount(dir, true)
}
