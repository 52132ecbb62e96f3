package resolve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrNoMount says that nothing shows the releases.
var ErrNoMount = errors.New("the store is not mounted (gofs mount DIR, or name its folder with --mount or GOFS_MOUNT)")

// Mount is one mounted store.
type Mount struct {
	Dir   string // where it is mounted
	Store string // folder of the store
	Dev   string // MAJOR:MINOR, the name of its /sys/class/bdi folder

	Closed bool // to this process: another user mounted it, for nobody else
}

// Mounts lists the mounted stores of a table in the format of
// /proc/self/mountinfo, see proc_pid_mountinfo(5).
func Mounts(mountinfo string) ([]Mount, error) {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("listing mounts: %w", err)
	}
	var list []Mount
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - fuse.gofs ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) >= 5 && len(r) >= 1 {
			list = append(list, Mount{Dir: Unescape(l[4]), Store: Unescape(r[0]), Dev: l[2], Closed: closed(r[len(r)-1])})
		}
	}
	return list, nil
}

// closed says whether a FUSE mount with these options keeps this process out.
// Root has no privilege here.
func closed(options string) bool {
	list := strings.Split(options, ",")
	return !slices.Contains(list, "allow_other") && !slices.Contains(list, "user_id="+strconv.Itoa(os.Geteuid()))
}

// Unescape undoes the octal escapes of blanks in the mount table.
func Unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// newest takes a mount from a list in the order of mounting.
func newest(mounts []Mount, store string, named bool) (string, error) {
	for _, m := range slices.Backward(mounts) {
		if m.Store == store {
			return m.Dir, nil
		}
	}
	for _, m := range slices.Backward(mounts) {
		if !named && !m.Closed {
			return m.Dir, nil
		}
	}
	return "", ErrNoMount
}

// HostPlatform is the platform of the machine, like linux-amd64.
const HostPlatform = runtime.GOOS + "-" + runtime.GOARCH

// Scan lists the releases that dir shows by the names of its folders alone:
// one directory read, no file is opened. A name that is no version, such as
// one given with import --as, is kept with an empty Version.
func Scan(dir string) (Installed, error) {
	in := Installed{Dir: dir}
	f, err := os.Open(dir)
	if err != nil {
		return in, scanError(dir, err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return in, scanError(dir, err)
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == "bin" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		in.Releases = append(in.Releases, fromName(e.Name()))
	}
	return in, nil
}

// fromName reads a release from its file name.
func fromName(name string) Release {
	if valid(name) {
		return Release{Name: name, Version: name, Platform: HostPlatform}
	}
	if i := strings.LastIndex(name, "."); i > 0 && valid(name[:i]) && strings.Contains(name[i:], "-") {
		return Release{Name: name, Version: name[:i], Platform: name[i+1:]}
	}
	return Release{Name: name, Platform: HostPlatform}
}

// ScanFiles is Scan, with the versions taken from the VERSION files and the
// folders without one left out.
func ScanFiles(dir string) (Installed, error) {
	in, err := Scan(dir)
	if err != nil {
		return in, err
	}
	kept := in.Releases[:0]
	for _, r := range in.Releases {
		v, err := VersionFile(in.GOROOT(r))
		if err != nil {
			continue
		}
		if r.Version == "" {
			r.Version = v
		}
		if fi, err := os.Stat(in.GOROOT(r)); err == nil {
			r.Imported = fi.ModTime()
		}
		kept = append(kept, r)
	}
	in.Releases = kept
	return in, nil
}

func scanError(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		return fmt.Errorf("the mount at %s is dead (fusermount3 -u %s, then gofs mount %s)", dir, dir, dir)
	case errors.Is(err, os.ErrNotExist), isNotDir(err):
		return missingError{dir}
	}
	return fmt.Errorf("listing releases: %w", err)
}

// missingError is an os.ErrNotExist that says what to do.
type missingError struct{ dir string }

func (e missingError) Error() string {
	return fmt.Sprintf("no releases at %s (gofs mount %s)", e.dir, e.dir)
}

func (e missingError) Unwrap() error { return os.ErrNotExist }

func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// VersionFile returns the version of a GOROOT, without "go", from the first
// line of its VERSION file.
func VersionFile(goroot string) (string, error) {
	file := filepath.Join(goroot, "VERSION")
	data, err := readFile(file)
	if err != nil {
		return "", err
	}
	if data == nil {
		return "", &os.PathError{Op: "open", Path: file, Err: os.ErrNotExist}
	}
	line, _, _ := strings.Cut(string(data), "\n")
	v, ok := strings.CutPrefix(strings.TrimSpace(line), "go")
	if !ok {
		return "", fmt.Errorf("%s: not a release of Go", file)
	}
	return v, nil
}

// Goroot returns the GOROOT that the go command at path belongs to, symbolic
// links followed, as the go command itself finds it; "" when there is none,
// as for a wrapper.
func Goroot(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	bin := filepath.Dir(real)
	if filepath.Base(bin) != "bin" || !IsGoroot(filepath.Dir(bin)) {
		return ""
	}
	return filepath.Dir(bin)
}

// IsGoroot reports whether dir holds a Go distribution: the go command looks
// for pkg/tool, which a release that was cut down may lack; VERSION will do.
func IsGoroot(dir string) bool {
	for _, name := range []string{"VERSION", "pkg/tool"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}
