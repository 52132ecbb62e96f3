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

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// readahead is how much the kernel reads ahead, in KiB, where the mount may
// say so. FUSE mounts get 128 otherwise: 18 MB of programs came in 21 READs
// with 1024 and in 74 with 128.
const readahead = 1024

// mount mounts directly where that is permitted and with fusermount3 where it
// is not.
func (s *Server) mount(o Options) error {
	// fusermount3 opens it with the user's rights too.
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		return noDevice(err)
	} else {
		f.Close()
	}
	if os.Geteuid() == 0 {
		mo := s.mountOptions(o)
		mo.DirectMountStrict = true
		mo.DirectMountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY
		mo.Options = []string{"default_permissions"}
		server, err := fuse.NewServer(newRawFS(s), s.dir, mo)
		if err == nil {
			s.fuse, s.direct = server, true
			return nil
		}
		// Root of a container may lack the right that fusermount3 cannot give
		// either; elsewhere the error is the folder's.
		if !errors.Is(err, unix.EPERM) || fusermount() == "" {
			return err
		}
	}
	if fusermount() == "" {
		return ErrNoFusermount
	}
	mo := s.mountOptions(o)
	mo.Options = []string{"ro", "nosuid", "nodev", "default_permissions"}
	server, err := fuse.NewServer(newRawFS(s), s.dir, mo)
	if err != nil {
		// It has said why on standard error.
		return errors.New(strings.TrimSpace(err.Error()))
	}
	s.fuse = server
	return nil
}

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
		if s.direct {
			err = unix.Unmount(s.dir, unix.UMOUNT_NOFOLLOW)
		} else {
			err = s.fusermountUnmount()
		}
		if !errors.Is(err, unix.EBUSY) {
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

func (s *Server) fusermountUnmount() error {
	path := fusermount()
	if path == "" {
		return ErrNoFusermount
	}
	cmd := exec.Command(path, "-u", s.dir)
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

// raiseReadahead raises the kernel's read-ahead. It needs root. The device
// number comes from /proc: a stat would be a request to the own mount.
func (s *Server) raiseReadahead() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	device, ok := mountDevice(string(b), s.dir)
	if !ok {
		return fmt.Errorf("%s is not in /proc/self/mountinfo", s.dir)
	}
	f, err := os.OpenFile("/sys/class/bdi/"+device+"/read_ahead_kb", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, readahead)
	return errors.Join(err, f.Close())
}

// mountDevice finds the device, major:minor, of what is mounted on dir.
func mountDevice(mountinfo, dir string) (device string, ok bool) {
	for line := range strings.Lines(mountinfo) {
		// id, parent, major:minor, root, mount point, ...
		if f := strings.Fields(line); len(f) > 5 && unescape(f[4]) == dir {
			device, ok = f[2], true // the last one covers the others
		}
	}
	return device, ok
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
