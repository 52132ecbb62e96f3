package doctor

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"gofs/resolve"
)

// Process is a running program that is a go tool or was built by Go.
type Process struct {
	PID      int    `json:"pid"`
	Exe      string `json:"exe"`
	BuiltBy  string `json:"built_by"`           // 1.23.3
	Release  string `json:"release,omitempty"`  // GOROOT that Exe belongs to
	GOROOT   string `json:"goroot,omitempty"`   // in its environment
	Mismatch string `json:"mismatch,omitempty"` // "" when all agree
}

// Processes lists this user's processes and counts those of other users.
func Processes() (list []Process, others int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, 0, err
	}
	list = []Process{}
	known := map[string]string{} // Go version by device, inode and time of the executable
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		fi, err := os.Stat(dir)
		if err != nil {
			continue // it has ended
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
			others++
			continue
		}
		if p, ok := readProcess(dir, pid, known); ok {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Process) int { return a.PID - b.PID })
	return list, others, nil
}

// readProcess tells whether Go built the program of a process, and by which
// version. /proc/PID/exe can be read also when the file is deleted.
func readProcess(dir string, pid int, known map[string]string) (Process, bool) {
	link := filepath.Join(dir, "exe")
	exe, err := os.Readlink(link)
	if err != nil {
		return Process{}, false // a kernel thread, or gone
	}
	p := Process{PID: pid, Exe: strings.TrimSuffix(exe, " (deleted)")}
	key := exe
	if fi, err := os.Stat(link); err == nil {
		key += fi.ModTime().String()
	}
	built, ok := known[key]
	if !ok {
		if info, err := buildinfo.ReadFile(link); err == nil {
			built, _, _ = strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
		}
		known[key] = built
	}
	if built == "" {
		return Process{}, false
	}
	p.BuiltBy = built
	p.Release = releaseOf(p.Exe)
	data, err := os.ReadFile(filepath.Join(dir, "environ"))
	if err == nil {
		for kv := range strings.SplitSeq(string(data), "\x00") {
			if v, ok := strings.CutPrefix(kv, "GOROOT="); ok {
				p.GOROOT = v
			}
		}
	}
	p.Mismatch = p.mismatch()
	return p, true
}

// releaseOf is the GOROOT that a program of a release lies in: bin/go and
// pkg/tool/linux_amd64/compile.
func releaseOf(exe string) string {
	if root := resolve.Goroot(exe); root != "" {
		return root
	}
	if dir := filepath.Dir(filepath.Dir(exe)); filepath.Base(dir) == "tool" && filepath.Base(filepath.Dir(dir)) == "pkg" {
		return filepath.Dir(filepath.Dir(dir))
	}
	return ""
}

// mismatch says what does not fit together. Only a program of a release is
// bound to a GOROOT; any other may be built by any Go.
func (p Process) mismatch() string {
	if p.Release == "" {
		return ""
	}
	if p.GOROOT != "" && realpath(p.GOROOT) != realpath(p.Release) {
		return "GOROOT=" + p.GOROOT + ", but it runs from " + p.Release
	}
	if v, err := resolve.VersionFile(p.Release); err == nil && v != p.BuiltBy && !strings.HasPrefix(p.BuiltBy, "devel") {
		return "built by go " + p.BuiltBy + ", but " + p.Release + " is now go " + v
	}
	return ""
}

func (e *exam) checkProcesses() {
	if len(e.hung) > 0 {
		return // the programs of some may lie there
	}
	list, _, err := Processes()
	if err != nil {
		return // no /proc: nothing to say about processes
	}
	for _, p := range list {
		if p.Mismatch != "" {
			e.find(Warning, "process-mismatch", "gofs exec -- "+filepath.Base(p.Exe), nil, "process %d (%s): %s: start it anew", p.PID, filepath.Base(p.Exe), p.Mismatch)
		}
	}
}
