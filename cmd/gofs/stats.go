package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gofs/index"
)

func newStatsCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show what deduplication and compression save",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.openStore()
			if err != nil {
				return err
			}
			st, err := s.Stats(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, st)
			}
			return printStats(cmd, st)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStats(cmd *cobra.Command, st *index.Stats) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(what string, n int64) {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", what, size(n), percent(n, st.Plain))
	}
	fmt.Fprintf(w, "%d versions, %d files\t\t\t\n", len(st.Versions), st.Files)
	line("unpacked", st.Plain)
	line("identical files kept once", st.FileDedup)
	line("identical blobs kept once", st.BlobDedup)
	line("compressed, in packs", st.Packs)
	line("of these unused", st.Unused)
	line("index", st.Index)
	line("store in all", st.Store)
	fmt.Fprintln(w, "\t\t\t")
	fmt.Fprintln(w, "ENCODING\tRECORDS\tPLAIN\tSTORED\t")
	for _, e := range st.Encodings {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t\n", e.Name, e.Records, size(e.Plain), size(e.Stored))
	}
	fmt.Fprintln(w, "\t\t\t")
	fmt.Fprintln(w, "CHAIN OF BASES\tRECORDS\tSTORED\t")
	for _, c := range st.Chains {
		fmt.Fprintf(w, "%d\t%d\t%s\t\n", c.Depth, c.Records, size(c.Stored))
	}
	fmt.Fprintln(w, "\t\t\t")
	fmt.Fprintln(w, "VERSION\tSIZE\tUNIQUE\tSTORED\tRM FREES\t")
	for _, v := range st.Versions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", v.Name, size(v.Bytes), size(v.Unique), size(v.Stored), size(v.Frees))
	}
	return w.Flush()
}
