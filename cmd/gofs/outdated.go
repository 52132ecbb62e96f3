package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gofs/resolve"
)

func newOutdatedCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "outdated",
		Short: "List imported minors that have newer patches",
		Long: `outdated compares the newest imported patch of each minor with the newest
that can be imported, and prints those that differ, the newest minor first.

EXIT STATUS
  0 printed, also when there is nothing to print; 1 no list of releases;
  2 wrong usage`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := c.present()
			if err != nil {
				return err
			}
			remote, err := remoteReleases(cmd.Context(), g)
			if err != nil {
				return err
			}
			list := outdated(in.Releases, remote)
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for i, o := range list {
				if i == 0 {
					fmt.Fprintln(w, "MINOR\tHERE\tNEWEST\tSUPPORTED\tCOMMAND")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\tgofs import %s\n", o.Minor, o.Here, o.Newest, yesNo(o.Supported), o.Newest)
			}
			return w.Flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

type outdatedMinor struct {
	Minor     string `json:"minor"`
	Here      string `json:"here"`
	Newest    string `json:"newest"`
	Supported bool   `json:"supported"`
}

func outdated(here, remote []resolve.Release) []outdatedMinor {
	newest, still := newestPatches(remote), supported(remote)
	list := []outdatedMinor{}
	for minor, v := range newestPatches(plain(here)) {
		if n := newest[minor]; n != "" && resolve.Compare(n, v) > 0 {
			list = append(list, outdatedMinor{minor, v, n, slices.Contains(still, minor)})
		}
	}
	slices.SortFunc(list, func(a, b outdatedMinor) int { return resolve.Compare(b.Minor, a.Minor) })
	return list
}

// plain leaves out the releases under names of the user's.
func plain(list []resolve.Release) []resolve.Release {
	return slices.DeleteFunc(slices.Clone(list), func(r resolve.Release) bool {
		return r.Name != r.Version
	})
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
