package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// tellSystemd sends a state to systemd, as sd_notify(3) does, where systemd
// started this process and waits for it; else it does nothing and says no.
func tellSystemd(state string) bool {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return false
	}
	// An abstract name begins with @, for which package net puts the 0.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return true // systemd sees that nothing comes
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // fails with the write
	_, _ = c.Write([]byte(state))
	return true
}

// watchdogTime is how long systemd waits for a sign of life; 0: for ever.
func watchdogTime() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n <= 0 || n > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// watchHealth tells systemd that the mount is there, and then again and again
// that it answers. When it does not, hung is called; if it does not for the
// watchdog's time, systemd ends the service. It returns a function that ends
// that.
func watchHealth(ctx context.Context, dir string, hung func()) (stop func()) {
	tellSystemd("READY=1\nSTATUS=serving " + dir)
	every := watchdogTime() / 3
	if every == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if answers(ctx, dir, every) {
				tellSystemd("WATCHDOG=1")
			} else if ctx.Err() == nil {
				hung()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return cancel
}

// answers says whether the mount answers in a time. Another process asks it:
// this one has its device, and could not even be killed while it waits for a
// mount that hangs.
func answers(ctx context.Context, dir string, in time.Duration) bool {
	cmd := exec.Command("/proc/self/exe", "mount", "--probe", "--", dir)
	cmd.Args[0] = "gofs"
	if cmd.Start() != nil {
		return false
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err == nil
	case <-time.After(in):
	case <-ctx.Done():
	}
	_ = cmd.Process.Kill() // Wait returns when the mount is gone at the latest
	return false
}
