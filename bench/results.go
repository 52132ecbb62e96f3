package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are everything that was measured. raw.json is its JSON; times are
// in nanoseconds.
type results struct {
	Machine   machine             `json:"machine"`
	Started   time.Time           `json:"started"`
	Ended     time.Time           `json:"ended"`
	Load      [2]string           `json:"load"` // /proc/loadavg before and after
	Release   string              `json:"release"`
	Releases  []string            `json:"releases"`
	Rounds    [2]int              `json:"rounds"` // warm, cold
	Peers     []*peer             `json:"peers"`
	Runs      []*measured         `json:"runs"`
	Figures   map[string]*figures `json:"figures"`
	Archivers []archiver          `json:"archivers,omitempty"`
	Store     json.RawMessage     `json:"store,omitempty"` // gofs stats --json
	Targets   []target            `json:"targets"`
	Notes     []string            `json:"notes,omitempty"`

	b *bench
}

// measured are the executions of a workload on a peer.
type measured struct {
	Workload string   `json:"workload"`
	Mode     mode     `json:"mode"`
	Peer     string   `json:"peer"`
	Error    string   `json:"error,omitempty"`
	Samples  []sample `json:"samples"`
}

// figures are the values of something that has no peers.
type figures struct {
	Unit   string    `json:"unit"` // B, s or none
	Values []float64 `json:"values"`
}

// machine is what a figure depends on.
type machine struct {
	CPU    string            `json:"cpu"`
	CPUs   int               `json:"cpus"`
	Memory string            `json:"memory"`
	Kernel string            `json:"kernel"`
	Disk   string            `json:"disk"` // file system of the work folder
	Go     string            `json:"go"`   // that built the harness, and gofs unless -gofs is given
	Tools  map[string]string `json:"tools"`
}

func newResults(b *bench) *results {
	return &results{
		Machine: thisMachine(b), Started: time.Now(), Load: [2]string{loadAverage()},
		Release: b.release, Releases: b.releases, Rounds: [2]int{b.rounds, b.coldRounds},
		Figures: map[string]*figures{}, b: b,
	}
}

// finish computes what is derived.
func (r *results) finish() {
	r.Ended, r.Load[1], r.Peers = time.Now(), loadAverage(), r.b.peers
	if st, err := r.b.storeStats(); err == nil {
		r.Store = st
	}
	r.Targets = r.targets()
}

func (r *results) note(text string) { r.Notes = append(r.Notes, text) }

func (r *results) add(workload string, m mode, peer string) *measured {
	run := &measured{Workload: workload, Mode: m, Peer: peer}
	r.Runs = append(r.Runs, run)
	return run
}

func (r *results) figure(name, unit string, value float64) {
	f := r.Figures[name]
	if f == nil {
		f = &figures{Unit: unit}
		r.Figures[name] = f
	}
	f.Values = append(f.Values, value)
}

// median of a figure, 0 where it was not measured.
func (r *results) median(name string) float64 {
	if f := r.Figures[name]; f != nil {
		return median(f.Values)
	}
	return 0
}

// find returns a run with samples, nil where there is none.
func (r *results) find(workload string, m mode, peer string) *measured {
	for _, run := range r.Runs {
		if run.Workload == workload && run.Mode == m && run.Peer == peer && len(run.Samples) > 0 {
			return run
		}
	}
	return nil
}

func wall(s sample) float64       { return s.Wall.Seconds() }
func cpuSeconds(s sample) float64 { return s.cpu().Seconds() }
func bandwidth(s sample) float64  { return s.Bandwidth }

// values of a quantity, one for each round.
func (m *measured) values(of func(sample) float64) []float64 {
	if m == nil {
		return nil
	}
	v := make([]float64, len(m.Samples))
	for i, s := range m.Samples {
		v[i] = of(s)
	}
	return v
}

// ratio is the median of the ratios of a quantity on two peers, round by
// round: a disturbance longer than a round is in both. ok is false where one
// of them was not measured.
func (r *results) ratio(workload string, m mode, peer, to string, of func(sample) float64) (_ float64, ok bool) {
	a, b := r.find(workload, m, peer).values(of), r.find(workload, m, to).values(of)
	n := min(len(a), len(b))
	ratios := make([]float64, 0, n)
	for i := range n {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return median(ratios), len(ratios) > 0
}

// requests of one execution by kind, as exact as the executions agree: the
// most that any of them needed.
func (m *measured) requests() map[string]uint64 {
	most := map[string]uint64{}
	if m == nil {
		return most
	}
	for _, s := range m.Samples {
		for kind, n := range s.Requests {
			most[kind] = max(most[kind], n)
		}
	}
	return most
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func thisMachine(b *bench) machine {
	m := machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), Disk: fsType(b.work), Tools: map[string]string{}}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:])
	}
	m.CPU = procLine("/proc/cpuinfo", "model name")
	m.Memory = procLine("/proc/meminfo", "MemTotal")
	for name, args := range map[string][]string{
		"gofs": {b.gofs, "version"}, "fio": {"fio", "--version"}, "mksquashfs": {"mksquashfs", "-version"},
		"mkfs.erofs": {"mkfs.erofs", "-V"}, "squashfuse": {"squashfuse_ll", "--help"},
		"mkdwarfs": {"mkdwarfs", "--version"}, "tar": {"tar", "--version"}, "find": {"find", "--version"},
	} {
		// Some end with 1 after their version, some print it as an error, and
		// some know no such option.
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if line := firstLine(string(out)); err == nil && line != "" || strings.ContainsAny(line, "0123456789") {
			m.Tools[name] = line
		}
	}
	return m
}

// procLine is the value of the first line "key : value" of a file.
func procLine(file, key string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(data))[:min(3, len(strings.Fields(string(data))))], " ")
}

// write writes the report into a folder.
func (r *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	plots, err := r.plots(dir)
	if err != nil {
		return fmt.Errorf("plots: %w", err)
	}
	return cmp.Or(
		os.WriteFile(filepath.Join(dir, "raw.json"), append(raw, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "report.md"), []byte(r.report(plots)), 0o644))
}
