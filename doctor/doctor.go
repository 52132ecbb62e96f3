package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gofs/resolve"
)

// Severity orders findings.
type Severity string

const (
	Problem Severity = "problem" // the wrong go runs, or none does
	Warning Severity = "warning" // it will go wrong in some folder or some day
	Note    Severity = "note"    // it could be better; nothing is wrong
)

func (s Severity) rank() int { return slices.Index([]Severity{Problem, Warning, Note}, s) }

// Finding is one thing that is wrong.
type Finding struct {
	Name     string   `json:"name"`
	Severity Severity `json:"severity"`
	Cause    string   `json:"cause"`
	Command  string   `json:"command"` // mends it
	Fixable  bool     `json:"fixable"` // Fix can do it
	Fixed    bool     `json:"fixed"`
	FixError string   `json:"fix_error,omitempty"`

	fix func() error
}

// Host is what the doctor needs to be told about the machine; everything
// else it reads from the root file system, /proc and /sys.
type Host struct {
	Env     map[string]string
	Dir     string // working directory
	Home    string
	Self    string            // executable of gofs
	Store   string            // folder of the store
	Rules   *resolve.Resolver // nil when nothing is mounted
	RuleErr error             // why Rules is nil
	Now     time.Time
	Damage  []string // what a verification of the store noted
}

// Report is the outcome of an examination.
type Report struct {
	Findings []Finding `json:"findings"` // the worst first
	Gos      []Go      `json:"gos"`      // every go in PATH, in order
}

// Sick reports whether a problem or a warning is left.
func (r Report) Sick() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Note && !f.Fixed })
}

// Fix mends what can be mended, and notes in each finding how that went.
func (r *Report) Fix() {
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.fix == nil {
			continue
		}
		if err := f.fix(); err != nil {
			f.FixError = strings.ReplaceAll(err.Error(), "\n", "; ")
		} else {
			f.Fixed = true
		}
	}
}

// exam is one examination under way.
type exam struct {
	*Host
	ctx      context.Context
	report   Report
	startup  []startupLine
	goenv    map[string]string // content of the go command's env file
	goenvAt  string            // its path
	choice   resolve.Choice    // what the rules pick
	picked   bool
	launcher bool     // the first go in PATH is the launcher of gofs
	view     view     // what the go in use says of itself
	hung     []string // mounts that do not answer: nothing below them may be touched
}

// Examine runs every check.
func Examine(ctx context.Context, h *Host) Report {
	e := &exam{Host: h, ctx: ctx, startup: readStartup(h.Home)}
	e.checkHung()
	e.readGoenv()
	e.rules()
	e.report.Gos = e.listGos()
	e.checkPath()
	e.askGo()
	e.checkEnvironment()
	e.checkTools()
	e.checkProject()
	e.checkCgo()
	e.checkCaches()
	e.checkProcesses()
	e.checkMounts()
	e.checkStore()
	slices.SortStableFunc(e.report.Findings, func(a, b Finding) int { return a.Severity.rank() - b.Severity.rank() })
	return e.report
}

// find adds a finding; fix is nil when only a person can mend it.
func (e *exam) find(s Severity, name, command string, fix func() error, cause string, args ...any) {
	e.report.Findings = append(e.report.Findings, Finding{
		Name: name, Severity: s, Cause: fmt.Sprintf(cause, args...), Command: command, Fixable: fix != nil, fix: fix,
	})
}

// rules asks the resolver what should run here. Its errors are findings.
func (e *exam) rules() {
	if e.Rules == nil {
		if e.RuleErr != nil && !errors.Is(e.RuleErr, resolve.ErrNoMount) {
			// A dead mount is named by checkMounts, with its own command.
			if !strings.Contains(e.RuleErr.Error(), "is dead") && !e.has("mount-hung") {
				e.find(Problem, "mount-missing", command(e.RuleErr), nil, "%v", e.RuleErr)
			}
		}
		return
	}
	choice, err := e.Rules.Resolve()
	var missing *resolve.NotImportedError
	var conflict *resolve.ConflictError
	switch {
	case err == nil:
		e.choice, e.picked = choice, true
	case errors.Is(err, resolve.ErrNoRule):
	case errors.As(err, &missing):
		e.find(Problem, "not-imported", command(err), nil, "%v", err)
	case errors.As(err, &conflict):
		e.find(Problem, "rules-conflict", "gofs use VERSION", nil, "%v", err)
	default:
		e.find(Problem, "rule-unreadable", "correct the file", nil, "%v", err)
	}
}

// command takes the advice in parentheses from the end of an error.
func command(err error) string {
	text := err.Error()
	if i := strings.LastIndexByte(text, '('); i >= 0 && strings.HasSuffix(text, ")") {
		return text[i+1 : len(text)-1]
	}
	return ""
}

// run runs a command away from the project, so that no go.mod makes the go
// command switch toolchains, and returns what it prints.
func (e *exam) run(name string, args ...string) (string, error) {
	return e.runFor(20*time.Second, name, args...)
}

// runFor is run with a time limit. It does not wait longer even for a process
// that cannot be killed, as one that a FUSE server leaves without an answer.
func (e *exam) runFor(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	for k, v := range e.Env {
		if k != "GOTOOLCHAIN" && k != "GOWORK" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, "GOTOOLCHAIN=local", "GOWORK=off")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.WaitDelay = time.Second // a grandchild may keep the pipes open
	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	select {
	case err := <-done:
		if err == nil {
			return strings.TrimSpace(out.String()), nil
		}
		if ctx.Err() == nil {
			line, _, _ := strings.Cut(strings.TrimSpace(errOut.String()), "\n")
			return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, line)
		}
	case <-ctx.Done():
	}
	return "", fmt.Errorf("%s %s: no answer within %v: %w", name, strings.Join(args, " "), limit, context.DeadlineExceeded)
}

// readGoenv reads the file that go env -w writes.
func (e *exam) readGoenv() {
	e.goenv = map[string]string{}
	switch e.goenvAt = e.Env["GOENV"]; e.goenvAt {
	case "off":
		return
	case "":
		config := e.Env["XDG_CONFIG_HOME"]
		if config == "" {
			config = filepath.Join(e.Home, ".config")
		}
		e.goenvAt = filepath.Join(config, "go", "env")
	}
	data, err := readSmall(e.goenvAt)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			e.goenv[k] = v
		}
	}
}

// maxSmall bounds the settings and lists that the doctor reads, in bytes.
const maxSmall = 4 << 20

// readSmall reads a regular file of at most maxSmall bytes. Anything else,
// such as a named pipe that waits for its writer, is an error.
func readSmall(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxSmall {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", file, maxSmall)
	}
	return os.ReadFile(file)
}

// setting returns the value of a variable of the go command and where it
// comes from: the environment wins over the file of go env -w.
func (e *exam) setting(key string) (value, where string) {
	if v := e.Env[key]; v != "" {
		if l, ok := e.assigned(key); ok {
			return v, l.String()
		}
		return v, "the environment"
	}
	if v := e.goenv[key]; v != "" {
		return v, e.goenvAt
	}
	return "", ""
}

// unset returns the command and the fix that take a setting away.
func (e *exam) unset(key string) (command string, fix func() error) {
	if e.Env[key] != "" {
		l, ok := e.assigned(key)
		if !ok {
			return "unset " + key, nil
		}
		return "unset " + key, func() error { return l.comment() }
	}
	return "go env -u " + key, func() error { return dropSetting(e.goenvAt, key) }
}

// dropSetting takes a line out of the file of go env -w, as go env -u does.
func dropSetting(file, key string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(strings.TrimSpace(line), key+"=") {
			kept.WriteString(line)
		}
	}
	return replaceFile(file, []byte(kept.String()))
}

// replaceFile writes a file anew, its mode kept; a link stays a link.
func replaceFile(file string, data []byte) error {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	fi, err := os.Stat(file)
	if err != nil {
		return err
	}
	// A name that nobody can have put a link at.
	tmp, err := os.CreateTemp(filepath.Dir(file), ".gofs-doctor-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(fi.Mode().Perm()), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the first error counts
	}
	return err
}
