package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gofs "gofs/fs"
)

// served asks the mount at dir until another process than before serves it.
func served(dir string, before int) (*gofs.Stats, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		m, ok, err := mountAt(dir)
		if err == nil && ok {
			var st *gofs.Stats
			if st, err = mountStats(ctx, m); err == nil && st.PID != before {
				return st, nil
			}
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: no other process than %d serves (%w)", dir, before, err)
		}
		time.Sleep(time.Millisecond) // polls, synchronizes nothing
	}
}

// killWorker kills the process that serves a mount. It returns when that is
// gone and, where it is waited for, another one serves.
func killWorker(dir string, wait bool) error {
	st, err := served(dir, 0)
	if err != nil {
		return err
	}
	if err := killAndWait(st.PID); err != nil || !wait || !st.Supervised {
		return err
	}
	_, err = served(dir, st.PID)
	return err
}

// killSupervisor kills the process that keeps a mount.
func killSupervisor(dir string) error {
	st, err := served(dir, 0)
	if err != nil {
		return err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", st.PID))
	if err != nil {
		return err
	}
	var parent int
	var state string
	_, rest, _ := strings.Cut(string(stat), ") ")
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		return err
	}
	return killAndWait(parent)
}

// killAndWait kills a process and returns when it is one no more.
func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	for {
		if _, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000); err != unix.EINTR {
			return err
		}
	}
}

// disturbances are what a build must not notice.
func disturbances(m *mounted, other string) map[string]func() {
	return map[string]func(){
		"import": func() {
			m.run("import", "--quiet", "--as", "other", other)
			m.run("rm", "--quiet", "other")
		},
		"kill": func() {
			if err := killWorker(m.dir, true); err != nil {
				m.t.Error(err)
			}
		},
		"replace": func() { m.run("mount", "--quiet", "--replace", m.dir) },
	}
}

// buildThrough builds a program with an empty cache, and disturbs until it is
// done, in turns; in short tests twice each.
func buildThrough(t *testing.T, m *mounted, disturb ...func()) {
	build := *m
	build.t, build.cache = t, t.TempDir()
	dir := program(t)
	cmd := build.goCommand("1.23.3", dir, "build", "-o", "program", ".")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for n := 0; ; n++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("build: %v\n%s", err, out.Bytes())
			}
			if n < len(disturb) {
				t.Fatal("the build was over too soon")
			}
			t.Logf("disturbed %d times", n)
			if said, err := exec.Command(filepath.Join(dir, "program")).CombinedOutput(); err != nil || string(said) != "go1.23.3\n" {
				t.Errorf("the program says %q, %v", said, err)
			}
			return
		default:
			if n >= 2*len(disturb) && testing.Short() {
				done <- <-done
				n-- // that was none
				continue
			}
			disturb[n%len(disturb)]()
		}
	}
}

// service is a mount that systemd has started.
type service struct {
	*exec.Cmd
	t      *testing.T
	mnt    string
	socket *net.UnixConn
	stderr bytes.Buffer
}

func startService(t *testing.T, args ...string) *service {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, mnt: filepath.Join(dir, "mnt"), socket: l}
	s.Cmd = exec.Command(gofsBinary(t), append([]string{"mount", "-f", "--supervise", s.mnt}, args...)...)
	s.Env = append(os.Environ(), "GOFS_STORE="+filepath.Join(dir, "store"), "NOTIFY_SOCKET="+name, "WATCHDOG_USEC=3000000")
	s.Stderr = &s.stderr
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(s.mnt, unix.MNT_DETACH)
		l.Close()
	})
	if got := s.next(); got != "READY=1\nSTATUS=serving "+s.mnt {
		t.Errorf("%q", got)
	}
	return s
}

// next is what the service says next.
func (s *service) next() string {
	s.t.Helper()
	_ = s.socket.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 4096)
	n, err := s.socket.Read(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b[:n])
}

// TestNotify talks to systemd as sd_notify(3) says.
func TestNotify(t *testing.T) {
	s := startService(t)
	for range 2 {
		if got := s.next(); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	// A process that does not answer is killed, and the next one does.
	st, err := served(s.mnt, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(st.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if st, err = served(s.mnt, st.PID); err != nil || st.Restarts != 1 {
		t.Fatal(err, st)
	}
	if got := s.next(); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
	if err := s.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "STOPPING=1"; {
		got = s.next()
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// TestStopInUse ends a service whose mount is in use.
func TestStopInUse(t *testing.T) {
	s := startService(t, "--stop-wait=1ms")
	user := exec.Command("cat")
	user.Dir = s.mnt
	in, err := user.StdinPipe()
	if err == nil {
		err = user.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil || !strings.Contains(s.stderr.String(), s.mnt+": ended while in use") {
		t.Errorf("%v, and it says %s", err, s.stderr.String())
	}
	if _, ok, err := mountAt(s.mnt); ok || err != nil {
		t.Error("it is mounted still", err)
	}
	in.Close()
	if err := user.Wait(); err != nil {
		t.Error(err)
	}
}

// BenchmarkRestart kills the process that serves and measures until the mount
// answers again, on the store that GOFS_STORE names.
func BenchmarkRestart(b *testing.B) {
	mnt := filepath.Join(b.TempDir(), "mnt")
	cmd := exec.Command(gofsBinary(b), "mount", "--crashes=1000000", "--log="+filepath.Join(b.TempDir(), "log"), mnt)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	defer func() {
		if err := unmount(mnt, false); err != nil {
			b.Error(err)
		}
	}()
	var list []time.Duration
	pid := 0
	for n := 0; b.Loop(); n++ {
		st, err := served(mnt, pid)
		if err != nil {
			b.Fatal(err)
		}
		pid = st.PID
		start := time.Now()
		if err := killAndWait(pid); err != nil {
			b.Fatal(err)
		}
		// The kernel does not know the name.
		if _, err := os.Stat(filepath.Join(mnt, fmt.Sprint("none", n))); !errors.Is(err, os.ErrNotExist) {
			b.Fatal(err)
		}
		list = append(list, time.Since(start))
	}
	slices.Sort(list)
	b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(list[len(list)-1].Microseconds())/1000, "max-ms")
}
