package main

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"gofs/index"
)

func newDiffCmd(g *globals) *cobra.Command {
	var asJSON, short bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "List the files that differ between two releases",
		Long: `Diff lists what B has that A has not (A), what A has and B has not (D), what
differs (M), and of what only the mode differs (m), with the size of each file
and the room that it takes in the packs. For a change these are the sizes in B.

Room that several files take together counts for each by its size, and that of
the bases a file is stored as a delta of is not counted.`,
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: g.completeVersions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && short {
				return usagef("--summary does not go with --json, which has all (see gofs diff --help)")
			}
			s, err := g.openStore()
			if err != nil {
				return err
			}
			d, err := s.Diff(cmd.Context(), args[0], args[1])
			if errors.Is(err, index.ErrNoVersion) {
				return fmt.Errorf("%w (gofs ls lists what is)", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, d)
			}
			return printDiff(cmd, d, short)
		},
	}
	cmd.Flags().BoolVarP(&short, "summary", "s", false, "only the sums")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printDiff(cmd *cobra.Command, d *index.Diff, short bool) error {
	w := bufio.NewWriter(cmd.OutOrStdout())
	line := func(what string, plain, stored int64, path string) {
		if !short {
			fmt.Fprintf(w, "%s %10s %10s  %s\n", what, size(plain), size(stored), printable(path))
		}
	}
	sum := func(what string, n int, plain, stored int64) {
		fmt.Fprintf(w, "%s %d files, %s, stored in %s\n", what, n, size(plain), size(stored))
	}
	var added, removed, changed index.DiffSize
	for _, f := range d.Added {
		line("A", f.Plain, f.Stored, f.Path)
		added.Plain += f.Plain
		added.Stored += f.Stored
	}
	for _, f := range d.Removed {
		line("D", f.Plain, f.Stored, f.Path)
		removed.Plain += f.Plain
		removed.Stored += f.Stored
	}
	for _, c := range d.Changed {
		what := "M"
		if !c.Bytes {
			what = "m"
		}
		line(what, c.New.Plain, c.New.Stored, c.Path)
		changed.Plain += c.New.Plain
		changed.Stored += c.New.Stored
	}
	fmt.Fprintf(w, "from %s to %s:\n", d.From, d.To)
	sum("added  ", len(d.Added), added.Plain, added.Stored)
	sum("removed", len(d.Removed), removed.Plain, removed.Stored)
	sum("changed", len(d.Changed), changed.Plain, changed.Stored)
	fmt.Fprintf(w, "alike   %d files\n", d.Same)
	return w.Flush()
}
