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
// done, in turns.
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
			disturb[n%len(disturb)]()
		}
	}
}

// TestNotify talks to systemd as sd_notify(3) says.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := func() string {
		t.Helper()
		_ = l.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 4096)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	mnt := filepath.Join(dir, "mnt")
	cmd := exec.Command(gofsBinary(t), "mount", "-f", "--supervise", mnt)
	cmd.Env = append(os.Environ(), "GOFS_STORE="+filepath.Join(dir, "store"), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=300000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	if got := next(); got != "READY=1\nSTATUS=serving "+mnt {
		t.Errorf("%q", got)
	}
	for range 2 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	// A mount that does not answer feeds nothing.
	st, err := served(mnt, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(st.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_ = l.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	fed := 0
	for b := make([]byte, 4096); ; fed++ {
		if _, err := l.Read(b); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			break
		}
	}
	if fed > 2 { // what was on its way
		t.Errorf("fed %d times while it hung", fed)
	}
	if err := unix.Kill(st.PID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "STOPPING=1"; {
		got = next()
	}
	if err := cmd.Wait(); err != nil {
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
