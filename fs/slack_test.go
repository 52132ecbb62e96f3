package fs

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSlacken looks at the threads that there were before: one that is started
// meanwhile has what its parent had then.
func TestSlacken(t *testing.T) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	slacken()
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
		if got := strings.TrimSpace(string(b)); err == nil && got != strconv.Itoa(timerSlack) || err != nil && !os.IsNotExist(err) {
			t.Errorf("thread %s: %s, %v", task.Name(), got, err)
		}
	}
}

// TestStartSlack starts a process with the slack, and keeps its own.
func TestStartSlack(t *testing.T) {
	const own = 60_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, own, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }()
	var out bytes.Buffer
	cmd := exec.Command("cat", "/proc/self/timerslack_ns")
	cmd.Stdout = &out
	if err := startSlack(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || strings.TrimSpace(out.String()) != strconv.Itoa(timerSlack) {
		t.Errorf("%q, %v", out.String(), err)
	}
	if got, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || got != own {
		t.Errorf("this thread has %d, %v", got, err)
	}
}
