package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gofs/doctor"
)

// fakeGoroot is a GOROOT whose go is a real program of the Go that runs the
// tests.
func fakeGoroot(t testing.TB, dir, version string) string {
	t.Helper()
	file := filepath.Join(dir, "bin", "go")
	cmd := exec.Command(filepath.Join(hostGoroot(), "bin", "go"), "build", "-o", file, "./testdata/fakego")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(version+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// start runs a program until the test ends; it returns after its first line.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

func TestPs(t *testing.T) {
	root := t.TempDir()
	built := runtime.Version()
	file := fakeGoroot(t, filepath.Join(root, "good"), built)
	stale := fakeGoroot(t, filepath.Join(root, "stale"), "go1.2.2")
	plain := exec.Command(file, "wait")
	plain.Env = []string{"GOROOT=" + filepath.Join(root, "good")}
	start(t, plain)
	other := exec.Command(file, "wait")
	other.Env = []string{"GOROOT=/elsewhere"}
	start(t, other)
	replaced := exec.Command(stale, "wait")
	replaced.Env = []string{}
	start(t, replaced)

	list, _, err := doctor.Processes()
	if err != nil {
		t.Fatal(err)
	}
	find := func(pid int) doctor.Process {
		i := slices.IndexFunc(list, func(p doctor.Process) bool { return p.PID == pid })
		if i < 0 {
			t.Fatalf("process %d is not listed in %v", pid, list)
		}
		return list[i]
	}
	if p := find(plain.Process.Pid); p.Mismatch != "" || "go"+p.BuiltBy != built || p.Exe != file {
		t.Errorf("a sound process: %+v", p)
	}
	if p := find(other.Process.Pid); p.Mismatch != "GOROOT=/elsewhere, but it runs from "+filepath.Join(root, "good") {
		t.Errorf("another GOROOT: %+v", p)
	}
	if p := find(replaced.Process.Pid); !strings.HasSuffix(p.Mismatch, "is now go 1.2.2") {
		t.Errorf("another release in its place: %+v", p)
	}

	out, err := exec.Command(gofsBinary(t), "ps", "--json").Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("gofs ps: %v", err)
	}
	var doc struct{ Processes []doctor.Process }
	if err := json.Unmarshal(out, &doc); err != nil || len(doc.Processes) < 3 {
		t.Errorf("gofs ps --json printed %s: %v", out, err)
	}
}

// Processes of other users are counted only. As an ordinary user those of
// root are at hand, as root one is started as nobody.
func TestPsOtherUsers(t *testing.T) {
	root, err := os.MkdirTemp("/tmp", "gofs-ps-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	file := fakeGoroot(t, root, runtime.Version())
	cmd := exec.Command(file, "wait")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
		start(t, cmd)
	}
	list, others, err := doctor.Processes()
	if err != nil || others < 1 {
		t.Errorf("%d processes of others, %v", others, err)
	}
	if cmd.Process != nil && slices.ContainsFunc(list, func(p doctor.Process) bool { return p.PID == cmd.Process.Pid }) {
		t.Error("a process of nobody is listed")
	}
}

// A signal to gofs exec ends the command as it ends it without gofs.
func TestExecSignal(t *testing.T) {
	mount := t.TempDir()
	if err := fakeRelease(filepath.Join(mount, "1.23.3"), "1.23.3"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gofsBinary(t), "exec", "1.23.3", "--", "sh", "-c", "echo ready; read x")
	cmd.Env = append(os.Environ(), "GOFS_MOUNT="+mount)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the state tells more
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want SIGTERM", cmd.ProcessState)
	}
}

// took runs a command and says how long it took.
func took(b *testing.B, env []string, dir, file string, args ...string) time.Duration {
	b.Helper()
	cmd := exec.Command(file, args...)
	cmd.Env, cmd.Dir = env, dir
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", file, err, out)
	}
	return time.Since(start)
}

// summary is the median and the best of a list, in milliseconds. What else
// the machine does is in the median; the best is free of it.
func summary(list []time.Duration) (median, best float64) {
	slices.Sort(list)
	const ms = float64(time.Millisecond)
	return float64(list[len(list)/2]) / ms, float64(list[0]) / ms
}

// BenchmarkLauncher runs the same program directly, through the launcher, and
// gofs check, in turns. The launcher should cost less than 5 ms, gofs check
// less than 50.
func BenchmarkLauncher(b *testing.B) {
	home := b.TempDir()
	real := fakeGoroot(b, filepath.Join(home, "mount", "1.23.3"), "go1.23.3")
	for _, v := range []string{"1.20.14", "1.21.0", "1.21.13", "1.22.0", "1.22.8", "1.22.12", "1.23.0", "1.24.0"} {
		if err := fakeRelease(filepath.Join(home, "mount", v), v); err != nil {
			b.Fatal(err)
		}
	}
	dir := filepath.Join(home, "p", "a", "b", "c", "d")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "p", "go.mod"), []byte("module p\n\ngo 1.23\n"), 0o666); err != nil {
		b.Fatal(err)
	}
	gofs := gofsBinary(b)
	env := []string{"HOME=" + home, "PATH=" + filepath.Dir(real), "GOFS_MOUNT=" + filepath.Join(home, "mount")}
	took(b, env, "/", gofs, "shim", "install", filepath.Join(home, "shims"))
	var direct, launched, check []time.Duration
	for b.Loop() {
		direct = append(direct, took(b, env, dir, real, "env"))
		launched = append(launched, took(b, env, dir, filepath.Join(home, "shims", "go"), "env"))
		check = append(check, took(b, env, dir, gofs, "check"))
	}
	directMedian, directBest := summary(direct)
	median, best := summary(launched)
	b.ReportMetric(directMedian, "direct-ms")
	b.ReportMetric(median-directMedian, "overhead-ms")
	b.ReportMetric(best-directBest, "best-overhead-ms")
	median, _ = summary(check)
	b.ReportMetric(median, "check-ms")
}
