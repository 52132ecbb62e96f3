package resolve

import (
	"errors"
	"fmt"
	"go/version"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"
	"golang.org/x/mod/modfile"
)

// maxFile bounds what is read of a version file, in bytes: as much as the go
// command takes of a go.mod in a module.
const maxFile = 16 << 20

// readFile reads a version file; nil data means that there is none. A folder
// of that name is none either, as for the go command.
func readFile(file string) ([]byte, error) {
	// A named pipe must not make every prompt wait for its writer.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) || isNotDir(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading version: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading version: %w", err)
	}
	switch {
	case fi.IsDir():
		return nil, nil
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("reading version: %s is not a regular file", file)
	case fi.Size() > maxFile:
		return nil, fmt.Errorf("reading version: %s has %d bytes, at most %d are read", file, fi.Size(), maxFile)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("reading version: %w", err)
	}
	return data, nil // never nil, see io.ReadAll
}

// readGoMod returns the toolchain and the go line of a go.mod, and whether
// the file is there.
func readGoMod(file string) ([]Found, bool, error) {
	data, err := readFile(file)
	if data == nil || err != nil {
		return nil, false, err
	}
	mod, err := modfile.Parse(file, data, nil)
	if err != nil {
		// A newer Go may know directives that this parser does not: like the
		// go command, take what a dependency's go.mod is read for.
		lax, laxErr := modfile.ParseLax(file, data, nil)
		if laxErr != nil || lax.Go == nil || compare(Minor(lax.Go.Version), Minor(strings.TrimPrefix(runtime.Version(), "go"))) <= 0 {
			return nil, true, firstError(err)
		}
		mod = lax
	}
	found, err := lines(file, "go.mod", mod.Go, mod.Toolchain)
	return found, true, err
}

// readGoWork returns the toolchain and the go line of a go.work.
func readGoWork(file string) ([]Found, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, fmt.Errorf("GOWORK=%s: no such file", file)
	}
	work, err := modfile.ParseWork(file, data, nil)
	if err != nil {
		return nil, firstError(err)
	}
	return lines(file, "go.work", work.Go, work.Toolchain)
}

// lines turns the two statements into requests, the toolchain line first.
func lines(file, rule string, g *modfile.Go, t *modfile.Toolchain) ([]Found, error) {
	var found []Found
	if t != nil && t.Name != "default" {
		where := fmt.Sprintf("%s:%d", file, t.Syntax.Start.Line)
		if !version.IsValid(t.Name) {
			return nil, fmt.Errorf("%s: toolchain %s is not a Go release", where, t.Name)
		}
		q, err := Parse(t.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		if q.kind == named {
			q.text = strings.TrimPrefix(q.text, "go")
		}
		found = append(found, Found{rule, where, q})
	}
	if g != nil {
		found = append(found, Found{rule, fmt.Sprintf("%s:%d", file, g.Syntax.Start.Line), atLeast(g.Version)})
	}
	return found, nil
}

// firstError shortens the parser's list of errors to its first line.
func firstError(err error) error {
	var list modfile.ErrorList
	if errors.As(err, &list) && len(list) > 0 {
		return &list[0]
	}
	return err
}

// readGoVersion reads the file of goenv, of setup-go and of gofs's own
// defaults: the first word that is no comment.
func readGoVersion(file string) (*Found, error) {
	data, err := readFile(file)
	if data == nil || err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			return found(fmt.Sprintf("%s:%d", file, i+1), line)
		}
	}
	return nil, fmt.Errorf("%s: names no version", file)
}

// readToolVersions reads asdf's file: "golang 1.22.8 1.21.0", of which the
// first version counts.
func readToolVersions(file string) (*Found, error) {
	data, err := readFile(file)
	if data == nil || err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "golang" && words[0] != "go" {
			continue
		}
		where := fmt.Sprintf("%s:%d", file, i+1)
		if len(words) == 1 {
			return nil, fmt.Errorf("%s: names no version", where)
		}
		return found(where, words[1])
	}
	return nil, nil
}

// ReadMise reads mise's file: go in [tools] is a version, a list of versions
// or a table with one.
func ReadMise(file string) (*Found, error) {
	data, err := readFile(file)
	if data == nil || err != nil {
		return nil, err
	}
	var doc struct{ Tools map[string]any }
	_, err = toml.Decode(string(data), &doc)
	if err != nil {
		var perr toml.ParseError
		if errors.As(err, &perr) {
			return nil, fmt.Errorf("%s:%d: %s", file, perr.Position.Line, perr.Message)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, tool := range []string{"go", "golang", "core:go"} {
		if v, ok := doc.Tools[tool]; ok {
			text, ok := miseVersion(v)
			if !ok {
				return nil, fmt.Errorf("%s: tools.%s names no version", file, tool)
			}
			return found(fmt.Sprintf("%s:%d", file, miseLine(data, tool)), text)
		}
	}
	return nil, nil
}

func miseVersion(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return strings.TrimPrefix(v, "prefix:"), true
	case []any:
		if len(v) > 0 {
			return miseVersion(v[0])
		}
	case map[string]any:
		return miseVersion(v["version"])
	}
	return "", false
}

// miseLine finds the line that sets a tool; the decoder does not tell.
func miseLine(data []byte, tool string) int {
	section := ""
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[] ")
		}
		key, _, _ := strings.Cut(line, "=")
		key = strings.Trim(strings.TrimSpace(key), `"'`)
		if section == "tools" && key == tool || key == "tools."+tool || section == "tools."+tool {
			return i + 1
		}
	}
	return 1
}

// found parses a version that was read at where. "system", which asdf,
// goenv and mise know, leaves the choice to the rules that follow.
func found(where, text string) (*Found, error) {
	if text == "system" {
		return nil, nil
	}
	q, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return &Found{Rule: filepath.Base(where), Where: where, Request: q}, nil
}
