package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gofs/importer/provenance"
	"gofs/index"
)

func newLsCmd(g *globals) *cobra.Command {
	var long, asJSON bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the releases in the store",
		Long: `Ls lists the releases in the store, oldest release first.

With -l also how many bytes no other release shares (UNIQUE), the room that
all of a release's content takes in the packs (STORED), what proved that it is
what the Go project released (PROVENANCE), and when and from where it was
imported.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.openStore()
			if errors.Is(err, index.ErrNoStore) {
				if asJSON {
					fmt.Fprintln(cmd.OutOrStdout(), "[]")
				}
				if !g.quiet {
					fmt.Fprintf(cmd.ErrOrStderr(), "gofs: %v\n", err)
				}
				return nil
			}
			if err != nil {
				return err
			}
			if long {
				return lsLong(cmd, s, asJSON)
			}
			versions, err := s.Versions()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, append([]index.Version{}, versions...))
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "VERSION\tPLATFORM\tSIZE\tFILES\tIMPORTED")
			for _, v := range versions {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", v.Name, printable(v.Platform), size(v.Bytes), v.Files, v.Imported.Local().Format(time.DateTime))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "also unique and stored bytes, the provenance and the source")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func lsLong(cmd *cobra.Command, s *index.Store, asJSON bool) error {
	versions, err := s.Versions()
	if err != nil {
		return err
	}
	stats, err := s.Stats(cmd.Context())
	if err != nil {
		return err
	}
	use := map[string]index.VersionStats{}
	for _, v := range stats.Versions {
		use[v.Name] = v
	}
	if asJSON {
		type row struct {
			index.Version
			Unique int64 `json:"unique"`
			Stored int64 `json:"stored"`
		}
		rows := []row{}
		for _, v := range versions {
			rows = append(rows, row{v, use[v.Name].Unique, use[v.Name].Stored})
		}
		return printJSON(cmd, rows)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tPLATFORM\tSIZE\tFILES\tUNIQUE\tSTORED\tPROVENANCE\tIMPORTED\tFROM")
	for _, v := range versions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", v.Name, printable(v.Platform), size(v.Bytes), v.Files,
			size(use[v.Name].Unique), size(use[v.Name].Stored), printable(cmp.Or(v.Provenance, provenance.Unverified)), v.Imported.Local().Format(time.DateTime), printable(v.Source))
	}
	return w.Flush()
}

func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}
