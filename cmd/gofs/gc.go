package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"gofs/index"
	"gofs/index/compact"
)

func newGcCmd(g *globals) *cobra.Command {
	var noWait, dryRun, keepBases, asJSON bool
	var maxUnused float64
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free the room of removed releases",
		Long: `Gc removes what no release needs: packs without a use, the unused parts of
others, and what interrupted imports left behind. Running mounts keep reading
what they have.

After gofs compact a release may be stored as a delta of one that has been
removed since. Gc encodes it anew from releases that are there, if that takes
less room than to keep the base.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if maxUnused < 0 || maxUnused > 100 {
				return usagef("--max-unused %v: not a percentage", maxUnused)
			}
			s, err := g.openStore()
			if err != nil {
				return err
			}
			w, err := s.Lock(cmd.Context(), g.lockOptions(cmd, noWait))
			if err != nil {
				return err
			}
			defer w.Close()
			b := g.newBar(cmd, -1, "gc")
			r, err := w.GC(cmd.Context(), index.GCOptions{MaxUnused: maxUnused / 100, DryRun: dryRun, Progress: func(done, total int64) {
				b.total(total)
				b.set(done)
			}})
			b.clear()
			if err != nil {
				return roomHint(err)
			}
			if r.Bases > 0 && !dryRun && !keepBases {
				if err := w.Close(); err != nil {
					return err
				}
				if err := g.rebase(cmd, s, r, noWait); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd, r)
			}
			if g.quiet {
				return nil
			}
			verb := "freed"
			if dryRun {
				verb = "would free"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %d packs removed, %d rewritten, %d of garbage; %s unused left, %s kept as bases\n",
				verb, size(r.Freed), r.Removed, r.Rewritten, r.Garbage, size(r.Unused), size(r.Bases))
			return err
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "fail if another process writes to the store")
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only say what would be done")
	cmd.Flags().Float64Var(&maxUnused, "max-unused", 0, "leave packs alone of which at most this `PERCENT` is unused")
	cmd.Flags().BoolVar(&keepBases, "keep-bases", false, "do not encode anew what is stored as a delta of removed releases")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// rebase encodes anew what has bases in releases that are gone.
func (g *globals) rebase(cmd *cobra.Command, s *index.Store, r *index.GCResult, noWait bool) error {
	hugeHeap()
	c, err := g.compact(cmd, s, compact.Options{Rebase: true, Lock: g.lockOptions(cmd, noWait)})
	if err != nil {
		return err
	}
	r.Freed += c.Before - c.After
	r.Bases = c.Bases
	return nil
}
