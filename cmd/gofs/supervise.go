package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	gofs "gofs/fs"
	"gofs/index"
)

// supervision is how the mount at dir is kept.
func (c *mountCmd) supervision(dir string, hot *gofs.Hot) (gofs.Supervision, error) {
	args, err := c.args(hot)
	if err != nil {
		return gofs.Supervision{}, err
	}
	args = append(args, "--foreground")
	n := len(args)
	return gofs.Supervision{
		Worker:  append(args[:n:n], "--worker", "--", dir),
		Resume:  append(args[:n:n], "--supervise", "--quiet", dir, "--resume-fd"),
		Crashes: c.crashes, GoneWait: c.goneWait,
	}, nil
}

// keep mounts and has another process serve.
func (c *mountCmd) keep(ctx context.Context, store *index.Store, dir string, o gofs.Options, signals <-chan os.Signal) error {
	how, err := c.supervision(dir, o.Hot)
	if err != nil {
		return err
	}
	s, err := gofs.Supervise(ctx, store, dir, o, how)
	if err != nil {
		return err
	}
	return c.look(ctx, s, store, dir, signals)
}

// resume goes on as the supervisor that this process was.
func (c *mountCmd) resume(ctx context.Context, dir string, o gofs.Options, signals <-chan os.Signal) error {
	// It has no terminal that it knows of.
	c.detached = true
	storeDir, err := c.g.storeDir()
	if err != nil {
		return err
	}
	store, err := index.Open(storeDir)
	if err != nil {
		return err
	}
	how, err := c.supervision(dir, o.Hot)
	if err != nil {
		return err
	}
	s, err := gofs.Resume(store, o, how, c.resumeFD)
	if err != nil {
		return err
	}
	return c.look(ctx, s, store, dir, signals)
}

// look waits for the end of a supervised mount.
func (c *mountCmd) look(ctx context.Context, s *gofs.Supervisor, store *index.Store, dir string, signals <-chan os.Signal) error {
	// It does next to nothing from here on.
	debug.SetGCPercent(10)
	debug.FreeOSMemory()
	defer c.started(context.WithoutCancel(ctx), store, dir, s.Restart)()
	var ended atomic.Bool
	go func() {
		for sig := range signals {
			if sig == syscall.SIGHUP && c.detached {
				continue // the terminal it was started from is gone
			}
			s.Signal(syscall.SIGTERM)
			if tellSystemd("STOPPING=1") {
				// It would kill both processes, and call that a failure.
				time.AfterFunc(c.stopWait, func() {
					ended.Store(true)
					s.Signal(syscall.SIGKILL)
				})
			}
		}
	}()
	err := s.Wait()
	if ended.Load() && err != nil {
		fmt.Fprintf(c.cmd.ErrOrStderr(), "gofs: %v\n", err)
		return nil
	}
	return err
}

// work serves for a supervisor.
func (c *mountCmd) work(ctx context.Context, dir string, o gofs.Options, signals <-chan os.Signal) error {
	// A signal of the terminal is for the supervisor.
	c.detached = true
	d, err := gofs.Inherit()
	if d == nil {
		return err
	}
	fail := func(err error) error {
		if d.Fail(err) {
			return exitStatus(exitFailed) // the supervisor prints it
		}
		return err
	}
	if err != nil {
		return fail(err)
	}
	storeDir, err := c.g.storeDir()
	if err != nil {
		return fail(err)
	}
	store, err := index.Open(storeDir)
	if err != nil {
		return fail(err)
	}
	s, err := gofs.Serve(context.WithoutCancel(ctx), store, d, c.servingOptions(store, o))
	if err != nil {
		return fail(err)
	}
	return c.attend(s, signals)
}

// replaceWait bounds the wait for the next process of a mount to answer.
const replaceWait = 10 * time.Second

// replaceMount has the mount at dir go on with this program.
func (c *mountCmd) replaceMount(ctx context.Context, dir string) error {
	for _, name := range []string{"foreground", "supervise", "allow-other", "decoded-cache", "hot", "io", "log", "debug"} {
		if c.cmd.Flags().Changed(name) {
			return usagef("--replace goes with no --%s: the mount keeps its options (gofs umount and gofs mount change them)", name)
		}
	}
	m, err := c.g.findMount(dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	before, err := mountStats(ctx, m)
	if err != nil {
		return err
	}
	a, err := ask(ctx, m)
	if err != nil {
		return err
	}
	defer a.Close()
	gone, err := a.Replace(ctx, self)
	if err != nil {
		return fmt.Errorf("%s: %w", m.dir, err)
	}
	deadline := time.Now().Add(replaceWait)
	gone(replaceWait)
	for {
		// A mount anew has another socket.
		now, ok, err := mountAt(m.dir)
		if err != nil {
			return err
		}
		if ok && now.fstype == mountType {
			if st, err := mountStats(ctx, now); err == nil && st.PID != before.PID {
				if st.Program != self {
					return fmt.Errorf("%s goes on with %s (its log says why)", m.dir, st.Program)
				}
				if !c.g.quiet {
					fmt.Fprintf(c.cmd.OutOrStdout(), "%s is served by %s, process %d\n", m.dir, st.Program, st.PID)
				}
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer %v after it was to be replaced (its log says why; gofs umount %s)", m.dir, replaceWait, m.dir)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// dead says whether a mount has lost its process. One that only hangs has
// not, and is not touched.
func dead(ctx context.Context, m mountPoint) bool {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	if a, err := ask(ctx, m); err == nil {
		a.Close()
		return false
	}
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(m.dir, &st)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
	case <-time.After(time.Second):
		return false
	}
}
