package main

import (
	"fmt"
	"slices"
	"strings"
)

// target is a promise and what became of it.
type target struct {
	Name    string `json:"name"`
	Want    string `json:"want"`
	Got     string `json:"got"`
	Verdict string `json:"verdict"`
	// CPU is the same ratio of CPU time, client and daemon together, which
	// other processes disturb less; "" where the target is no ratio.
	CPU string `json:"cpu,omitempty"`
}

const (
	reached  = "reached"
	missed   = "missed"
	unknown  = "not measured"
	askedFor = "lookup getattr open opendir read" // kinds that a warm build must not need
)

func verdict(ok bool) string {
	if ok {
		return reached
	}
	return missed
}

// targets compares the figures with what gofs promises.
func (r *results) targets() []target {
	var t []target
	for _, w := range []string{"find", "go list std", "go build", "go link"} {
		t = append(t, r.silence(w))
	}
	t = append(t, r.warm(peerGofs)...)
	t = append(t,
		r.atMost(peerGofs, "cat", cold, 0.9),
		r.atMost(peerGofs, "go build", cold, 1.0),
		r.atMost(peerGofs, "go link", cold, 1.0),
		r.firstVersion(peerGofs, 0.150),
		r.atMost(peerGofs, "go build -a", warm, 1.02),
		r.atMost(peerGofs, "go build -a", cold, 1.02))
	t = append(t, r.warm(peerCompacted)...)
	t = append(t,
		r.atMost(peerCompacted, "cat", cold, 1.5),
		r.atMost(peerCompacted, "go build", cold, 1.3),
		r.firstVersion(peerCompacted, 0.300),
		r.atMost(peerQuick, "cat", cold, 1.5),
		r.atMost(peerQuick, "go build", cold, 1.3),
		r.firstVersion(peerQuick, 0.300))
	for _, peer := range []string{peerGofs, peerPassthrough} {
		for _, f := range fioRuns() {
			for _, jobs := range f.jobs {
				t = append(t, r.atLeast(fioName(f.file, jobs), peer, 0.97))
			}
		}
	}
	cached := target{Name: "page cache after reading all releases, of the unique bytes", Want: "at most 1.05", Got: "–", Verdict: unknown}
	if c, u := r.median("page cache"), r.median("unique bytes"); c > 0 && u > 0 {
		cached.Got, cached.Verdict = fmt.Sprintf("%.3f (%s of %s)", c/u, quantity(c, "B"), quantity(u, "B")), verdict(c/u <= 1.05)
	}
	return append(t, cached,
		r.below("RSS after a mount", r.median("rss after mount"), 64<<20, "B"),
		r.below("RSS at most, 64 readers of different files", r.median("rss at most, 64 readers"), 256<<20, "B"),
		r.below(fmt.Sprintf("mount of %d releases until ls answers", len(r.Releases)), r.median("mount to ls"), 0.050, "s"),
		r.below("its RSS", r.median("mount rss"), 64<<20, "B"),
		r.below(fmt.Sprintf("mount of %.0f versions until ls answers", r.median("variants")), r.median("variants mount to ls"), 0.200, "s"),
		r.below("its RSS", r.median("variants mount rss"), 256<<20, "B"),
		r.figureRatio("import into an empty store, of tar -xzf", "first import, gofs", "first import, tar", 1),
		r.figureRatio("import beside a neighbour, of tar -xzf", "second import, gofs", "second import, tar", 1),
		r.below(fmt.Sprintf("store of %d releases", len(r.Releases)), r.median("store"), 660e6, "B"))
}

// warm are the promises of a peer for what is in the page cache.
func (r *results) warm(peer string) (t []target) {
	for _, w := range append(names(fileWorkloads()), names(goWorkloads())...) {
		if w != "go build -a" {
			t = append(t, r.atMost(peer, w, warm, 1.03))
		}
	}
	return t
}

func names(loads []workload) []string {
	var n []string
	for _, w := range loads {
		n = append(n, w.name)
	}
	return n
}

// silence is the promise that a second identical run asks the daemon nothing.
func (r *results) silence(w string) target {
	t := target{Name: w + ", warm: requests to the daemon", Want: "0", Got: "–", Verdict: unknown}
	run := r.find(w, warm, peerGofs)
	if run == nil || r.b == nil || r.b.peer(peerGofs) == nil || !r.b.peer(peerGofs).counted {
		return t
	}
	var n uint64
	for kind, count := range run.requests() {
		if slices.Contains(strings.Fields(askedFor), kind) {
			n += count
		}
	}
	t.Got, t.Verdict = kinds(run.requests()), verdict(n == 0)
	return t
}

// kinds prints requests, the most frequent first.
func kinds(requests map[string]uint64) string {
	var l []string
	for kind := range requests {
		l = append(l, kind)
	}
	slices.SortFunc(l, func(a, b string) int {
		if requests[a] != requests[b] {
			return int(int64(requests[b]) - int64(requests[a]))
		}
		return strings.Compare(a, b)
	})
	for i, kind := range l {
		l[i] = fmt.Sprintf("%s %d", kind, requests[kind])
	}
	if len(l) == 0 {
		return "0"
	}
	return strings.Join(l, ", ")
}

func (r *results) atMost(peer, w string, m mode, limit float64) target {
	t := target{Name: fmt.Sprintf("%s, %s: wall time of %s, of the disk's", w, m, peer), Want: fmt.Sprintf("at most %.2f", limit), Got: "–", Verdict: unknown}
	if got, ok := r.ratio(w, m, peer, peerDisk, wall); ok {
		t.Got, t.Verdict = fmt.Sprintf("%.2f", got), verdict(got <= limit)
	}
	if got, ok := r.ratio(w, m, peer, peerDisk, cpuSeconds); ok {
		t.CPU = fmt.Sprintf("%.2f", got)
	}
	return t
}

func (r *results) firstVersion(peer string, limit float64) target {
	return r.below("first go version of "+peer+", caches dropped, daemon fresh", median(r.find("go version", cold, peer).values(wall)), limit, "s")
}

func (r *results) atLeast(w, peer string, limit float64) target {
	t := target{Name: fmt.Sprintf("%s, warm: bandwidth of %s, of the disk's", w, peer), Want: fmt.Sprintf("at least %.2f", limit), Got: "–", Verdict: unknown}
	if got, ok := r.ratio(w, warm, peer, peerDisk, bandwidth); ok {
		t.Got, t.Verdict = fmt.Sprintf("%.2f", got), verdict(got >= limit)
	}
	return t
}

func (r *results) below(name string, got, limit float64, unit string) target {
	t := target{Name: name, Want: "below " + quantity(limit, unit), Got: "–", Verdict: unknown}
	if got > 0 {
		t.Got, t.Verdict = quantity(got, unit), verdict(got < limit)
	}
	return t
}

func (r *results) figureRatio(name, a, b string, limit float64) target {
	t := target{Name: name, Want: fmt.Sprintf("at most %.2f", limit), Got: "–", Verdict: unknown}
	ratio := func(suffix string) (float64, bool) {
		x, y := r.Figures[a+suffix], r.Figures[b+suffix]
		if x == nil || y == nil {
			return 0, false
		}
		var ratios []float64
		for i := range min(len(x.Values), len(y.Values)) {
			ratios = append(ratios, x.Values[i]/y.Values[i])
		}
		return median(ratios), true
	}
	if got, ok := ratio(""); ok {
		t.Got, t.Verdict = fmt.Sprintf("%.2f (%s)", got, quantity(r.median(a), "s")), verdict(got <= limit)
	}
	if got, ok := ratio(", cpu"); ok {
		t.CPU = fmt.Sprintf("%.2f", got)
	}
	return t
}

// quantity prints a value with its unit.
func quantity(v float64, unit string) string {
	switch {
	case unit == "B" && v == float64(int64(v)>>20<<20):
		return fmt.Sprintf("%.0f MiB", v/(1<<20))
	case unit == "B":
		return fmt.Sprintf("%.1f MB", v/1e6)
	case unit == "s" && v < 1:
		return fmt.Sprintf("%.1f ms", v*1e3)
	case unit == "s":
		return fmt.Sprintf("%.2f s", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
