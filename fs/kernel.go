package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readahead is how much the kernel reads ahead, in KiB, where the mount may
// say so. FUSE mounts get 128 otherwise: 18 MB of programs came in 21 READs
// with 1024 and in 74 with 128.
const readahead = 1024

// noDevice tells a device that is missing or without a driver from other
// errors.
func noDevice(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("%w: %w", ErrNoFuse, err)
	}
	return err
}

// fusermount is the program that mounts for users; "" where there is none.
func fusermount() string {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// unmountTries is how often a busy mount is tried again: the kernel closes
// the files of a process a moment after it is gone.
const unmountTries = 4

func (s *Server) unmount() (err error) {
	for try := range unmountTries {
		if try > 0 {
			select {
			case <-s.done:
				return nil
			case <-time.After(time.Duration(try) * 10 * time.Millisecond):
			}
		}
		if err = s.device.unmount(); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return ErrBusy
	case errors.Is(err, unix.EINVAL): // somebody else was quicker
		return nil
	}
	return err
}

// runFusermount unmounts. The error is EBUSY or EINVAL where umount(2) would
// say so.
func runFusermount(program, how, dir string) error {
	cmd := exec.Command(program, how, "--", dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	switch text := string(bytes.TrimSpace(out)); {
	case err == nil:
		return nil
	case strings.Contains(text, unix.EBUSY.Error()), strings.Contains(text, "Device or resource busy"):
		return unix.EBUSY
	case strings.Contains(text, "not found in"), strings.Contains(text, "Invalid argument"):
		return unix.EINVAL
	default:
		return fmt.Errorf("%s: %w", text, err)
	}
}

// raiseReadahead raises the kernel's read-ahead. It needs root.
func (s *Server) raiseReadahead() error {
	f, err := os.OpenFile("/sys/class/bdi/"+s.device.Number+"/read_ahead_kb", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, readahead)
	return errors.Join(err, f.Close())
}

// mountNumber finds the device number, major:minor, of what is mounted on dir.
// A stat would be a request to the mount.
func mountNumber(mountinfo, dir string) (number string, ok bool) {
	for line := range strings.Lines(mountinfo) {
		// id, parent, major:minor, root, mount point, ...
		if f := strings.Fields(line); len(f) > 5 && unescape(f[4]) == dir {
			number, ok = f[2], true // the last one covers the others
		}
	}
	return number, ok
}

// unescape undoes the octal escapes of /proc/self/mountinfo.
func unescape(s string) string {
	for i := 0; i+4 <= len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
			s = s[:i] + string([]byte{byte(c)}) + s[i+4:]
		}
	}
	return s
}
