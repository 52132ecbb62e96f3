package doctor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"gofs/resolve"
)

// checkProject holds what the project asks for against the go in use, where
// GOFS_VERSION or GOROOT have gone around its files.
func (e *exam) checkProject() {
	p, err := e.project()
	if err != nil {
		if !e.has("rule-unreadable") {
			e.find(Problem, "rule-unreadable", "correct the file", nil, "%v", err)
		}
		return
	}
	if err := p.Conflict(); err != nil {
		if !e.has("rules-conflict") {
			e.find(Problem, "rules-conflict", "gofs use VERSION", nil, "%v", err)
		}
		return
	}
	version := e.versionInUse()
	if version == "" || e.has("path-other-go", "not-imported") {
		return
	}
	for _, f := range p.Found {
		if f.Request.Allows(version) {
			continue
		}
		if v, where := e.setting("GOFS_VERSION"); v != "" {
			command, fix := e.unset("GOFS_VERSION")
			e.find(Problem, "project-overridden", command, fix, "GOFS_VERSION=%s, set by %s, but %s", v, where, f)
			return
		}
		command := `eval "$(gofs env)"`
		if e.Rules == nil {
			command = "gofs mount DIR"
		}
		e.find(Problem, "project-other-go", command, e.dropGo(e.report.Gos[0]), "go %s is in use, but %s", version, f)
		return
	}
	e.checkVendor(p, version)
}

// project reads the files of the project, mount or not.
func (e *exam) project() (resolve.Project, error) {
	r := e.Rules
	if r == nil {
		r = &resolve.Resolver{Dir: e.Dir, Platform: resolve.HostPlatform, Getenv: func(k string) string { return e.Env[k] }}
	}
	return r.Project()
}

// allowed reports whether nothing in the project's files is against a version.
func (e *exam) allowed(version string) bool {
	p, err := e.project()
	return err != nil || version == "" || !slices.ContainsFunc(p.Found, func(f resolve.Found) bool { return !f.Request.Allows(version) })
}

// versionInUse is the version of the go that a command here would run.
func (e *exam) versionInUse() string {
	if len(e.report.Gos) > 0 {
		return e.report.Gos[0].Version
	}
	return ""
}

// checkVendor reads the go lines that vendor/modules.txt keeps of each
// module: "## explicit; go 1.24".
func (e *exam) checkVendor(p resolve.Project, version string) {
	file := filepath.Join(p.Dir, "vendor", "modules.txt")
	data, err := readSmall(file)
	if err != nil {
		return
	}
	module := ""
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "# "); ok {
			module, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		}
		_, v, ok := strings.Cut(strings.TrimSpace(line), "; go ")
		if ok && strings.HasPrefix(line, "## ") && resolve.Compare(version, v) < 0 {
			e.find(Problem, "vendor-newer", "gofs use "+v, nil, "%s: %s needs go %s, but go %s is in use", file, module, v, version)
			return
		}
	}
}

// checkCgo looks for a C compiler where cgo was asked for. Left alone, the
// go command turns cgo off when there is none.
func (e *exam) checkCgo() {
	v, where := e.setting("CGO_ENABLED")
	if v != "1" || !e.view.ok {
		return
	}
	cc := e.Env["CC"]
	if cc == "" {
		cc = e.view.CC
	}
	name, _, _ := strings.Cut(strings.TrimSpace(cc), " ")
	if name == "" {
		name = "gcc"
	}
	if _, err := lookPath(name, e.Env["PATH"]); err != nil {
		command, fix := e.unset("CGO_ENABLED")
		e.find(Warning, "cgo-no-cc", command, fix, "CGO_ENABLED=1, set by %s, but there is no C compiler %s in PATH", where, name)
	}
}

// lookPath is exec.LookPath in a PATH of another environment.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return exec.LookPath(name)
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if fi, err := os.Stat(file); err == nil && !fi.IsDir() && fi.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", errors.New(name + " not found")
}
