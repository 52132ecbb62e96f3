package main

import (
	"fmt"
	"io"
	"strconv"

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
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%d versions, %d files\n", len(st.Versions), st.Files)
	rows := [][]string{}
	for _, l := range []struct {
		what string
		n    int64
	}{
		{"unpacked", st.Plain},
		{"identical files kept once", st.FileDedup},
		{"identical blobs kept once", st.BlobDedup},
		{"compressed, in packs", st.Packs},
		{"of these unused", st.Unused},
		{"index", st.Index},
		{"store in all", st.Store},
	} {
		rows = append(rows, []string{l.what, size(l.n), percent(l.n, st.Plain)})
	}
	printTable(out, rows)
	rows = [][]string{{"TECHNIQUE", "RECORDS", "PLAIN", "STORED", "SAVES"}}
	for _, d := range []struct {
		what          string
		plain, stored int64
	}{
		{"identical files", st.Plain, st.FileDedup},
		{"identical blobs", st.FileDedup, st.BlobDedup},
	} {
		rows = append(rows, []string{d.what, "", size(d.plain), size(d.stored), size(d.plain - d.stored)})
	}
	for _, e := range st.Encodings {
		rows = append(rows, []string{e.Name, strconv.Itoa(e.Records), size(e.Plain), size(e.Stored), size(e.Saved)})
	}
	printTable(out, rows)
	rows = [][]string{{"CHAIN OF BASES", "RECORDS", "STORED"}}
	for _, c := range st.Chains {
		rows = append(rows, []string{strconv.Itoa(c.Depth), strconv.Itoa(c.Records), size(c.Stored)})
	}
	printTable(out, rows)
	rows = [][]string{{"VERSION", "SIZE", "UNIQUE", "STORED", "RM FREES", "QUICK"}}
	for _, v := range st.Versions {
		rows = append(rows, []string{v.Name, size(v.Bytes), size(v.Unique), size(v.Stored), size(v.Frees), yesNo(v.Quick)})
	}
	printTable(out, rows)
	return nil
}

// printTable prints rows with the first column to the left and the numbers
// that follow to the right, and a blank line behind it.
func printTable(out io.Writer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], len(cell))
		}
	}
	for _, r := range rows {
		fmt.Fprintf(out, "%-*s", width[0], r[0])
		for i, cell := range r[1:] {
			fmt.Fprintf(out, "  %*s", width[i+1], cell)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out)
}
