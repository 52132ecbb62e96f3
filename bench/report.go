package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is report.md.
func (r *results) report(plots []string) string {
	var w strings.Builder
	r.head(&w, "gofs and its peers")
	r.targetTable(&w)
	r.peerTable(&w)
	for _, p := range plots {
		fmt.Fprintf(&w, "![%s](%s)\n\n", strings.TrimSuffix(p, ".svg"), p)
	}
	w.WriteString("## Workloads\n\nWall and CPU time are medians; CPU is that of the client and of the daemon. " +
		"A ratio is the median of the ratios to the disk of each round. Requests are the most that an execution sent to the daemon.\n\n")
	for _, name := range r.workloads() {
		r.workloadTable(&w, name)
	}
	r.figureTable(&w)
	r.archiverTable(&w)
	for _, n := range r.Notes {
		fmt.Fprintf(&w, "- %s\n", n)
	}
	return w.String()
}

// summary is the part of the report that is worth keeping.
func (r *results) summary() string {
	var w strings.Builder
	r.head(&w, "Reference run")
	r.targetTable(&w)
	r.peerTable(&w)
	w.WriteString("## Wall time, medians, and the ratio to the disk\n\n")
	r.wallTable(&w)
	return w.String()
}

func (r *results) head(w *strings.Builder, title string) {
	m := r.Machine
	fmt.Fprintf(w, "# %s\n\n", title)
	fmt.Fprintf(w, "%s, %d CPUs, %s, Linux %s, %s, %s. Began %s, took %s; load %s before and %s after.\n",
		m.CPU, m.CPUs, m.Memory, m.Kernel, m.Disk, m.Go, r.Started.UTC().Format("2006-01-02 15:04 MST"),
		r.Ended.Sub(r.Started).Round(time.Second), r.Load[0], r.Load[1])
	fmt.Fprintf(w, "Workloads ran on %s, with %d releases in the store; %d rounds warm, %d cold.\n\n",
		r.Release, len(r.Releases), r.Rounds[0], r.Rounds[1])
	for _, name := range slices.Sorted(maps.Keys(m.Tools)) {
		fmt.Fprintf(w, "- %s: %s\n", name, m.Tools[name])
	}
	w.WriteString("\n")
}

func (r *results) targetTable(w *strings.Builder) {
	count := map[string]int{}
	for _, t := range r.Targets {
		count[t.Verdict]++
	}
	fmt.Fprintf(w, "## Targets\n\n%d reached, %d missed, %d not measured. The last column is the same ratio of CPU time, "+
		"which other processes on the machine disturb less.\n\n", count[reached], count[missed], count[unknown])
	w.WriteString("| target | wanted | got | | CPU |\n|---|---|---|---|---|\n")
	for _, t := range r.Targets {
		if t.Verdict == unknown {
			continue // its group was not asked for, or a note says why it failed
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", t.Name, t.Want, t.Got, t.Verdict, t.CPU)
	}
	w.WriteString("\n")
}

func (r *results) peerTable(w *strings.Builder) {
	w.WriteString("## Peers\n\n| peer | is | |\n|---|---|---|\n")
	for _, p := range r.Peers {
		fmt.Fprintf(w, "| %s | %s | %s |\n", p.Name, p.What, p.Missing)
	}
	w.WriteString("\n")
}

// workloads lists names in the order in which they ran.
func (r *results) workloads() []string {
	var l []string
	for _, run := range r.Runs {
		if !slices.Contains(l, run.Workload) {
			l = append(l, run.Workload)
		}
	}
	return l
}

func (r *results) workloadTable(w *strings.Builder, name string) {
	fmt.Fprintf(w, "### %s\n\n", name)
	fio := strings.HasPrefix(name, "fio ")
	if fio {
		w.WriteString("| | peer | MB/s | least – most | ratio | p99 | requests |\n|---|---|---|---|---|---|---|\n")
	} else {
		w.WriteString("| | peer | wall | least – most | ratio | client CPU | daemon CPU | CPU ratio | requests |\n|---|---|---|---|---|---|---|---|---|\n")
	}
	for _, run := range r.Runs {
		if run.Workload != name {
			continue
		}
		if run.Error != "" {
			fmt.Fprintf(w, "| %s | %s | %s |\n", run.Mode, run.Peer, cell(run.Error))
			continue
		}
		if len(run.Samples) == 0 {
			continue
		}
		if fio {
			v := run.values(bandwidth)
			fmt.Fprintf(w, "| %s | %s | %.0f | %.0f – %.0f | %s | %s | %s |\n", run.Mode, run.Peer,
				median(v)/1e6, slices.Min(v)/1e6, slices.Max(v)/1e6, r.ratioText(run, bandwidth),
				quantity(median(run.values(func(s sample) float64 { return s.P99.Seconds() })), "s"), r.requestText(run))
			continue
		}
		v := run.values(wall)
		fmt.Fprintf(w, "| %s | %s | %s | %s – %s | %s | %s | %s | %s | %s |\n", run.Mode, run.Peer,
			quantity(median(v), "s"), quantity(slices.Min(v), "s"), quantity(slices.Max(v), "s"), r.ratioText(run, wall),
			quantity(median(run.values(func(s sample) float64 { return s.Client.Seconds() })), "s"),
			quantity(median(run.values(func(s sample) float64 { return s.Daemon.Seconds() })), "s"),
			r.ratioText(run, cpuSeconds), r.requestText(run))
	}
	w.WriteString("\n")
}

func (r *results) ratioText(run *measured, of func(sample) float64) string {
	ratio, ok := r.ratio(run.Workload, run.Mode, run.Peer, peerDisk, of)
	if !ok || run.Peer == peerDisk {
		return ""
	}
	return fmt.Sprintf("%.2f", ratio)
}

func (r *results) requestText(run *measured) string {
	for _, p := range r.Peers {
		if p.Name == run.Peer && p.counted {
			return kinds(run.requests())
		}
	}
	return ""
}

// wallTable has a row for each workload and a column for each peer.
func (r *results) wallTable(w *strings.Builder) {
	var peers []string
	for _, p := range r.Peers {
		if p.Missing == "" {
			peers = append(peers, p.Name)
		}
	}
	fmt.Fprintf(w, "| | | %s |\n|---|---|%s\n", strings.Join(peers, " | "), strings.Repeat("---|", len(peers)))
	for _, name := range r.workloads() {
		of, text := wall, func(v float64) string { return quantity(v, "s") }
		if strings.HasPrefix(name, "fio ") {
			of, text = bandwidth, func(v float64) string { return fmt.Sprintf("%.0f MB/s", v/1e6) }
		}
		for _, m := range []mode{warm, cold, direct} {
			var cells []string
			ran := false
			for _, p := range peers {
				run := r.find(name, m, p)
				if run == nil {
					cells = append(cells, "")
					continue
				}
				ran = true
				cell := text(median(run.values(of)))
				if ratio := r.ratioText(run, of); ratio != "" {
					cell += " (" + ratio + ")"
				}
				cells = append(cells, cell)
			}
			if ran {
				fmt.Fprintf(w, "| %s | %s | %s |\n", name, m, strings.Join(cells, " | "))
			}
		}
	}
	w.WriteString("\n")
}

func (r *results) figureTable(w *strings.Builder) {
	w.WriteString("## Figures\n\n| | median | least – most |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		f := r.Figures[name]
		fmt.Fprintf(w, "| %s | %s | %s – %s |\n", name, quantity(median(f.Values), f.Unit),
			quantity(slices.Min(f.Values), f.Unit), quantity(slices.Max(f.Values), f.Unit))
	}
	w.WriteString("\n")
}

// cell is a text as a table's cell has it.
func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

func (r *results) archiverTable(w *strings.Builder) {
	if len(r.Archivers) == 0 {
		return
	}
	fmt.Fprintf(w, "## Room for %d releases\n\nEach made once, from the unpacked trees; then %s unpacked from it into a folder, caches dropped, and compared.\n\n"+
		"| | MB | of the unpacked | time to make | memory for it | one release back | |\n|---|---|---|---|---|---|---|\n", len(r.Releases), r.Release)
	plain := r.median("plain bytes")
	for _, a := range r.Archivers {
		mb, share := "–", "–"
		if a.Bytes > 0 {
			mb, share = fmt.Sprintf("%.0f", a.Bytes/1e6), fmt.Sprintf("%.1f %%", 100*a.Bytes/cmp.Or(plain, 1))
		}
		took, peak, back := "–", "–", "–"
		if a.Make > 0 {
			took = fmt.Sprintf("%.0f s", a.Make)
		}
		if a.Peak > 0 {
			peak = fmt.Sprintf("%.0f MB", a.Peak/1e6)
		}
		if a.Read > 0 {
			back = fmt.Sprintf("%.1f s", a.Read)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", cell(a.Name), mb, share, took, peak, back, cell(a.Note))
	}
	w.WriteString("\n")
}
