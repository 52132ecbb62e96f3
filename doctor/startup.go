package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// startupLine is one line of a file that a shell or a login reads when it
// starts.
type startupLine struct {
	File string
	Line int
	Text string
	full string // Text with $HOME, ~ and what the lines before it set filled in
}

func (l startupLine) String() string { return fmt.Sprintf("%s:%d", l.File, l.Line) }

// userStartup and systemStartup are read in this order; the globs cover what
// is split over folders. See bash(1) INVOCATION, zsh(1) STARTUP/SHUTDOWN
// FILES, fish(1) and environment.d(5).
var (
	systemStartup = []string{
		"/etc/environment", "/etc/environment.d/*.conf", "/etc/profile", "/etc/profile.d/*.sh", "/etc/bash.bashrc",
		"/etc/zsh/zshenv", "/etc/zsh/zprofile", "/etc/zsh/zshrc", "/etc/zshenv", "/etc/zprofile", "/etc/zshrc",
		"/etc/fish/config.fish", "/etc/fish/conf.d/*.fish",
	}
	userStartup = []string{
		".config/environment.d/*.conf", ".profile", ".bash_profile", ".bash_login", ".bashrc",
		".zshenv", ".zprofile", ".zshrc", ".zlogin", ".config/fish/config.fish", ".config/fish/conf.d/*.fish",
	}
)

// Compiled when first used: gofs is started at many a prompt, and as go.
var (
	assignRE = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*(?:(?:export|declare|typeset|set)\s+(?:-\S+\s+)*)?([A-Za-z_][A-Za-z0-9_]*)(?:=|\s+)(.*)$`)
	})
	varRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?`) })
)

// readStartup reads every line that is not a comment. Files that cannot be
// read are left out: they are not this user's to change either.
func readStartup(home string) []startupLine {
	var lines []startupLine
	patterns := slices.Clone(systemStartup)
	for _, p := range userStartup {
		patterns = append(patterns, filepath.Join(home, p))
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, file := range files {
			lines = append(lines, readStartupFile(file, home)...)
		}
	}
	return lines
}

func readStartupFile(file, home string) []startupLine {
	data, err := readSmall(file)
	if err != nil {
		return nil
	}
	vars := map[string]string{"HOME": home}
	var lines []startupLine
	for i, text := range strings.Split(string(data), "\n") {
		trimmed := strings.TrimSpace(text)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		full := varRE().ReplaceAllStringFunc(text, func(ref string) string {
			if v, ok := vars[varRE().FindStringSubmatch(ref)[1]]; ok {
				return v
			}
			return ref
		})
		full = strings.NewReplacer("=~/", "="+home+"/", ":~/", ":"+home+"/", " ~/", " "+home+"/").Replace(full)
		if m := assignRE().FindStringSubmatch(full); m != nil && m[1] != "PATH" {
			vars[m[1]] = strings.Trim(m[2], `"' ;`)
		}
		lines = append(lines, startupLine{file, i + 1, text, full})
	}
	return lines
}

// assigned finds the last line that sets a variable.
func (e *exam) assigned(key string) (startupLine, bool) {
	for _, l := range slices.Backward(e.startup) {
		if m := assignRE().FindStringSubmatch(l.full); m != nil && m[1] == key {
			return l, true
		}
	}
	return startupLine{}, false
}

// putInPath finds the line that puts a folder into PATH.
func (e *exam) putInPath(dir string) (startupLine, bool) {
	for _, l := range slices.Backward(e.startup) {
		sets := strings.Contains(l.full, "PATH") || strings.Contains(l.full, "fish_add_path")
		if sets && slices.Contains(pathWords(l.full), dir) {
			return l, true
		}
	}
	return startupLine{}, false
}

func pathWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(`:="' ;`+"\t", r) })
}

// comment takes the line out of effect and leaves it readable.
func (l startupLine) comment() error { return l.replace("") }

// dropFromPath takes one folder out of the line, the rest stays.
func (l startupLine) dropFromPath(dir string) error {
	raw := ""
	words, full := pathWords(l.Text), pathWords(l.full)
	for i, w := range full {
		if w == dir && len(words) == len(full) {
			raw = words[i]
		}
	}
	if raw == "" || strings.Contains(l.Text, "fish_add_path") {
		return l.comment()
	}
	for _, cut := range []string{":" + raw, raw + ":"} {
		if strings.Contains(l.Text, cut) {
			return l.replace(strings.Replace(l.Text, cut, "", 1))
		}
	}
	return l.comment()
}

// replace comments the line out and puts text, unless empty, after it. The
// line is found by its text: another fix may have moved it.
func (l startupLine) replace(text string) error {
	data, err := os.ReadFile(l.File)
	if err != nil {
		return err
	}
	lines := strings.Split(string(data), "\n")
	at := slices.Index(lines, l.Text)
	if l.Line <= len(lines) && lines[l.Line-1] == l.Text {
		at = l.Line - 1
	}
	if at < 0 {
		return fmt.Errorf("%s: the file has changed meanwhile", l)
	}
	lines[at] = "# gofs doctor: " + l.Text
	if text != "" {
		lines = slices.Insert(lines, at+1, text)
	}
	return replaceFile(l.File, []byte(strings.Join(lines, "\n")))
}
