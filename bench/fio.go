package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

//go:embed fio/*.fio
var fioJobs embed.FS

// fioRun is a job file with the numbers of jobs and modes it runs with.
type fioRun struct {
	file  string // in fio/, without .fio
	jobs  []int
	modes []mode
}

func fioRuns() []fioRun {
	all := []mode{warm, cold, direct}
	return []fioRun{
		{"seq-4k", []int{1, 4}, all},
		{"seq-128k", []int{1, 4}, all},
		{"rand-4k", []int{1, 4}, all},
		{"rand-128k", []int{1, 4}, all},
		{"mmap", []int{1, 4}, []mode{warm, cold}},
		{"small-files", []int{1, 4}, []mode{warm, cold}},
	}
}

// fioName is a run's name in the report.
func fioName(file string, jobs int) string { return fmt.Sprintf("fio %s ×%d", file, jobs) }

func (b *bench) measureFio(ctx context.Context) error {
	if missing := missingTool("fio"); missing != "" {
		b.results.note("fio jobs did not run: " + missing)
		return nil
	}
	jobs, err := fioJobs.ReadDir("fio")
	if err != nil {
		return err
	}
	for _, j := range jobs {
		data, err := fioJobs.ReadFile("fio/" + j.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.path("fio", j.Name()), data, 0o644); err != nil {
			return err
		}
	}
	peers := b.among(b.fioPeers)
	for _, r := range fioRuns() {
		for _, jobs := range r.jobs {
			name := fioName(r.file, jobs)
			if !b.wanted(name) {
				continue
			}
			for _, m := range r.modes {
				rounds := b.rounds
				if m != warm {
					rounds = b.coldRounds
				}
				exec := func(ctx context.Context, p *peer) (sample, error) { return b.fio(ctx, p, r.file, jobs, m) }
				if err := b.interleave(ctx, name, m, rounds, peers, nil, exec); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fio runs a job: for fioRuntime where it is warm and that is not 0, once through
// the file otherwise.
func (b *bench) fio(ctx context.Context, p *peer, file string, jobs int, m mode) (sample, error) {
	program, err := b.compiler()
	if err != nil {
		return sample{}, err
	}
	runtime, timed := b.fioRuntime, m == warm && b.fioRuntime != "0"
	if !timed {
		runtime = "1h" // fio ends a job after it, also one that is not timed
	}
	flag := map[bool]string{true: "1", false: "0"}
	cmd := exec.CommandContext(ctx, "fio", "--readonly", "--output-format=json", b.path("fio", file+".fio"))
	cmd.Dir = b.path("fio")
	cmd.Env = append(os.Environ(),
		"FILE="+program, "DIR="+b.goroot+"/src/net", fmt.Sprintf("JOBS=%d", jobs),
		"DIRECT="+flag[m == direct], "TIMED="+flag[timed], "RUNTIME="+runtime)
	s, out, err := b.timed(p, cmd)
	if err != nil {
		return s, err
	}
	// Warnings come before the JSON.
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:]
	}
	var report struct {
		Jobs []struct {
			Error int `json:"error"`
			Read  struct {
				Bandwidth float64 `json:"bw_bytes"`
				Bytes     int64   `json:"io_bytes"`
				Latency   struct {
					Percentile map[string]float64 `json:"percentile"`
				} `json:"clat_ns"`
			} `json:"read"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return s, fmt.Errorf("fio's report: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 || report.Jobs[0].Read.Bytes == 0 {
		return s, errors.New("fio read nothing")
	}
	j := report.Jobs[0]
	// Less than a millisecond is none to fio, and then it says no bandwidth.
	s.Bandwidth = cmp.Or(j.Read.Bandwidth, 1000*float64(j.Read.Bytes))
	s.P99 = time.Duration(j.Read.Latency.Percentile["99.000000"])
	return s, nil
}

// compiler is the program that fio reads.
func (b *bench) compiler() (string, error) {
	tools, err := filepath.Glob(filepath.Join(b.goroot, "pkg", "tool", "*", "compile"))
	if err != nil || len(tools) == 0 {
		return "", fmt.Errorf("no compile program below %s", b.goroot)
	}
	return tools[0], nil
}
