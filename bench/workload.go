package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

type mode string

const (
	warm   mode = "warm"   // run before on the same mount
	cold   mode = "cold"   // caches dropped, daemon fresh
	direct mode = "direct" // O_DIRECT, otherwise warm
)

// workload is something that people do with a GOROOT.
type workload struct {
	name  string
	what  string
	modes []mode
	// peers that run it, nil for all.
	peers []string
	// heavy workloads compile from nothing, in fewer rounds.
	heavy bool
	// prepare runs before each execution, untimed.
	prepare func(b *bench, p *peer) error
	command func(ctx context.Context, b *bench, p *peer) *exec.Cmd
}

func fileWorkloads() []workload {
	sh := func(script string) func(context.Context, *bench, *peer) *exec.Cmd {
		return func(ctx context.Context, b *bench, _ *peer) *exec.Cmd { return b.shell(ctx, script, b.goroot) }
	}
	both := []mode{warm, cold}
	return []workload{
		{name: "find", what: "names of all files", modes: both, command: sh(`exec find "$1" >/dev/null`)},
		{name: "stat", what: "find that asks for each file's size, mode and time", modes: both,
			command: sh(`exec find "$1" -printf '%s %m %T@\n' >/dev/null`)},
		{name: "cat", what: "cat of every file, in find's order", modes: both,
			command: sh(`find "$1" -type f -print0 | xargs -0 cat >/dev/null`)},
	}
}

// goWorkloads use the release's go command.
func goWorkloads() []workload {
	tool := func(args ...string) func(context.Context, *bench, *peer) *exec.Cmd {
		return func(ctx context.Context, b *bench, p *peer) *exec.Cmd { return b.goCommand(ctx, b.goCache(p), args...) }
	}
	return []workload{
		{name: "go version", what: "the first one after a mount, where cold", modes: []mode{warm, cold}, command: tool("version")},
		{name: "go list std", what: "every package of the standard library", modes: []mode{warm, cold}, command: tool("list", "std")},
		{name: "go build", what: "a net/http program, up to date", modes: []mode{warm, cold}, command: tool("build", "-o", "hello", ".")},
		{name: "go link", what: "go build of it, GOCACHE warm, the program deleted", modes: []mode{warm, cold},
			prepare: func(b *bench, _ *peer) error { return os.RemoveAll(b.path("program", "hello")) },
			command: tool("build", "-o", "hello", ".")},
		{name: "go vet", what: "net/http, GOCACHE warm", modes: []mode{warm, cold}, command: tool("vet", "net/http")},
		{name: "go test", what: "go test -count=1 strings, GOCACHE warm", modes: []mode{warm, cold}, command: tool("test", "-count=1", "strings")},
		{name: "go build -a", what: "a net/http program, GOCACHE empty", modes: []mode{warm, cold}, heavy: true,
			prepare: func(b *bench, _ *peer) error { return os.RemoveAll(b.path("cache", "empty")) },
			command: func(ctx context.Context, b *bench, _ *peer) *exec.Cmd {
				return b.goCommand(ctx, b.path("cache", "empty"), "build", "-o", "hello-a", ".")
			}},
	}
}

// goCache is a peer's own GOCACHE: what one peer's go command keeps must not
// help or hinder another's.
func (b *bench) goCache(p *peer) string {
	return b.path("cache", strings.ReplaceAll(p.Name, " ", "-"))
}

// goCommand is the go command of the tree that is bound. Nothing of the
// user's environment reaches it. There is no cgo, which would measure gcc.
func (b *bench) goCommand(ctx context.Context, cache string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.goroot, "bin", "go"), args...)
	cmd.Dir = b.path("program")
	cmd.Env = []string{
		"PATH=" + filepath.Join(b.goroot, "bin") + ":/usr/bin:/bin",
		"HOME=" + b.path("home"), "PWD=" + cmd.Dir,
		"GOROOT=" + b.goroot, "GOCACHE=" + cache, "GOPATH=" + b.path("gopath"),
		"GOTOOLCHAIN=local", "GOFLAGS=", "GOENV=off", "GOPROXY=off", "GOWORK=off",
		"GOTELEMETRY=off", "CGO_ENABLED=0", "TMPDIR=" + b.work,
	}
	return cmd
}

func (b *bench) writePrograms() error {
	for name, text := range map[string]string{
		"go.mod": "module hello\n\ngo 1.20\n",
		"main.go": `package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	fmt.Println(http.ListenAndServe("localhost:8080", nil))
}
`,
	} {
		if err := os.WriteFile(b.path("program", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// Go 1.23 and later keep counters below HOME and start a process for
	// them, which would outlive the workload.
	dir := b.path("home", ".config", "go", "telemetry")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "mode"), []byte("off"), 0o644)
}

// measureGo fills one GOCACHE, gives each peer a copy of it, and runs the
// workloads of the go command.
func (b *bench) measureGo(ctx context.Context) error {
	var loads []workload
	for _, w := range goWorkloads() {
		w.peers = b.goPeers
		if w.heavy {
			w.peers, w.modes = b.heavyPeers, slices.DeleteFunc(w.modes, func(m mode) bool { return !slices.Contains(b.heavyModes, string(m)) })
		}
		if b.wanted(w.name) {
			loads = append(loads, w)
		}
	}
	if len(loads) == 0 {
		return nil
	}
	b.logf("filling a GOCACHE")
	first := b.goCache(b.peer(peerDisk))
	if err := os.MkdirAll(first, 0o755); err != nil {
		return err
	}
	if err := b.enter(b.peer(peerDisk)); err != nil {
		return err
	}
	for _, w := range loads {
		if w.heavy {
			continue
		}
		cmd := w.command(ctx, b, b.peer(peerDisk))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", w.name, err, firstLine(string(out)))
		}
	}
	if err := b.leave(); err != nil {
		return err
	}
	for _, p := range b.present() {
		if p.Name == peerDisk {
			continue
		}
		if err := b.run(ctx, "cp", "-a", first, b.goCache(p)); err != nil {
			return err
		}
	}
	return b.measureWorkloads(ctx, loads)
}

func (b *bench) wanted(name string) bool {
	return len(b.workloads) == 0 || slices.ContainsFunc(b.workloads, func(w string) bool { return strings.HasPrefix(name, w) })
}

func (b *bench) measureWorkloads(ctx context.Context, loads []workload) error {
	for _, w := range loads {
		if !b.wanted(w.name) {
			continue
		}
		peers := b.among(w.peers)
		for _, m := range w.modes {
			rounds := b.rounds
			if m == cold || w.heavy {
				rounds = b.coldRounds
			}
			exec := func(ctx context.Context, p *peer) (sample, error) {
				s, _, err := b.timed(p, w.command(ctx, b, p))
				return s, err
			}
			if err := b.interleave(ctx, w.name, m, rounds, peers, w.prepare, exec); err != nil {
				return err
			}
		}
	}
	return nil
}

// interleave runs something on the peers in turn, each round beginning with
// another one. A peer that fails gets an error in its row and is left out.
func (b *bench) interleave(ctx context.Context, name string, m mode, rounds int, peers []*peer,
	prepare func(*bench, *peer) error, exec func(context.Context, *peer) (sample, error)) error {
	b.logf("%s, %s", name, m)
	once := func(p *peer) (s sample, err error) {
		if m == cold {
			if err := p.fresh(ctx); err != nil {
				return s, err
			}
		}
		if prepare != nil {
			if err := prepare(b, p); err != nil {
				return s, err
			}
		}
		if m == cold {
			if err := b.dropCaches(); err != nil {
				return s, err
			}
		}
		if err := b.enter(p); err != nil {
			return s, err
		}
		defer func() {
			if e := b.leave(); e != nil && err == nil {
				err = e
			}
		}()
		return exec(ctx, p)
	}
	runs := make([]*measured, len(peers))
	warmed := make([]string, len(peers)) // when each was warm, by cacheDrops
	for i, p := range peers {
		runs[i] = b.results.add(name, m, p.Name)
	}
	for round := range rounds {
		for i := range peers {
			i = (i + round) % len(peers)
			s, err := sample{}, error(nil)
			for range dropTries {
				if runs[i].Error != "" || err != nil {
					break
				}
				if now := cacheDrops(); m != cold && warmed[i] != now {
					warmed[i] = now
					if _, err = once(peers[i]); err != nil {
						break
					}
				}
				s, err = once(peers[i])
				if m == cold || warmed[i] == cacheDrops() {
					break
				}
			}
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case runs[i].Error != "":
			case err != nil:
				runs[i].Error = firstLine(err.Error())
			default:
				runs[i].Samples = append(runs[i].Samples, s)
			}
		}
	}
	return nil
}

// dropTries is how often a warm execution is tried while another process
// drops the machine's caches.
const dropTries = 5

// cacheDrops changes when somebody drops the machine's caches.
func cacheDrops() string {
	data, _ := os.ReadFile("/proc/vmstat")
	var drops strings.Builder
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "drop_") {
			drops.WriteString(line)
		}
	}
	return "at " + drops.String() // never empty: an unknown time is one too
}
