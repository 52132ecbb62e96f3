// Package resolve picks the Go release that a command has to run: it exists
// as a package of its own because the command line, the go launcher, the
// shell hooks and the doctor must never disagree about the answer.
//
// # The rules
//
// The rules are tried in this order and the first that names a version wins:
//
//  1. the VERSION given on the command line;
//  2. the environment variable GOFS_VERSION;
//  3. go.work, the nearest one from the working directory upwards (or the
//     file that GOWORK names; none with GOWORK=off), as the go command does;
//  4. the nearest directory, from the working directory upwards, in which one
//     of these files names a version: go.mod, .go-version, .tool-versions,
//     mise.toml or .mise.toml, in this order;
//  5. the user's default, $XDG_CONFIG_HOME/gofs/version;
//  6. the system's default, /etc/gofs/version.
//
// A go.mod or go.work with a toolchain line names exactly that release. With
// a go line alone it names a minimum: the newest imported patch of that minor
// that satisfies it, else the least newer release.
//
// The files of rules 3 and 4 belong together. A minimum among them leaves
// room, so a file further down that list may still name a release that meets
// it: with "go 1.22" in go.mod and 1.23.3 in .go-version, 1.23.3 runs. The
// go line of the enclosing module is a minimum for every file below it.
// Where no release can satisfy all of them they are in conflict, and that is
// an error, not a choice. Beside a go.work, the toolchain line of go.mod
// counts for nothing, as for the go command.
//
// # Versions
//
//	1.22.8, 1.24rc1  that release
//	1.21             the newest patch of that minor ("1.21.x" and "~1.21" too)
//	1.20             that release where it is imported (until Go 1.20 the first
//	                 release of a minor had no third number), else its newest patch
//	1.x, 1           the newest release of Go 1
//	stable, latest   the newest release
//	oldstable        the newest patch of the minor before that of stable
//	>=1.21 <1.24     a range: >=, >, <=, <, =, !=, ~ and ^, by space or comma
//	NAME             the release that was imported under that very name
//
// A leading "go" or "v" is cut off. Only imported releases for the machine's
// own platform take part, except by NAME. Versions compare as in go/version:
// 1.21 < 1.21rc1 < 1.21.0, so "<1.24" shuts out 1.24rc1 and "<=1.22" shuts
// out 1.22.8. A prerelease is picked when it is asked for by name or nothing
// else satisfies the request.
package resolve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Release is one imported release as the mount shows it.
type Release struct {
	Name     string    // file name in the mount: 1.23.3, 1.23.3.darwin-arm64, or a name of the user's
	Version  string    // 1.23.3, without "go"
	Platform string    // linux-amd64
	Imported time.Time // zero where the source cannot tell
}

// Installed is what the resolver sees of a store.
type Installed struct {
	Dir      string // where the mount shows the releases: Dir/Name is a GOROOT
	Releases []Release
}

// GOROOT is the folder of r in the mount.
func (i Installed) GOROOT(r Release) string { return filepath.Join(i.Dir, r.Name) }

// Find returns the release called name.
func (i Installed) Find(name string) (Release, bool) {
	for _, r := range i.Releases {
		if r.Name == name {
			return r, true
		}
	}
	return Release{}, false
}

// Resolver holds where the rules look. The zero value of a field leaves its
// rule out, except Platform, which must be set.
type Resolver struct {
	Installed     Installed
	Platform      string              // GOOS-GOARCH of the machine
	Dir           string              // absolute working directory
	Getenv        func(string) string // environment, for GOFS_VERSION and GOWORK
	UserDefault   string              // file that holds the user's default
	SystemDefault string              // file that holds the system's default
}

// Choice is what the rules settled on.
type Choice struct {
	Release Release
	GOROOT  string
	Rule    Found  // the rule that decided
	Steps   []Step // every rule that was tried, in order
}

// Step says what one rule found; Where is empty when there was nothing.
type Step struct {
	Rule  string `json:"rule"`
	Where string `json:"where,omitempty"` // file:line, or the variable
	What  string `json:"found"`
}

// Found is one place that asks for a version.
type Found struct {
	Rule    string // "go.mod"
	Where   string // "/p/go.mod:3"
	Request Request
}

// File is the file of Where, without the line; "" for a variable.
func (f Found) File() string {
	i := strings.LastIndexByte(f.Where, ':')
	if i < 0 {
		return ""
	}
	return f.Where[:i]
}

func (f Found) String() string { return fmt.Sprintf("%s wants %s", f.Where, f.Request) }

// ErrNoRule says that no rule names a version.
var ErrNoRule = errors.New("nothing names a Go version here (gofs use VERSION for the project, gofs default VERSION for everything else)")

// NotImportedError says that no imported release satisfies a request.
type NotImportedError struct {
	Rule   Found
	Import string // what to give to gofs import
}

func (e *NotImportedError) Error() string {
	if e.Rule.Request.kind == named {
		return fmt.Sprintf("nothing is imported as %s, asked for by %s (gofs ls)", e.Rule.Request, e.Rule.Where)
	}
	if e.Rule.Request.kind == exact {
		return fmt.Sprintf("go %s, asked for by %s, is not imported (gofs import %s)", e.Rule.Request, e.Rule.Where, e.Import)
	}
	return fmt.Sprintf("no imported release satisfies %s, asked for by %s (gofs import %s)", e.Rule.Request, e.Rule.Where, e.Import)
}

// ConflictError says that no release whatever satisfies two rules.
type ConflictError struct{ A, B Found }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s, but %s: make them agree (gofs use VERSION) or set GOFS_VERSION", e.A, e.B)
}

// Resolve applies the rules. Its error is ErrNoRule, a *NotImportedError, a
// *ConflictError, or tells which file does not parse. The steps of the
// Choice are filled in also when there is an error.
func (r *Resolver) Resolve() (Choice, error) {
	var c Choice
	if v := r.getenv("GOFS_VERSION"); v != "" {
		req, err := Parse(v)
		if err != nil {
			return c, fmt.Errorf("GOFS_VERSION: %w", err)
		}
		f := Found{"GOFS_VERSION", "GOFS_VERSION", req}
		c.step(f.Rule, f.Where, req.String())
		return r.settle(c, []Found{f})
	}
	c.step("GOFS_VERSION", "", "not set")
	project, err := r.Project()
	c.Steps = append(c.Steps, project.Steps...)
	if err != nil {
		return c, err
	}
	if len(project.Found) > 0 {
		return r.settle(c, project.Found)
	}
	for _, d := range []struct{ rule, file string }{{"user default", r.UserDefault}, {"system default", r.SystemDefault}} {
		if d.file == "" {
			continue
		}
		f, err := readGoVersion(d.file)
		if err != nil {
			return c, err
		}
		if f == nil {
			c.step(d.rule, "", "no "+d.file)
			continue
		}
		f.Rule = d.rule
		c.step(f.Rule, f.Where, f.Request.String())
		return r.settle(c, []Found{*f})
	}
	return c, ErrNoRule
}

// Select resolves a version that was given on the command line.
func (r *Resolver) Select(version string) (Choice, error) {
	req, err := Parse(version)
	if err != nil {
		return Choice{}, err
	}
	f := Found{"argument", "the command line", req}
	var c Choice
	c.step(f.Rule, f.Where, req.String())
	return r.settle(c, []Found{f})
}

// Project is what the files of a project ask for: rules 3 and 4.
type Project struct {
	Dir   string  // directory of the deciding file
	Found []Found // the requests that must all hold, the first of them first
	Steps []Step
}

// Decides returns the request that picks: the first that is more than a
// minimum, else the first. It must not be called without requests.
func (p Project) Decides() Found { return decides(p.Found) }

func decides(found []Found) Found {
	for _, f := range found {
		if f.Request.kind != minimum {
			return f
		}
	}
	return found[0]
}

// settle picks the release that satisfies every request.
func (r *Resolver) settle(c Choice, found []Found) (Choice, error) {
	if a, b, ok := conflict(found); ok {
		return c, &ConflictError{a, b}
	}
	by := decides(found)
	var fit []Release
	for _, rel := range r.Installed.Releases {
		if r.takes(rel, by.Request) && !slices.ContainsFunc(found, func(f Found) bool { return !f.Request.allows(rel) }) {
			fit = append(fit, rel)
		}
	}
	rel, ok := by.Request.choose(fit)
	if !ok {
		return c, &NotImportedError{by, importName(by, found)}
	}
	c.Release, c.GOROOT, c.Rule = rel, r.Installed.GOROOT(rel), by
	return c, nil
}

// takes reports whether rel may be picked for q: by its name always, by its
// version when it is a plain release for this machine.
func (r *Resolver) takes(rel Release, q Request) bool {
	if q.kind == named {
		return rel.Name == q.text
	}
	return rel.Platform == r.Platform && rel.Name == rel.Version
}

// conflict finds two requests that no release can satisfy together.
func conflict(found []Found) (a, b Found, ok bool) {
	for i, b := range found {
		for _, a := range found[:i] {
			if !a.Request.overlaps(b.Request) {
				return a, b, true
			}
		}
	}
	return a, b, false
}

// importName is what an import has to be asked for so that by is satisfied:
// its own version, or a higher minimum within the same minor.
func importName(by Found, found []Found) string {
	name := by.Request.importName()
	for _, f := range found {
		if q := f.Request; q.kind == minimum && q.release() && compare(q.lo, name) > 0 {
			name = q.lo
		}
	}
	return name
}

func (r *Resolver) getenv(key string) string {
	if r.Getenv == nil {
		return ""
	}
	return r.Getenv(key)
}

func (c *Choice) step(rule, where, what string) {
	c.Steps = append(c.Steps, Step{rule, where, what})
}

// Project reads the files of rules 3 and 4.
func (r *Resolver) Project() (Project, error) {
	p := Project{Dir: r.Dir}
	work, err := r.workspace(&p)
	if err != nil {
		return p, err
	}
	dir, seen := "", map[string]bool{}
	for d := r.Dir; ; d = filepath.Dir(d) {
		found, mod, err := readDir(d, work, dir != "")
		if err != nil {
			return p, err
		}
		if dir == "" && len(found) > 0 {
			dir = d
			if !work {
				p.Dir = d
			}
		}
		for _, f := range found {
			p.Found = append(p.Found, f)
			p.Steps = append(p.Steps, Step{f.Rule, f.Where, f.Request.String()})
			seen[f.Rule] = true
		}
		if dir != "" && mod || d == filepath.Dir(d) {
			break
		}
	}
	if dir == "" {
		dir = r.Dir + " or above"
	}
	for _, rule := range []string{"go.mod", ".go-version", ".tool-versions", "mise.toml"} {
		if !seen[rule] {
			p.Steps = append(p.Steps, Step{Rule: rule, What: "no version in " + dir})
		}
	}
	return p, nil
}

// workspace reads go.work, and reports whether there is one.
func (r *Resolver) workspace(p *Project) (bool, error) {
	file := r.getenv("GOWORK")
	switch file {
	case "off":
		p.Steps = append(p.Steps, Step{Rule: "go.work", What: "GOWORK=off"})
		return false, nil
	case "", "auto":
		file = ""
		for d := r.Dir; ; d = filepath.Dir(d) {
			if fi, err := os.Stat(filepath.Join(d, "go.work")); err == nil && !fi.IsDir() {
				file = filepath.Join(d, "go.work")
				break
			}
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	if file == "" {
		p.Steps = append(p.Steps, Step{Rule: "go.work", What: "none in " + r.Dir + " or above"})
		return false, nil
	}
	found, err := readGoWork(file)
	if err != nil {
		return false, err
	}
	p.Dir = filepath.Dir(file)
	for _, f := range found {
		p.Found = append(p.Found, f)
		p.Steps = append(p.Steps, Step{f.Rule, f.Where, f.Request.String()})
	}
	if len(found) == 0 {
		p.Steps = append(p.Steps, Step{Rule: "go.work", Where: file, What: "no version"})
	}
	return true, nil
}

// readDir reads the version files of one directory. Below a workspace only
// the go line of go.mod counts; with floorOnly nothing else counts at all.
// mod says that the directory is the root of a module.
func readDir(dir string, workspace, floorOnly bool) (found []Found, mod bool, err error) {
	mods, mod, err := readGoMod(filepath.Join(dir, "go.mod"))
	if err != nil {
		return nil, mod, err
	}
	for _, f := range mods {
		if f.Request.kind == minimum || !workspace && !floorOnly {
			found = append(found, f)
		}
	}
	if floorOnly {
		return found, mod, nil
	}
	for _, one := range []struct {
		name string
		read func(string) (*Found, error)
	}{
		{".go-version", readGoVersion},
		{".tool-versions", readToolVersions},
		{"mise.toml", ReadMise},
		{".mise.toml", ReadMise},
	} {
		f, err := one.read(filepath.Join(dir, one.name))
		if err != nil {
			return nil, mod, err
		}
		if f != nil {
			f.Rule = "mise.toml"
			if !strings.HasSuffix(one.name, "mise.toml") {
				f.Rule = one.name
			}
			found = append(found, *f)
		}
	}
	return found, mod, nil
}

// Conflict returns a *ConflictError when no release can satisfy all requests.
func (p Project) Conflict() error {
	if a, b, ok := conflict(p.Found); ok {
		return &ConflictError{a, b}
	}
	return nil
}
