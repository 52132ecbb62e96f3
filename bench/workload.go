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
	// heavy workloads compile from nothing: only some peers run them, and in
	// fewer rounds.
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
	both := []mode{warm, cold}
	return []workload{
		{name: "go version", what: "the first one after a mount, where cold", modes: both, command: tool("version")},
		{name: "go list std", what: "every package of the standard library", modes: both, command: tool("list", "std")},
		{name: "go build", what: "a net/http program, GOCACHE warm", modes: both, command: tool("build", "-o", os.DevNull, ".")},
		{name: "go vet", what: "net/http, GOCACHE warm", modes: both, command: tool("vet", "net/http")},
		{name: "go test", what: "go test -count=1 strings, GOCACHE warm", modes: both, command: tool("test", "-count=1", "strings")},
		{name: "go build -a", what: "a net/http program, GOCACHE empty", modes: both, heavy: true,
			prepare: func(b *bench, _ *peer) error { return os.RemoveAll(b.path("cache", "empty")) },
			command: func(ctx context.Context, b *bench, _ *peer) *exec.Cmd {
				return b.goCommand(ctx, b.path("cache", "empty"), "build", "-o", os.DevNull, ".")
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
		if b.wanted(w.name) {
			loads = append(loads, w)
		}
	}
	if len(loads) == 0 {
		return nil
	}
	b.logf("filling a GOCACHE")
	first := b.goCache(b.peer(peerDisk))
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
		peers := b.present()
		if w.heavy {
			peers = slices.DeleteFunc(peers, func(p *peer) bool { return !slices.Contains(b.heavyPeers, p.Name) })
		}
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
			if err := dropCaches(); err != nil {
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
	for i, p := range peers {
		runs[i] = b.results.add(name, m, p.Name)
		if m == cold {
			continue
		}
		if _, err := once(p); err != nil { // what it reads is in the caches now
			runs[i].Error = firstLine(err.Error())
		}
	}
	for round := range rounds {
		for i := range peers {
			i = (i + round) % len(peers)
			if runs[i].Error != "" {
				continue
			}
			s, err := once(peers[i])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				runs[i].Error = firstLine(err.Error())
				continue
			}
			runs[i].Samples = append(runs[i].Samples, s)
		}
	}
	return nil
}
