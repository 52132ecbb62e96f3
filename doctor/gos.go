package doctor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gofs/resolve"
	"gofs/resolve/launch"
)

// Go is one go command in PATH.
type Go struct {
	Path    string `json:"path"`
	Version string `json:"version,omitempty"`
	Kind    string `json:"kind"` // gofs release, gofs launcher, distribution, asdf shim, ...
	GOROOT  string `json:"goroot,omitempty"`
	From    string `json:"from,omitempty"` // start-up file and line that put its folder into PATH
}

// listGos finds every go in PATH, in order.
func (e *exam) listGos() []Go {
	gos := []Go{}
	seen := map[string]bool{}
	for _, dir := range filepath.SplitList(e.Env["PATH"]) {
		if e.below(dir) {
			continue
		}
		file := filepath.Join(dir, "go")
		fi, err := os.Stat(file)
		if err != nil || fi.IsDir() || fi.Mode()&0o111 == 0 || seen[dir] {
			continue
		}
		seen[dir] = true
		g := Go{Path: file, GOROOT: resolve.Goroot(file)}
		g.Kind = e.kind(g)
		if g.GOROOT != "" {
			g.Version, _ = resolve.VersionFile(g.GOROOT)
		} else if g.Kind == "gofs launcher" {
			g.Version, g.GOROOT = e.choice.Release.Version, e.choice.GOROOT
		}
		if l, ok := e.putInPath(dir); ok {
			g.From = l.String()
		}
		gos = append(gos, g)
	}
	return gos
}

func (e *exam) kind(g Go) string {
	if launch.Is(g.Path, e.Self) {
		return "gofs launcher"
	}
	real, err := filepath.EvalSymlinks(g.Path)
	if err != nil {
		real = g.Path
	}
	for _, manager := range []string{"asdf", "goenv", "mise", "gvm"} {
		if strings.Contains(g.Path, "/."+manager+"/") || strings.Contains(g.Path, "/"+manager+"/") {
			if strings.Contains(g.Path, "/shims/") {
				return manager + " shim"
			}
			return manager
		}
	}
	switch {
	case e.Rules != nil && strings.HasPrefix(real, e.Rules.Installed.Dir+"/"):
		return "gofs release"
	case g.GOROOT == "":
		return "wrapper"
	case strings.HasPrefix(real, "/usr/lib/") || strings.HasPrefix(real, "/usr/share/"):
		return "distribution"
	}
	return "GOROOT"
}

// checkPath holds the first go against the rules, and looks for others that
// would take its place.
func (e *exam) checkPath() {
	gos := e.report.Gos
	if len(gos) == 0 {
		if e.picked {
			e.find(Problem, "path-no-go", `eval "$(gofs env)"`, nil, "PATH finds no go, the rules pick %s", e.choice.Release.Name)
		}
		return
	}
	first := gos[0]
	e.launcher = first.Kind == "gofs launcher"
	if e.picked && !e.launcher && first.Version != "" && first.Version != e.choice.Release.Version {
		e.find(Problem, "path-other-go", `eval "$(gofs env)"`, e.dropGo(first),
			"PATH finds %s, go %s%s, but %s picks %s", first.Path, first.Version, from(first), e.choice.Rule.Where, e.choice.Release.Version)
		return
	}
	if !e.allowed(first.Version) {
		return // checkProject says so; one of the others may be the right one
	}
	for _, g := range gos[1:] {
		bin := filepath.Dir(g.Path)
		if g.GOROOT == "" || filepath.Join(g.GOROOT, "bin") != bin || g.Version == first.Version {
			continue // a go in /usr/bin stays, shadowed
		}
		e.find(Warning, "path-many-gos", `eval "$(gofs env)"`, e.dropGo(g),
			"PATH has %s, go %s%s, behind %s, go %s", g.Path, g.Version, from(g), first.Path, first.Version)
	}
}

func from(g Go) string {
	if g.From == "" {
		return ""
	}
	return " (put there by " + g.From + ")"
}

// dropGo takes the folder of a go out of the start-up line that added it. It
// is no fix where that would leave no go, or not the right one.
func (e *exam) dropGo(g Go) func() error {
	l, ok := e.putInPath(filepath.Dir(g.Path))
	if !ok || !e.goBeside(g) {
		return nil
	}
	return func() error { return l.dropFromPath(filepath.Dir(g.Path)) }
}

// goBeside reports whether, without g, PATH finds a go that does: one of the
// version that the rules pick, the launcher, or what a prompt hook puts there.
// Where nothing is mounted, one that the project's files allow.
func (e *exam) goBeside(g Go) bool {
	others := slices.DeleteFunc(slices.Clone(e.report.Gos), func(o Go) bool { return o.Path == g.Path })
	if e.Rules == nil {
		return len(others) > 0 && others[0].Version != "" && e.allowed(others[0].Version)
	}
	for _, other := range others {
		if other.Kind == "gofs launcher" || e.picked && other.Version == e.choice.Release.Version {
			return true
		}
	}
	return slices.ContainsFunc(e.startup, func(l startupLine) bool {
		return strings.Contains(l.Text, "gofs shell-init") || strings.Contains(l.Text, "gofs env")
	})
}

// view is what the go in use says of itself.
type view struct {
	GOROOT, GOVERSION, GOTOOLDIR, GOCACHE, GOMODCACHE, CGO_ENABLED, CC string

	path string // the go that was asked
	ok   bool
}

// askGo runs go env. A launcher would follow the rules of another folder, so
// the release it stands for is asked instead.
func (e *exam) askGo() {
	if len(e.report.Gos) == 0 {
		return
	}
	e.view.path = e.report.Gos[0].Path
	if e.launcher {
		if !e.picked {
			return
		}
		e.view.path = filepath.Join(e.choice.GOROOT, "bin", "go")
	}
	out, err := e.run(e.view.path, "env", "-json", "GOROOT", "GOVERSION", "GOTOOLDIR", "GOCACHE", "GOMODCACHE", "CGO_ENABLED", "CC")
	if err == nil {
		err = json.Unmarshal([]byte(out), &e.view)
	}
	if err != nil {
		e.find(Problem, "go-broken", `eval "$(gofs env)"`, e.dropGo(e.report.Gos[0]), "%v", err)
		return
	}
	e.view.ok = true
}

// checkEnvironment looks at the variables that change which go runs or what
// it does.
func (e *exam) checkEnvironment() {
	e.checkGoroot()
	if v, where := e.setting("GOTOOLCHAIN"); strings.HasPrefix(v, "go1") && (!e.picked || !strings.HasPrefix(v+"+", "go"+e.choice.Release.Version+"+")) {
		command, fix := e.unset("GOTOOLCHAIN")
		e.find(Problem, "gotoolchain-pinned", command, fix, "GOTOOLCHAIN=%s, set by %s, makes every go run that release", v, where)
	}
	for _, key := range []string{"GOFLAGS", "GOEXPERIMENT", "GOTOOLDIR"} {
		if v, where := e.setting(key); v != "" && !(key == "GOFLAGS" && harmless(v)) {
			command, fix := e.unset(key)
			e.find(Warning, strings.ToLower(key)+"-set", command, fix, "%s=%s, set by %s, changes every build", key, v, where)
		}
	}
}

// harmless reports whether all of GOFLAGS are flags that choose neither what
// is built nor by what.
func harmless(flags string) bool {
	for flag := range strings.FieldsSeq(flags) {
		name, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "=")
		if !slices.Contains([]string{"buildvcs", "modcacherw", "trimpath", "p", "v", "x"}, name) {
			return false
		}
	}
	return true
}

// checkGoroot compares GOROOT with the go that PATH finds.
func (e *exam) checkGoroot() {
	v, where := e.setting("GOROOT")
	if v == "" || len(e.report.Gos) == 0 {
		return
	}
	command, fix := e.unset("GOROOT")
	first := e.report.Gos[0]
	real, err := filepath.EvalSymlinks(v)
	switch {
	case err != nil || !resolve.IsGoroot(real):
		e.find(Problem, "goroot-missing", command, fix, "GOROOT=%s, set by %s, is not the folder of a Go release", v, where)
	case first.GOROOT != "" && !e.launcher && real != realpath(first.GOROOT):
		other, _ := resolve.VersionFile(real)
		e.find(Problem, "goroot-other", command, fix, "GOROOT=%s, go %s, set by %s, is not that of %s, go %s", v, other, where, first.Path, first.Version)
	case real != filepath.Clean(v) && filepath.Clean(v) != first.GOROOT:
		e.find(Warning, "goroot-symlink", command, fix, "GOROOT=%s, set by %s, leads through a symbolic link to %s: builds record two names for one release", v, where, real)
	}
}

func realpath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// checkTools holds the version that the go command says against the VERSION
// file beside it and against its compiler and linker.
func (e *exam) checkTools() {
	if !e.view.ok {
		return
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(e.view.GOVERSION, "go"), " ")
	first := e.report.Gos[0]
	if first.Version != "" && first.Version != version {
		e.find(Problem, "go-mixed", "gofs import "+version, e.dropGo(first), "%s says it is go %s, but %s says %s: two releases were unpacked over each other",
			e.view.path, version, filepath.Join(first.GOROOT, "VERSION"), first.Version)
		return
	}
	if e.Env["GOTOOLDIR"] != "" || e.Env["GOROOT"] != "" && e.has("goroot-other", "goroot-missing") {
		return // already named as the cause
	}
	for _, tool := range []string{"compile", "link"} {
		out, err := e.run(filepath.Join(e.view.GOTOOLDIR, tool), "-V")
		if err != nil {
			e.find(Problem, "tool-broken", "gofs import "+version, e.dropGo(first), "%v", err)
			continue
		}
		words := strings.Fields(out)
		if len(words) >= 3 && words[2] != "go"+version {
			e.find(Problem, "tool-mismatch", "gofs import "+version, e.dropGo(first), "%s is of %s, but %s is go %s",
				filepath.Join(e.view.GOTOOLDIR, tool), words[2], e.view.path, version)
		}
	}
}

// has reports whether one of these was found already.
func (e *exam) has(names ...string) bool {
	for _, f := range e.report.Findings {
		for _, name := range names {
			if f.Name == name {
				return true
			}
		}
	}
	return false
}
