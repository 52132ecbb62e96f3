package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mountPoint is a line of /proc/self/mountinfo.
type mountPoint struct {
	dir    string
	fstype string // fuse.gofs
	source string // the folder of the store
	device string // MAJOR:MINOR
	owner  int    // user who mounted it
}

const mountType = "fuse.gofs"

// gofsMounts lists the mounts of gofs that this process sees, the newest last.
func gofsMounts() ([]mountPoint, error) {
	all, err := mountPoints()
	return slices.DeleteFunc(all, func(m mountPoint) bool { return m.fstype != mountType }), err
}

func mountPoints() ([]mountPoint, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return parseMountInfo(b), nil
}

// parseMountInfo reads the format of proc_pid_mountinfo(5).
func parseMountInfo(b []byte) []mountPoint {
	var list []mountPoint
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		head, tail, ok := strings.Cut(s.Text(), " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if ok && len(h) >= 5 && len(t) >= 2 {
			list = append(list, mountPoint{unescape(h[4]), t[0], unescape(t[1]), h[2], owner(t)})
		}
	}
	return list
}

// owner is the user that the options of a FUSE mount name.
func owner(tail []string) int {
	for option := range strings.SplitSeq(tail[len(tail)-1], ",") {
		if id, ok := strings.CutPrefix(option, "user_id="); ok {
			if n, err := strconv.Atoi(id); err == nil {
				return n
			}
		}
	}
	return 0
}

// unescape undoes the kernel's \ooo for white space in names.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if len(s) >= 4 && s[0] == '\\' {
			if n, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// mountAt returns what is mounted last at dir itself.
func mountAt(dir string) (mountPoint, bool, error) {
	all, err := mountPoints()
	if err != nil {
		return mountPoint{}, false, err
	}
	slices.Reverse(all)
	i := slices.IndexFunc(all, func(m mountPoint) bool { return m.dir == dir })
	if i < 0 {
		return mountPoint{}, false, nil
	}
	return all[i], true, nil
}

// holder is a process that keeps a mount busy.
type holder struct {
	pid  int
	name string
	how  string
}

func (h holder) String() string { return fmt.Sprintf("process %d (%s: %s)", h.pid, h.name, h.how) }

// holders finds the processes that keep the mount at dir busy, as far as this
// user may see. It looks at links in /proc only and so never at the mount.
func holders(dir string) []holder {
	below := func(path string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []holder
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if how := holds(filepath.Join("/proc", e.Name()), below); how != "" {
			name, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
			list = append(list, holder{pid, strings.TrimSpace(string(name)), how})
		}
	}
	return list
}

func holds(proc string, below func(string) bool) string {
	for _, l := range []struct{ name, how string }{
		{"cwd", "works in "}, {"root", "has its root in "}, {"exe", "runs "},
	} {
		if path, err := os.Readlink(filepath.Join(proc, l.name)); err == nil && below(path) {
			return l.how + path
		}
	}
	fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
	for _, fd := range fds {
		if path, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && below(path) {
			return "has open " + path
		}
	}
	maps, _ := os.ReadFile(filepath.Join(proc, "maps"))
	for line := range strings.Lines(string(maps)) {
		if i := strings.IndexByte(line, '/'); i >= 0 && below(strings.TrimSpace(line[i:])) {
			return "has mapped " + strings.TrimSpace(line[i:])
		}
	}
	return ""
}

// busyText names the holders of a mount for a message.
func busyText(dir string) string {
	list := holders(dir)
	// This very process counts only as a word about the shell it was started
	// from, which others may not see.
	if len(list) > 1 {
		list = slices.DeleteFunc(list, func(h holder) bool { return h.pid == os.Getpid() })
	}
	if len(list) == 0 {
		return "by a process that is not yours"
	}
	var names []string
	for i, h := range list {
		if i == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		names = append(names, h.String())
	}
	return "by " + strings.Join(names, ", ")
}
