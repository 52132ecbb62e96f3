package fs

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// timerSlack is by how much later than asked a sleep of the threads that serve
// may end, in nanoseconds (prctl(2), PR_SET_TIMERSLACK).
//
// The monitor of the Go runtime looks every 20 µs at the threads that are in
// system calls, as long as it finds one that stays there. Here it always does:
// the threads that wait for requests are in read(2). With Linux's own slack of
// 50 µs it took 15 % of the processor time of a first build, which was 7 %
// quicker with this one. More did not help: somebody has to see that a thread
// reads a pack while others could work.
const timerSlack = 1_000_000

// slacken gives the threads of this process the slack, and with them those that
// they start. To give it to others than itself takes CAP_SYS_NICE: without,
// nothing changes.
func slacken() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	value := strconv.AppendInt(nil, timerSlack, 10)
	for _, t := range tasks {
		// Not below /proc/self/task, where that file is not.
		_ = os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", value, 0)
	}
}

// startSlack starts a process whose threads have the slack from their start, for
// which nobody needs a right.
func startSlack(cmd *exec.Cmd) error {
	runtime.LockOSThread() // which the process gets it from
	defer runtime.UnlockOSThread()
	if own, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil {
		// An error means a process that is a little slower.
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(own), 0, 0, 0) }()
	}
	return cmd.Start()
}
