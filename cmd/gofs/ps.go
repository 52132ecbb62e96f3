package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gofs/doctor"
)

func newPsCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List running programs that Go built, and by which version",
		Long: `ps lists each of your processes whose program is a go tool or was built by
Go: the version that built it, from its build info, the release it belongs to,
and whether GOROOT in its environment fits. Processes of other users are
counted, not shown. With --quiet only those that do not fit are.

EXIT STATUS
  0 all fit; 1 one does not; 2 wrong usage`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, others, err := doctor.Processes()
			if err != nil {
				return fmt.Errorf("listing processes: %w", err)
			}
			bad := 0
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if !g.quiet {
				fmt.Fprintln(w, "PID\tBUILT BY\tRELEASE\tMISMATCH\tPROGRAM")
			}
			for _, p := range list {
				if p.Mismatch != "" {
					bad++
				} else if g.quiet {
					continue
				}
				fmt.Fprintf(w, "%d\tgo %s\t%s\t%s\t%s\n", p.PID, p.BuiltBy, orDash(p.Release), orDash(p.Mismatch), p.Exe)
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
					Processes []doctor.Process `json:"processes"`
					Others    int              `json:"others"`
				}{list, others})
			} else if err = w.Flush(); err == nil && !g.quiet {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d processes of other users left out\n", others)
			}
			if err == nil && bad > 0 {
				err = exitStatus(exitFailed)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
