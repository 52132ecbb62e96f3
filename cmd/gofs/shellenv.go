package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gofs/resolve"
)

// environ is an environment under change: what a shell evaluates is the
// difference between two of them.
type environ map[string]string

func currentEnviron() environ {
	e := environ{}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		e[k] = v
	}
	return e
}

// savedVar is the variable that remembers how to undo activate.
const savedVar = "GOFS_ENV"

// saved is the content of GOFS_ENV. The PATH is not kept as a whole: what
// the user adds to it in the meantime must survive the undoing.
type saved struct {
	GOROOT      string       `json:"goroot"` // the one activated
	Removed     []removedDir `json:"removed,omitempty"`
	Before      *string      `json:"before,omitempty"`    // GOROOT before, if set
	GOTOOLCHAIN *string      `json:"toolchain,omitempty"` // likewise
}

// removedDir is a folder taken out of PATH and the one that followed it.
type removedDir struct {
	Dir  string `json:"dir"`
	Next string `json:"next,omitempty"`
}

// activate makes goroot the only GOROOT of e. GOTOOLCHAIN becomes local: the
// release has been picked, and the go command must not pick again.
func (e environ) activate(goroot string) {
	e.deactivate()
	s := saved{GOROOT: goroot, Before: e.pointer("GOROOT"), GOTOOLCHAIN: e.pointer("GOTOOLCHAIN")}
	path := filepath.SplitList(e["PATH"])
	kept := []string{filepath.Join(goroot, "bin")}
	for i, dir := range path {
		if !isGorootBin(dir) {
			kept = append(kept, dir)
			continue
		}
		next := ""
		if i+1 < len(path) {
			next = path[i+1]
		}
		s.Removed = append(s.Removed, removedDir{dir, next})
	}
	e["PATH"] = strings.Join(kept, string(filepath.ListSeparator))
	e["GOROOT"] = goroot
	e["GOTOOLCHAIN"] = "local"
	data, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings only
	}
	e[savedVar] = string(data)
}

// deactivate undoes activate.
func (e environ) deactivate() {
	var s saved
	if e[savedVar] == "" || json.Unmarshal([]byte(e[savedVar]), &s) != nil {
		delete(e, savedVar)
		return
	}
	path := filepath.SplitList(e["PATH"])
	if i := slices.Index(path, filepath.Join(s.GOROOT, "bin")); i >= 0 {
		path = slices.Delete(path, i, i+1)
	}
	for _, r := range slices.Backward(s.Removed) {
		i := slices.Index(path, r.Next)
		if r.Next == "" || i < 0 {
			i = len(path)
		}
		path = slices.Insert(path, i, r.Dir)
	}
	e["PATH"] = strings.Join(path, string(filepath.ListSeparator))
	// What was set by hand since then stays.
	if e["GOROOT"] == s.GOROOT {
		e.restore("GOROOT", s.Before)
	}
	if e["GOTOOLCHAIN"] == "local" {
		e.restore("GOTOOLCHAIN", s.GOTOOLCHAIN)
	}
	delete(e, savedVar)
}

func (e environ) pointer(key string) *string {
	if v, ok := e[key]; ok {
		return &v
	}
	return nil
}

func (e environ) restore(key string, v *string) {
	if v == nil {
		delete(e, key)
		return
	}
	e[key] = *v
}

// list is e as os/exec takes it.
func (e environ) list() []string {
	l := make([]string, 0, len(e))
	for k, v := range e {
		l = append(l, k+"="+v)
	}
	slices.Sort(l)
	return l
}

// isGorootBin reports whether dir is the bin folder of a GOROOT: PATH must
// not hold two of them. A folder like /usr/bin with a link to a go in it is
// none.
func isGorootBin(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "go")); err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(dir)
	return err == nil && filepath.Base(real) == "bin" && resolve.IsGoroot(filepath.Dir(real))
}

// change is one variable that differs; Unset takes it away.
type change struct {
	Key, Value string
	Unset      bool
}

// diff lists what turns from into e, in a fixed order.
func (e environ) diff(from environ) []change {
	var list []change
	for _, key := range []string{"PATH", "GOROOT", "GOTOOLCHAIN", savedVar} {
		v, ok := e[key]
		old, was := from[key]
		switch {
		case ok && (!was || v != old):
			list = append(list, change{Key: key, Value: v})
		case !ok && was:
			list = append(list, change{Key: key, Unset: true})
		}
	}
	return list
}

// shells are the syntaxes that gofs can write.
var shells = []string{"bash", "zsh", "fish", "pwsh"}

// defaultShell is the shell of the user as far as gofs can write for it.
func defaultShell() string {
	if name := filepath.Base(os.Getenv("SHELL")); slices.Contains(shells, name) {
		return name
	}
	return "bash"
}

// statements writes changes so that shell can evaluate them.
func statements(shell string, list []change) (string, error) {
	var b strings.Builder
	for _, c := range list {
		switch shell {
		case "bash", "zsh":
			if c.Unset {
				fmt.Fprintf(&b, "unset %s;\n", c.Key)
			} else {
				fmt.Fprintf(&b, "export %s=%s;\n", c.Key, quotePosix(c.Value))
			}
		case "fish":
			switch {
			case c.Unset:
				fmt.Fprintf(&b, "set -e %s;\n", c.Key)
			case c.Key == "PATH":
				b.WriteString("set -gx PATH")
				for _, dir := range filepath.SplitList(c.Value) {
					b.WriteString(" " + quoteFish(dir))
				}
				b.WriteString(";\n")
			default:
				fmt.Fprintf(&b, "set -gx %s %s;\n", c.Key, quoteFish(c.Value))
			}
		case "pwsh":
			if c.Unset {
				fmt.Fprintf(&b, "Remove-Item -ErrorAction SilentlyContinue Env:%s;\n", c.Key)
			} else {
				fmt.Fprintf(&b, "$env:%s = '%s';\n", c.Key, strings.ReplaceAll(c.Value, "'", "''"))
			}
		default:
			return "", usagef("no shell called %q (one of %s)", shell, strings.Join(shells, ", "))
		}
	}
	return b.String(), nil
}

func quotePosix(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
