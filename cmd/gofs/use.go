package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/mod/modfile"

	"gofs/resolve"
)

func newUseCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var global bool
	cmd := &cobra.Command{
		Use:   "use VERSION",
		Short: "Choose the release of this project",
		Long: `use writes VERSION into the file that decides for the project: each place
that names a release already (the toolchain line of go.work or go.mod,
.go-version, .tool-versions, mise.toml), else the toolchain line of go.work
or go.mod, else .go-version in the working directory. Go before 1.21 does not
know toolchain lines, so such a release goes to .go-version.

EXIT STATUS
  0 written; 1 not imported, below the go line of the project, or not
  writable; 2 wrong usage`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.resolver()
			if err != nil {
				return err
			}
			choice, err := r.Select(args[0])
			if err != nil {
				return err
			}
			var files []string
			if global {
				files = []string{r.UserDefault}
				err = writeDefault(r.UserDefault, choice.Release.Name)
			} else {
				files, err = useIn(r, choice.Release)
			}
			if err != nil {
				return err
			}
			if !g.quiet {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: go %s\n", strings.Join(files, ", "), choice.Release.Name)
			}
			if v := os.Getenv("GOFS_VERSION"); v != "" && v != choice.Release.Name {
				fmt.Fprintf(cmd.ErrOrStderr(), "gofs: GOFS_VERSION=%s still decides in this shell (unset GOFS_VERSION)\n", v)
			}
			return nil
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&global, "global", false, "write the user's default instead, as gofs default does")
	return cmd
}

// useIn makes the project of r ask for rel, and returns the files it wrote.
func useIn(r *resolve.Resolver, rel resolve.Release) ([]string, error) {
	p, err := r.Project()
	if err != nil {
		return nil, err
	}
	var files []string
	for _, f := range p.Found {
		switch {
		case f.Request.IsMinimum() && !f.Request.Allows(rel.Version):
			return nil, fmt.Errorf("%s, so go %s cannot build it (go mod edit -go=%s lowers it)", f, rel.Version, rel.Version)
		case !f.Request.IsMinimum():
			files = append(files, f.File())
		}
	}
	toolchains := rel.Name == rel.Version && resolve.Compare(rel.Version, "1.21rc1") >= 0
	if len(files) == 0 {
		files = []string{filepath.Join(p.Dir, ".go-version")}
		for _, name := range []string{"go.mod", "go.work"} {
			file := filepath.Join(p.Dir, name)
			if _, err := os.Stat(file); err == nil && toolchains {
				files[0] = file
			}
		}
	}
	for _, file := range files {
		if err := setVersion(file, rel.Name, toolchains); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// setVersion makes one file name a release.
func setVersion(file, name string, toolchains bool) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	switch base := filepath.Base(file); base {
	case "go.mod", "go.work":
		if !toolchains {
			return fmt.Errorf("%s: a toolchain line cannot name %s: take the line out, then run gofs use again", file, name)
		}
		data, err = setToolchain(file, data, "go"+name)
	case ".tool-versions":
		data = toolVersionRE().ReplaceAll(data, []byte("${1}"+name))
	case "mise.toml", ".mise.toml":
		data, err = setMise(file, data, name)
	default:
		data, err = []byte(name+"\n"), nil
	}
	if err != nil {
		return err
	}
	return writeFile(file, data)
}

// Compiled when first used: gofs is started at many a prompt, and as go.
var (
	toolVersionRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^(\s*(?:golang|go)[ \t]+)[^\s#]+`) })
	miseRE        = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(.*=\s*)("[^"]*"|'[^']*')(\s*(?:#.*)?)$`) })
)

func setToolchain(file string, data []byte, name string) ([]byte, error) {
	if filepath.Base(file) == "go.work" {
		work, err := modfile.ParseWork(file, data, nil)
		if err != nil {
			return nil, err
		}
		if err := work.AddToolchainStmt(name); err != nil {
			return nil, err
		}
		return modfile.Format(work.Syntax), nil
	}
	mod, err := modfile.Parse(file, data, nil)
	if err != nil {
		return nil, err
	}
	if err := mod.AddToolchainStmt(name); err != nil {
		return nil, err
	}
	return mod.Format()
}

// setMise replaces the version in a line like go = "1.22"; the other forms
// are left to a person.
func setMise(file string, data []byte, name string) ([]byte, error) {
	f, err := resolve.ReadMise(file)
	if err != nil || f == nil {
		return nil, err
	}
	n, err := strconv.Atoi(f.Where[len(f.File())+1:])
	if err != nil {
		return nil, err
	}
	all := strings.Split(string(data), "\n")
	if !miseRE().MatchString(all[n-1]) {
		return nil, fmt.Errorf("%s: only a line like go = %q can be changed: set %s there by hand", f.Where, "1.22", name)
	}
	all[n-1] = miseRE().ReplaceAllString(all[n-1], `${1}"`+name+`"${3}`)
	return []byte(strings.Join(all, "\n")), nil
}
