// Command bench measures gofs beside what people use instead of it.
//
// Every workload runs on every peer in turn (A B C, A B C, ...), so what
// disturbs the machine disturbs all of them, and what is compared is the
// median of each round's ratio. All peers show the same release, compared
// file by file before anything is timed, and are bound to one path, so the go
// command sees the same GOROOT whichever file system serves it.
//
// It needs root: it mounts, and drops the kernel's caches.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// options are what the command line says.
type options struct {
	gofs       string // program; "" builds it
	toolchains string // folder of tarballs
	releases   []string
	release    string // the one that workloads run on
	groups     []string
	workloads  []string // empty: all
	peers      []string // empty: all
	heavyPeers []string // of workloads that compile from nothing
	goPeers    []string // of the go command's other workloads; empty: all
	fioPeers   []string // of fio jobs; empty: all
	heavyModes []string
	rounds     int // warm
	coldRounds int // cold, and whatever takes seconds
	variants   int // versions of the large store
	fioRuntime string
	keepCaches bool
	dir        string // work folder's parent
	out        string
	summary    string
	log        io.Writer
}

// designReleases are those that the figures are promised for.
const designReleases = "1.20.14,1.21.0,1.21.13,1.22.0,1.22.8,1.22.12,1.23.0,1.23.3,1.23.12,1.24.0,1.24.11,1.25.5"

const allGroups = "mount,files,go,fio,memory,import,variants,density"

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string, w io.Writer) (options, error) {
	o := options{log: w}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(w)
	var short bool
	var releases, groups, workloads, peers, heavy, modes, goPeers, fio string
	f.BoolVar(&short, "short", false, "a run of some minutes: two releases, fewer rounds, the disk as the only peer, nothing that compiles from nothing")
	f.StringVar(&o.gofs, "gofs", "", "`PROGRAM` to measure (default: built from this module)")
	f.StringVar(&o.toolchains, "toolchains", os.Getenv("GOFS_TEST_TOOLCHAINS"), "`FOLDER` of release tarballs; what is not there comes from the module proxy (default $GOFS_TEST_TOOLCHAINS)")
	f.StringVar(&releases, "releases", designReleases, "releases in the store, `LIST` with commas")
	f.StringVar(&o.release, "release", "1.22.8", "`RELEASE` that workloads run on")
	f.StringVar(&groups, "only", allGroups, "groups to run, `LIST` with commas")
	f.StringVar(&workloads, "workloads", "", "workloads to run, `LIST` of beginnings of names with commas (default all)")
	f.StringVar(&peers, "peers", "", "peers to run, `LIST` with commas; gofs and disk always do (default all)")
	f.StringVar(&heavy, "heavy-peers", "", "peers of the workloads that compile from nothing, `LIST` with commas (default gofs and disk)")
	f.StringVar(&modes, "heavy-modes", "warm,cold", "modes of the workloads that compile from nothing")
	f.StringVar(&goPeers, "go-peers", "", "peers of the go command's other workloads, `LIST` with commas (default all)")
	f.StringVar(&fio, "fio-peers", "", "peers of the fio jobs, `LIST` with commas (default all)")
	f.IntVar(&o.rounds, "rounds", 11, "rounds of a warm workload, at least 5 for a report")
	f.IntVar(&o.coldRounds, "cold-rounds", 5, "rounds of a cold or a slow workload, at least 5 for a report")
	f.IntVar(&o.variants, "variants", 200, "versions in the store of the group variants")
	f.StringVar(&o.fioRuntime, "fio-runtime", "300ms", "length of a warm fio job; 0: once through its files")
	f.BoolVar(&o.keepCaches, "keep-caches", false, "do not drop the machine's caches: cold is only a fresh daemon then")
	f.StringVar(&o.dir, "dir", os.TempDir(), "`FOLDER` on the file system to compare with; takes 6 GB for the time of the run")
	f.StringVar(&o.out, "out", "bench/report", "`FOLDER` for the report")
	f.StringVar(&o.summary, "summary", "", "`FILE` for a summary of the report")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	set := map[string]bool{}
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	if short {
		defaults := map[string]string{
			"releases": "1.22.8,1.23.3", "only": "mount,files,go,fio,memory", "peers": "disk",
			"rounds": "7", "cold-rounds": "3", "fio-runtime": "100ms", "heavy-peers": "none",
		}
		for name, value := range defaults {
			if !set[name] {
				if err := f.Set(name, value); err != nil {
					return o, err
				}
			}
		}
	}
	o.releases, o.groups, o.workloads = list(releases), list(groups), list(workloads)
	o.peers, o.heavyPeers, o.fioPeers = list(peers), list(heavy), list(fio)
	o.goPeers, o.heavyModes = list(goPeers), list(modes)
	if len(o.heavyPeers) == 0 {
		o.heavyPeers = []string{peerGofs, peerDisk}
	}
	for _, g := range o.groups {
		if !slices.Contains(list(allGroups), g) {
			return o, fmt.Errorf("-only: no group %q (there are %s)", g, allGroups)
		}
	}
	if len(o.peers) == 0 && !slices.ContainsFunc(o.groups, func(g string) bool { return g != "import" && g != "variants" && g != "density" }) {
		o.peers = []string{peerGofs, peerDisk} // these need no mounts of the others, which take ten minutes to make
	}
	if !slices.Contains(o.releases, o.release) {
		return o, fmt.Errorf("-release %s is not one of -releases", o.release)
	}
	if o.rounds < 1 || o.coldRounds < 1 || o.variants < 1 {
		return o, errors.New("-rounds, -cold-rounds and -variants are 1 at the least")
	}
	return o, nil
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// run measures and reports.
func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("it mounts and drops caches: run it as root")
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cleanup()) }()
	failed := b.measure(ctx)
	if ctx.Err() != nil {
		return failed
	}
	if o.keepCaches {
		b.results.note("The caches were not dropped (-keep-caches): what is called cold is only a fresh mount.")
	}
	b.results.finish()
	if err := b.results.write(o.out); err != nil {
		return errors.Join(failed, err)
	}
	b.logf("report in %s", filepath.Join(o.out, "report.md"))
	if o.summary != "" {
		return errors.Join(failed, os.WriteFile(o.summary, []byte(b.results.summary()), 0o644))
	}
	return failed
}
