package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one execution of a workload.
type sample struct {
	Wall   time.Duration `json:"wall_ns"`
	Client time.Duration `json:"client_cpu_ns"` // user and system, descendants too
	// Daemon is the CPU time of the daemon. What kernel threads do for a
	// kernel file system (the loop device) is nobody's.
	Daemon   time.Duration     `json:"daemon_cpu_ns"`
	Requests map[string]uint64 `json:"requests,omitempty"` // those that were not 0
	// Bandwidth of a fio job in bytes a second.
	Bandwidth float64 `json:"bandwidth,omitempty"`
	// P99 is the time that 99 of 100 reads of a fio job took at most.
	P99 time.Duration `json:"p99_ns,omitempty"`
}

func (s sample) cpu() time.Duration { return s.Client + s.Daemon }

// timed runs a command on a peer.
func (b *bench) timed(p *peer, cmd *exec.Cmd) (s sample, stdout []byte, err error) {
	before, err := p.requests()
	if err != nil {
		return s, nil, err
	}
	var stderr, out bytes.Buffer
	cmd.Stderr = &stderr
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	daemon := cpuTime(p.pid())
	start := time.Now()
	err = cmd.Run()
	s.Wall = time.Since(start)
	s.Daemon = cpuTime(p.pid()) - daemon
	if cmd.ProcessState != nil {
		s.Client = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	if err != nil {
		return s, nil, fmt.Errorf("%w: %s", err, firstLine(stderr.String()+out.String()))
	}
	after, err := p.requests()
	if err != nil {
		return s, nil, err
	}
	for kind, n := range after {
		if n > before[kind] {
			if s.Requests == nil {
				s.Requests = map[string]uint64{}
			}
			s.Requests[kind] = n - before[kind]
		}
	}
	return s, out.Bytes(), nil
}

// cpuTime is the CPU time of a process so far, by its clock; see
// clock_getcpuclockid(3).
func cpuTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	const sched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// memory returns what a process has in memory, and the most it had, in bytes.
func memory(pid int) (rss, peak int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			rss = n << 10
		case "VmHWM":
			peak = n << 10
		}
	}
	return rss, peak, nil
}

// shell is a command whose output nobody sees.
func (b *bench) shell(ctx context.Context, script string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "sh", append([]string{"-c", script, "sh"}, args...)...)
}
