package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tinyRelease writes a tarball that gofs takes for a release. Its go command
// is a script that reads what it is given.
func tinyRelease(t *testing.T, dir, version string) {
	t.Helper()
	files := map[string]string{
		"VERSION":                      "go" + version + "\ntime 2024-01-01T00:00:00Z\n",
		"bin/go":                       "#!/bin/sh\ncat \"$GOROOT\"/src/net/*.go >/dev/null\necho go version go" + version + "\n",
		"pkg/tool/linux_amd64/compile": strings.Repeat(version+" compiles ", 20000),
		"src/go.mod":                   "module std\n",
	}
	for i := range 40 {
		files[fmt.Sprintf("src/net/f%02d.go", i)] = "package net\n" + strings.Repeat(fmt.Sprintf("// line of %d\n", i), 100+i)
	}
	f, err := os.Create(filepath.Join(dir, "go"+version+".linux-amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz := gzip.NewWriter(f)
	tw := tar.NewWriter(gz)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := int64(0o644)
		if strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "pkg/") {
			mode = 0o755
		}
		err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "go/" + name, Size: int64(len(files[name])), Mode: mode, ModTime: time.Unix(1704067200, 0)})
		if err == nil {
			_, err = io.WriteString(tw, files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBenchSmoke runs every group on a tiny release, so that the harness
// works when somebody needs a figure.
func TestBenchSmoke(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the harness mounts: run the tests as root")
	}
	dir, out := t.TempDir(), t.TempDir()
	for _, v := range []string{"1.99.1", "1.99.2"} {
		tinyRelease(t, dir, v)
	}
	var log bytes.Buffer
	defer func() {
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	o, err := parse([]string{
		"-toolchains", dir, "-dir", dir, "-out", out, "-summary", filepath.Join(out, "summary.md"),
		"-releases", "1.99.1,1.99.2", "-release", "1.99.1", "-rounds", "2", "-cold-rounds", "1", "-variants", "3",
		"-workloads", "find,stat,cat,go,fio seq-4k ×1,fio mmap ×1,fio small-files ×4",
		"-fio-runtime", "0", "-peers", "disk,squashfs,squashfuse,dwarfs", "-keep-caches",
	}, &log)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "gofs-bench-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	raw, err := os.ReadFile(filepath.Join(out, "raw.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	for _, run := range r.Runs {
		// SquashFS has no O_DIRECT.
		if run.Error != "" && !(run.Mode == direct && run.Peer == "squashfs") {
			t.Errorf("%s, %s, %s: %s", run.Workload, run.Mode, run.Peer, run.Error)
		}
	}
	for _, w := range append(names(fileWorkloads()), names(goWorkloads())...) {
		for _, m := range []mode{warm, cold} {
			for _, p := range []string{peerGofs, peerDisk} {
				if r.find(w, m, p) == nil {
					t.Errorf("%s, %s, %s: no samples", w, m, p)
				}
			}
		}
	}
	if missingTool("fio") == "" && r.find("fio seq-4k ×1", warm, peerGofs) == nil {
		t.Error("no samples of fio")
	}
	for _, name := range []string{"mount to ls", "variants mount to ls", "rss after mount", "page cache", "store"} {
		if r.median(name) <= 0 {
			t.Errorf("no figure %q", name)
		}
	}
	if c, u := r.median("page cache"), r.median("unique bytes"); c != u {
		t.Errorf("the page cache holds %.0f bytes after reading all, of %.0f that are unique", c, u)
	}
	report, err := os.ReadFile(filepath.Join(out, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"## Targets", "### go build", "| dwarfs |", "warm.svg", "room.svg", "| hard links |"} {
		if !bytes.Contains(report, []byte(text)) {
			t.Errorf("report lacks %q", text)
		}
	}
	if svg, err := os.ReadFile(filepath.Join(out, "warm.svg")); err != nil || !bytes.Contains(svg, []byte("<svg")) {
		t.Errorf("warm.svg: %v", err)
	}
}

func TestPlotRoom(t *testing.T) {
	r := &results{Releases: []string{"1.22.8"}}
	file := filepath.Join(t.TempDir(), "room.svg")
	if drawn, err := r.plotRoom(file); drawn || err != nil {
		t.Errorf("of nothing: %v, %v", drawn, err)
	}
	r.Archivers = []archiver{{Name: "unpacked", Bytes: 2e9}, {Name: "a missing tool"}, {Name: "gofs", Bytes: 162.4e6}}
	if drawn, err := r.plotRoom(file); !drawn || err != nil {
		t.Errorf("%v, %v", drawn, err)
	}
	svg, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"unpacked": true, "162": true, "gofs": true, "a missing tool": false} {
		if bytes.Contains(svg, []byte(">"+text)) != want && bytes.Contains(svg, []byte(" "+text+"<")) != want {
			t.Errorf("%q in the plot: want %v", text, want)
		}
	}
}

func TestArchiverTable(t *testing.T) {
	r := &results{Release: "1.22.8", Figures: map[string]*figures{}}
	r.Archivers = []archiver{{Name: "tar | zstd", Bytes: 1e6, Make: 2, Peak: 3e6, Note: "failed: a | b"}}
	var w strings.Builder
	r.archiverTable(&w)
	if want := "| tar \\| zstd | 1 | 100000000.0 % | 2 s | 3 MB | – | failed: a \\| b |\n"; !strings.HasSuffix(w.String(), want+"\n") {
		t.Errorf("table\n%s\nlacks %q", w.String(), want)
	}
}

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"-only nonsense":   "no group",
		"-release 1.2":     "not one of",
		"-rounds 0":        "at the least",
		"stray":            "unexpected argument",
		"-short -rounds 9": "",
	} {
		o, err := parse(strings.Fields(args), io.Discard)
		if want == "" {
			if err != nil || o.rounds != 9 || o.coldRounds != 3 {
				t.Errorf("%s: %v, rounds %d and %d", args, err, o.rounds, o.coldRounds)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

func seconds(values ...float64) []sample {
	var l []sample
	for _, v := range values {
		l = append(l, sample{Wall: time.Duration(v * float64(time.Second)), Client: time.Second})
	}
	return l
}

func TestTargets(t *testing.T) {
	counted := &peer{Name: peerGofs, counted: true}
	for _, test := range []struct {
		name       string
		gofs, disk []sample
		requests   map[string]uint64
		ratio      string // of go build, warm
		silence    string
	}{
		// The second round is disturbed on both; the ratio of medians would be
		// the same, that of the means not.
		{"reached", seconds(1, 10, 1), seconds(1, 10, 1), map[string]uint64{"statfs": 1}, reached, reached},
		// Two rounds of three are 4 % slower; the medians of both are the same.
		{"missed", seconds(1.04, 2.08, 1), seconds(1, 2, 1.04), map[string]uint64{"read": 1}, missed, missed},
		{"not measured", nil, seconds(1), nil, unknown, unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &results{Figures: map[string]*figures{}, b: &bench{peers: []*peer{counted}}}
			r.add("go build", warm, peerGofs).Samples = test.gofs
			r.add("go build", warm, peerDisk).Samples = test.disk
			if len(test.gofs) > 1 {
				test.gofs[1].Requests = test.requests
			}
			got := map[string]string{}
			for _, target := range r.targets() {
				got[target.Name] = target.Verdict
			}
			if v := got["go build, warm: wall time of gofs, of the disk's"]; v != test.ratio {
				t.Errorf("ratio %s, want %s", v, test.ratio)
			}
			if v := got["go build, warm: requests to the daemon"]; v != test.silence {
				t.Errorf("requests %s, want %s", v, test.silence)
			}
			if v := got["RSS after a mount"]; v != unknown {
				t.Errorf("RSS %s, want %s", v, unknown)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	dir := t.TempDir()
	tinyRelease(t, dir, "1.99.1")
	tarball := filepath.Join(dir, "go1.99.1.linux-amd64.tar.gz")
	b := &bench{tarballs: map[string]string{"1.99.1": tarball}}
	if err := b.unpack(t.Context(), "1.99.1", dir); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "1.99.1")
	want, err := tarManifest(tarball)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, report string) {
		t.Helper()
		got, err := treeManifest(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		if err := want.compare(got); err == nil && report != "" || err != nil && (report == "" || !strings.Contains(err.Error(), report)) {
			t.Errorf("%s: %v, want %q", name, err, report)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	version := filepath.Join(root, "VERSION")
	check("as unpacked", "")
	do(os.Chmod(version, 0o755))
	check("mode", "VERSION differs")
	do(os.Chmod(version, 0o644))
	do(os.WriteFile(version, []byte("go1.99.1\ntime 2024-01-01T00:00:01Z\n"), 0o644))
	check("content", "VERSION differs")
	do(os.Remove(version))
	check("missing", "VERSION is missing")
	do(os.Symlink("bin/go", version))
	check("link", "VERSION differs")
}

// TestRunEnds interrupts a command whose children would go on and keep its output
// open.
func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- new(bench).run(ctx, "sh", "-c", "sleep 600 | cat") }()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(time.Minute):
		t.Error("it goes on")
	}
}
