package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gofs/resolve"
)

func newWhichCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var verbose, asJSON bool
	cmd := &cobra.Command{
		Use:   "which [VERSION]",
		Short: "Print the GOROOT that is used here, and why",
		Long: `which prints the GOROOT of the release that the rules pick in the working
directory. The first of these that names a version decides:

  GOFS_VERSION, go.work, then in the nearest directory upwards go.mod,
  .go-version, .tool-versions and mise.toml, the user's default, the system's.

A go line without a toolchain line is a minimum: the newest imported patch of
that minor, else the least newer release.

EXIT STATUS
  0 a release was found; 1 none, or two rules conflict; 2 wrong usage`,
		Example: "  gofs which\n  gofs which -v\n  gofs which '>=1.22 <1.24'",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			choice, err := c.choose(optional(args))
			out := cmd.OutOrStdout()
			if asJSON {
				if err != nil {
					return err
				}
				return json.NewEncoder(out).Encode(struct {
					GOROOT  string         `json:"goroot"`
					Version string         `json:"version"`
					Rule    string         `json:"rule"`
					Where   string         `json:"where"`
					Steps   []resolve.Step `json:"steps"`
				}{choice.GOROOT, choice.Release.Version, choice.Rule.Rule, choice.Rule.Where, choice.Steps})
			}
			if verbose {
				if err := printSteps(out, choice, err == nil); err != nil {
					return err
				}
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, choice.GOROOT)
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print every rule that was tried and what it found")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printSteps prints the rules as a table; "=>" marks the one that decided.
func printSteps(out io.Writer, c resolve.Choice, decided bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range c.Steps {
		mark := "  "
		if decided && s.Where != "" && s.Where == c.Rule.Where {
			mark = "=>"
		}
		fmt.Fprintf(w, "%s %s\t%s", mark, s.Rule, s.What)
		if s.Where != "" {
			fmt.Fprintf(w, "\t%s", s.Where)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
