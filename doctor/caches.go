package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gofs/resolve"
)

// A cache is full when less than fullBytes and less than one twentieth of its
// file system are free. It is large beyond largeBytes. Counting stops after
// countTime: what was counted by then is a lower bound.
const (
	fullBytes  = 512 << 20
	largeBytes = 20 << 30
	countTime  = 2 * time.Second
)

// networkTypes are file systems on which the caches are slow and their locks
// unreliable.
var networkTypes = []string{"nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "9p", "fuse.sshfs", "fuse.glusterfs", "lustre"}

func (e *exam) checkCaches() {
	for _, c := range []struct{ key, dir, clean string }{
		{"GOCACHE", e.view.GOCACHE, "-cache"},
		{"GOMODCACHE", e.view.GOMODCACHE, "-modcache"},
	} {
		if c.dir != "" {
			e.checkCache(c.key, c.dir, c.clean)
		}
	}
}

func (e *exam) checkCache(key, dir, clean string) {
	name := func(s string) string { return strings.ToLower(key) + "-" + s }
	fi, err := os.Stat(dir)
	if filepath.IsAbs(dir) && errors.Is(err, fs.ErrNotExist) {
		if err := makeable(dir); err != nil {
			command, fix := e.elsewhere(key)
			e.find(Problem, name("unwritable"), command, fix, "%s=%s is not there and cannot be made: %v", key, dir, err)
		}
		return
	}
	// The go command takes no relative path, nor "off".
	if err != nil || !fi.IsDir() || !filepath.IsAbs(dir) {
		command, fix := e.elsewhere(key)
		e.find(Problem, "cache-unusable", command, fix, "%s=%s is not a folder that can be used", key, dir)
		return
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Geteuid() || fi.Mode().Perm()&0o022 != 0) {
		var fix func() error
		if int(st.Uid) == os.Geteuid() {
			fix = func() error { return os.Chmod(dir, fi.Mode().Perm()&^0o022) }
		}
		e.find(Warning, name("shared"), "chmod go-w "+dir, fix, "%s=%s (%v, owner %d) can be written by other users: what they put there runs in your builds",
			key, dir, fi.Mode().Perm(), st.Uid)
		return
	}
	if fi.Mode().Perm()&0o300 != 0o300 {
		e.find(Problem, name("unwritable"), "chmod u+rwx "+dir, func() error { return os.Chmod(dir, fi.Mode().Perm()|0o700) }, "%s=%s cannot be written (%v)", key, dir, fi.Mode().Perm())
		return
	}
	if kind := fsType(dir); slices.Contains(networkTypes, kind) {
		command, fix := e.elsewhere(key)
		e.find(Warning, name("network"), command, fix, "%s=%s is on a network disk (%s)", key, dir, kind)
		return
	}
	e.checkRoom(key, dir, clean, name)
}

// elsewhere returns the command and the fix that give a cache another place:
// the go command's own, unless the cache is there already.
func (e *exam) elsewhere(key string) (command string, fix func() error) {
	if v, _ := e.setting(key); v == "" {
		return fmt.Sprintf("go env -w %s=DIR", key), nil
	}
	return e.unset(key)
}

// checkRoom probes by writing, which also meets a quota, read-only mounts
// and what statfs does not tell.
func (e *exam) checkRoom(key, dir, clean string, name func(string) string) {
	command := "go clean " + clean
	fix := func() error { _, err := e.run(e.view.path, "clean", clean); return err }
	switch err := probe(dir); {
	case errors.Is(err, syscall.EDQUOT):
		e.find(Problem, name("quota"), command, fix, "%s=%s: the disk quota is used up", key, dir)
		return
	case errors.Is(err, syscall.ENOSPC):
		e.find(Problem, name("full"), command, fix, "%s=%s: no room is left on its disk", key, dir)
		return
	case err != nil:
		command, fix := e.elsewhere(key)
		e.find(Problem, name("unwritable"), command, fix, "%s=%s cannot be written: %v", key, dir, err)
		return
	}
	if free, total := room(dir); free < fullBytes && free < total/20 {
		e.find(Warning, name("full"), command, fix, "%s=%s: %d MB are left on its disk", key, dir, free>>20)
		return
	}
	if size := count(dir); size > largeBytes {
		e.find(Note, name("large"), command, fix, "%s=%s holds at least %d GB", key, dir, size>>30)
	}
}

// makeable says why the go command cannot make dir, which is not there. It
// makes nothing itself.
func makeable(dir string) error {
	for {
		dir = filepath.Dir(dir)
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

// probe writes one page and takes it away again.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".gofs-doctor-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// room returns the free bytes and the size of the file system of dir.
func room(dir string) (free, total int64) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 1 << 62, 1 << 62
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize)
}

// count adds up the files below dir, for countTime at most.
func count(dir string) int64 {
	var size int64
	deadline := time.Now().Add(countTime)
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not counted
		}
		if time.Now().After(deadline) {
			return fs.SkipAll
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			size += fi.Size()
		}
		return nil
	})
	return size
}

// fsType finds the type of the file system of a folder in the mount table.
func fsType(dir string) string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	dir, best, kind := realpath(dir), "", ""
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 1 {
			continue
		}
		at := resolve.Unescape(l[4])
		inside := dir == at || strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/")
		if inside && len(at) >= len(best) {
			best, kind = at, r[0]
		}
	}
	return kind
}
