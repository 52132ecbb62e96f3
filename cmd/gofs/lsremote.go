package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gofs/resolve"
)

func newLsRemoteCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls-remote",
		Short: "List the releases that can be imported",
		Long: `ls-remote lists what the configured source offers for this machine, the
newest first: which releases are imported already, and which belong to a minor
that the Go team does not support any more (all but the newest two).

EXIT STATUS
  0 printed; 1 no list of releases; 2 wrong usage`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			remote, err := remoteReleases(cmd.Context(), g)
			if err != nil {
				return err
			}
			in, err := c.present()
			if err != nil {
				return err
			}
			list := remoteList(in.Releases, remote)
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "VERSION\tHERE\tSUPPORTED")
			for _, r := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Version, yesNo(r.Here), yesNo(r.Supported))
			}
			return w.Flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

type remoteRelease struct {
	Version   string `json:"version"`
	Here      bool   `json:"here"`
	Supported bool   `json:"supported"`
}

func remoteList(here, remote []resolve.Release) []remoteRelease {
	have := map[string]bool{}
	for _, r := range plain(here) {
		have[r.Version] = r.Platform == resolve.HostPlatform
	}
	still := supported(remote)
	list := []remoteRelease{}
	for _, r := range remote {
		if r.Platform == resolve.HostPlatform {
			m := resolve.Minor(r.Version)
			// A prerelease of the coming minor is newer than the supported ones.
			ok := slices.Contains(still, m) || len(still) > 0 && resolve.Compare(m, still[0]) > 0
			list = append(list, remoteRelease{r.Version, have[r.Version], ok})
		}
	}
	slices.SortFunc(list, func(a, b remoteRelease) int { return resolve.Compare(b.Version, a.Version) })
	return slices.Compact(list)
}
