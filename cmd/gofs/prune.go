package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gofs/resolve"
)

func newPruneCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var older string
	var keep int
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "prune FOLDER...",
		Short: "Propose releases that no project needs",
		Long: `prune looks through the folders for projects, resolves each as gofs which
would, and proposes every release that none of them picks and that is no
default. It removes nothing without --yes.

EXIT STATUS
  0 printed or removed; 1 a folder or a project cannot be read; 2 wrong usage`,
		Example: "  gofs prune ~/src ~/projects\n  gofs prune --older-than 90d --keep-last 1 --yes ~/src",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			age, err := parseAge(older)
			if err != nil {
				return usagef("--older-than: %v", err)
			}
			if keep < 0 {
				return usagef("--keep-last wants a number from 0 on, not %d", keep)
			}
			in, err := c.present()
			if err != nil {
				return err
			}
			r, err := resolve.Here(in)
			if err != nil {
				return err
			}
			importTimes(g, r.Installed.Releases)
			needed, err := neededBy(r, args, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			var names []string
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, v := range prunable(r.Installed.Releases, needed, age, keep) {
				if v.prune {
					names = append(names, v.name)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", v.verdict(), v.name, v.reason)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if len(names) == 0 || !yes || dryRun && cmd.Flags().Changed("dry-run") {
				return nil
			}
			return removeReleases(cmd.Context(), g, names)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&older, "older-than", "", "keep what was imported within `AGE` (90d, 12h)")
	cmd.Flags().IntVar(&keep, "keep-last", 0, "keep the newest `N` of each minor")
	cmd.Flags().BoolVar(&dryRun, "dry-run", true, "print only")
	cmd.Flags().BoolVar(&yes, "yes", false, "remove what is proposed")
	return cmd
}

// parseAge reads a duration that may count days.
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%q is not an age like 90d or 12h", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not an age like 90d or 12h", s)
	}
	return d, nil
}

// neededBy maps the names of releases to a project or default that picks
// them. A project that needs a release which is not imported needs none of
// those here; one that does not parse makes the whole answer unsafe.
func neededBy(r *resolve.Resolver, folders []string, warn io.Writer) (map[string]string, error) {
	needed := map[string]string{}
	at := *r
	at.Getenv = nil
	add := func(dir string) error {
		at.Dir = dir
		choice, err := at.Resolve()
		var missing *resolve.NotImportedError
		switch {
		case err == nil:
			if needed[choice.Release.Name] == "" {
				needed[choice.Release.Name] = choice.Rule.Where
			}
		case errors.As(err, &missing):
			fmt.Fprintf(warn, "gofs: %v\n", err)
		case !errors.Is(err, resolve.ErrNoRule):
			return err
		}
		return nil
	}
	for _, def := range []string{r.UserDefault, r.SystemDefault} {
		at.UserDefault, at.SystemDefault = def, ""
		if err := add("/"); err != nil {
			return nil, err
		}
	}
	at.UserDefault, at.SystemDefault = "", ""
	for _, folder := range folders {
		folder, err := filepath.Abs(folder)
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && path != folder && slices.Contains([]string{".git", "node_modules", "vendor", "testdata"}, d.Name()) {
				return filepath.SkipDir
			}
			if !slices.Contains(versionFiles, d.Name()) || d.IsDir() {
				return nil
			}
			return add(filepath.Dir(path))
		})
		if err != nil {
			return nil, err
		}
	}
	return needed, nil
}

// versionFiles are the files that the rules read.
var versionFiles = []string{"go.work", "go.mod", ".go-version", ".tool-versions", "mise.toml", ".mise.toml"}

type pruneVerdict struct {
	name, reason string
	prune        bool
}

func (v pruneVerdict) verdict() string {
	if v.prune {
		return "remove"
	}
	return "keep"
}

// prunable judges every release, the newest first.
func prunable(releases []resolve.Release, needed map[string]string, age time.Duration, keep int) []pruneVerdict {
	sorted := slices.Clone(releases)
	slices.SortFunc(sorted, func(a, b resolve.Release) int {
		if c := resolve.Compare(b.Version, a.Version); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	seen := map[string]int{}
	var list []pruneVerdict
	for _, r := range sorted {
		group := resolve.Minor(r.Version) + " " + r.Platform
		seen[group]++
		v := pruneVerdict{name: r.Name}
		switch {
		case needed[r.Name] != "":
			v.reason = needed[r.Name]
		case seen[group] <= keep:
			v.reason = fmt.Sprintf("one of the last %d of %s", keep, resolve.Minor(r.Version))
		case age > 0 && (r.Imported.IsZero() || now().Sub(r.Imported) < age):
			v.reason = "imported " + r.Imported.Format(time.DateOnly)
		default:
			v.prune, v.reason = true, "no project needs it"
		}
		list = append(list, v)
	}
	return list
}
