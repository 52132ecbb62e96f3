package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gofs/resolve"
	"gofs/resolve/launch"
)

func newCheckCmd(g *globals) *cobra.Command {
	c := &checker{chooser: chooser{g: g}}
	cmd := &cobra.Command{
		Use:   "check [--binary FILE...]",
		Short: "Check the go in use against the project",
		Long: `check compares the go that PATH finds with what the files of the project ask
for: go.work, go.mod, .go-version, .tool-versions, mise.toml. GOFS_VERSION and
defaults do not count, and neither a store nor a mount is needed. With
--binary it compares the Go version that each program was built by, from its
build info.

EXIT STATUS
  0 all agree; 1 one does not, or the project names no version; 2 wrong usage`,
		Example: "  gofs check\n  gofs check --require-exact --min 1.22\n  gofs check --binary bin/*",
		Args: func(cmd *cobra.Command, args []string) error {
			if c.binary != (len(args) > 0) {
				return usagef("files go with --binary (see gofs check --help)")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := resolve.Here(resolve.Installed{})
			if err != nil {
				return err
			}
			p, err := c.project(r)
			if err != nil {
				return err
			}
			if c.binary {
				return c.checkBinaries(cmd, p, args)
			}
			name, version, err := goInUse(cmd.Context(), c.g)
			if err != nil {
				return err
			}
			if f, ok := violated(p, version); ok {
				return fmt.Errorf(`%s, but %s is go %s (eval "$(gofs env)")`, f, name, version)
			}
			if !g.quiet {
				fmt.Fprintf(cmd.OutOrStdout(), "go %s satisfies %s\n", version, p.Decides().Where)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&c.exact, "require-exact", false, "fail unless the project names one release")
	cmd.Flags().StringVar(&c.min, "min", "", "fail unless the project asks for `VERSION` or newer")
	cmd.Flags().BoolVar(&c.binary, "binary", false, "check programs instead of the go in use")
	return cmd
}

type checker struct {
	chooser
	exact, binary bool
	min           string
}

// project reads the project's rule and holds it against the flags.
func (c *checker) project(r *resolve.Resolver) (resolve.Project, error) {
	p, err := r.Project()
	if err != nil {
		return p, err
	}
	if len(p.Found) == 0 {
		return p, errors.New("the project names no Go version (gofs use VERSION)")
	}
	if err := p.Conflict(); err != nil {
		return p, err
	}
	by := p.Decides()
	if c.exact && !by.Request.Exact() {
		return p, fmt.Errorf("%s, which is not one release (gofs use VERSION)", by)
	}
	if c.min == "" {
		return p, nil
	}
	min, err := resolve.Parse(c.min)
	if err != nil || min.Minimum() == "" {
		return p, usagef("--min wants a version like 1.22 or 1.22.3, not %q", c.min)
	}
	for _, f := range p.Found {
		if low := f.Request.Minimum(); low != "" && resolve.Compare(low, min.Minimum()) >= 0 {
			return p, nil
		}
	}
	return p, fmt.Errorf("%s, which is less than the %s of --min", by, c.min)
}

// violated finds a request that a release of this version does not satisfy.
func violated(p resolve.Project, version string) (resolve.Found, bool) {
	for _, f := range p.Found {
		if !f.Request.Allows(version) {
			return f, true
		}
	}
	return resolve.Found{}, false
}

func (c *checker) checkBinaries(cmd *cobra.Command, p resolve.Project, files []string) error {
	failed := false
	for _, file := range files {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			failed = true
			why := errors.New("not a program that Go built")
			var unread *fs.PathError
			if errors.As(err, &unread) {
				why = unread.Err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "gofs: %s: %v\n", file, why)
			continue
		}
		version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
		if f, ok := violated(p, version); ok {
			failed = true
			fmt.Fprintf(cmd.ErrOrStderr(), "gofs: %s was built by go %s, but %s\n", file, version, f)
		} else if !c.g.quiet {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: go %s\n", file, version)
		}
	}
	if failed {
		return exitStatus(exitFailed)
	}
	return nil
}

// goInUse finds the go of PATH and its version: from the VERSION file beside
// it, from the rules when it is the launcher of gofs, and only when it is
// something else by running it.
func goInUse(ctx context.Context, g *globals) (file, version string, err error) {
	file, err = exec.LookPath("go")
	if err != nil {
		return "", "", errors.New(`no go in PATH (eval "$(gofs env)")`)
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", "", err
	}
	if root := resolve.Goroot(file); root != "" {
		version, err = resolve.VersionFile(root)
		return file, version, err
	}
	if self, err := os.Executable(); err == nil && launch.Is(file, self) {
		mount, err := launch.Mount(file)
		if err != nil {
			return file, "", err
		}
		choice, err := (&chooser{g: g, mount: mount}).choose("")
		return file, choice.Release.Version, err
	}
	out, err := exec.CommandContext(ctx, file, "env", "GOVERSION").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s env GOVERSION: %w", file, err)
	}
	version, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "go"), " ")
	return file, version, nil
}
