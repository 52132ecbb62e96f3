package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gofs/resolve"
)

// wantReadahead in KiB: with it 18 MB of programs came in 21 reads, where the
// kernel's 128 took 74.
const wantReadahead = 1024

// answerTime is how long a mount may take to list its releases.
const answerTime = 5 * time.Second

// Hung reports whether the mount at dir does not answer. A process of gofs
// finds out, the program self: what waits for a FUSE server may not even be
// killed.
func Hung(ctx context.Context, self, dir string) bool {
	e := &exam{Host: &Host{}, ctx: ctx}
	_, err := e.runFor(answerTime, self, "which", "--mount", dir, "1.x")
	return errors.Is(err, context.DeadlineExceeded)
}

// checkHung looks for mounts that do not answer.
func (e *exam) checkHung() {
	mounts, err := resolve.Mounts("/proc/self/mountinfo")
	if err != nil || e.Self == "" {
		return
	}
	for _, m := range mounts {
		if Hung(e.ctx, e.Self, m.Dir) {
			e.hung = append(e.hung, m.Dir)
			e.find(Problem, "mount-hung", "fusermount3 -uz "+m.Dir, nil, "the mount at %s has not answered for %v", m.Dir, answerTime)
		}
	}
}

// below reports whether a path lies in a mount that does not answer.
func (e *exam) below(path string) bool {
	return slices.ContainsFunc(e.hung, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// checkMounts looks at every mounted store.
func (e *exam) checkMounts() {
	mounts, err := resolve.Mounts("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for _, m := range mounts {
		if e.below(m.Dir) {
			continue
		}
		_, err := os.ReadDir(m.Dir)
		switch {
		case errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED):
			e.find(Problem, "mount-dead", "fusermount3 -uz "+m.Dir, func() error { return e.unmount(m.Dir) }, "the mount at %s has no server any more", m.Dir)
			continue
		case err != nil:
			e.find(Problem, "mount-unreadable", "gofs mount "+m.Dir, nil, "the mount at %s: %v", m.Dir, err)
			continue
		}
		if _, err := os.Stat(m.Store); err != nil {
			e.find(Problem, "mount-stale", "fusermount3 -uz "+m.Dir, func() error { return e.unmount(m.Dir) }, "the mount at %s shows the store %s, which is gone", m.Dir, m.Store)
			continue
		}
		e.checkReadahead(m)
	}
	if len(mounts) > 0 {
		e.checkKernel()
		e.checkFuseConf(mounts)
	}
}

// unmount lets go of a mount even while it is in use.
func (e *exam) unmount(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		_, err = e.run("fusermount3", "-uz", dir)
	}
	return err
}

func (e *exam) checkReadahead(m resolve.Mount) {
	file := filepath.Join("/sys/class/bdi", m.Dev, "read_ahead_kb")
	data, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && n < wantReadahead {
		e.find(Note, "kernel-readahead", fmt.Sprintf("echo %d | sudo tee %s", wantReadahead, file), func() error {
			return os.WriteFile(file, fmt.Appendln(nil, wantReadahead), 0o644)
		}, "the kernel reads %d KiB ahead on the mount at %s, %d are quicker", n, m.Dir, wantReadahead)
	}
}

// checkKernel looks for FUSE passthrough, which came with Linux 6.9.
func (e *exam) checkKernel() {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return
	}
	var major, minor int
	if n, _ := fmt.Sscanf(string(data), "%d.%d", &major, &minor); n == 2 && (major < 6 || major == 6 && minor < 9) {
		e.find(Note, "kernel-old", "run Linux 6.9 or newer", nil, "Linux %s has no FUSE passthrough", strings.TrimSpace(string(data)))
	}
}

// checkFuseConf looks at mounts of ordinary users, which other users cannot
// see unless /etc/fuse.conf allows it.
func (e *exam) checkFuseConf(mounts []resolve.Mount) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, " - fuse.gofs ") || strings.Contains(line, "user_id=0") || strings.Contains(line, "allow_other") {
			continue
		}
		const file = "/etc/fuse.conf"
		conf, err := os.ReadFile(file)
		if err == nil && hasLine(string(conf), "user_allow_other") {
			return
		}
		e.find(Note, "fuse-conf", "echo user_allow_other | sudo tee -a "+file, func() error {
			f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			_, err = f.WriteString("user_allow_other\n")
			return errors.Join(err, f.Close())
		}, "%s does not allow other users, nor root, to see the mount at %s", file, mounts[0].Dir)
		return
	}
}

func hasLine(text, want string) bool {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == want {
			return true
		}
	}
	return false
}

// checkStore looks at the room for the store, at what a verification noted
// and at the age of what is in use.
func (e *exam) checkStore() {
	if _, err := os.Stat(e.Store); e.Store != "" && err == nil {
		if free, total := room(e.Store); free < fullBytes && free < total/20 {
			e.find(Warning, "store-full", "gofs gc", nil, "%d MB are left for the store %s", free>>20, e.Store)
		}
	}
	for _, d := range e.Damage {
		e.find(Problem, "store-damaged", "gofs verify", nil, "%s", d)
	}
	if v := e.choice.Release.Version; e.picked && v != "" {
		if oldest := oldestSupported(e.Now.Year(), int(e.Now.Month())); resolve.Compare(resolve.Minor(v), oldest) < 0 {
			e.find(Note, "out-of-support", "gofs use stable", nil, "go %s, picked by %s, gets no security fixes any more: %s is the oldest minor that does", v, e.choice.Rule.Where, oldest)
		}
	}
}

// oldestSupported reckons the oldest supported minor from the calendar: a
// minor comes each February and August (1.21 in August 2023) and is supported
// until the second after it is out, see go.dev/doc/devel/release.
func oldestSupported(year, month int) string {
	newest := 21 + ((year-2023)*12+month-8)/6
	return fmt.Sprintf("1.%d", newest-1)
}
