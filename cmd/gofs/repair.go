package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gofs/importer"
	"gofs/importer/source"
	"gofs/index"
)

func newRepairCmd(g *globals) *cobra.Command {
	var asJSON, noWait, ofIndex bool
	cmd := &cobra.Command{
		Use:   "repair [SRC...]",
		Short: "Mend damaged content from another source",
		Long: `Repair reads all that is stored and mends what is damaged or lost with the same
content from a SRC: the folder of another store, or anything that gofs import
takes (a tarball, a folder, a version). Without one it fetches the releases
that are hit by their names. What the store has a second time, as programs
that are stored quickly, needs none.

Only content with the SHA-256 of what is missing is taken, so a SRC need not be
trusted. Packs that hold damage are written anew; what was stored as a difference
to something damaged is then stored plainly, until gofs compact makes it small
again. A store that is sound is left as it is.

Repair needs the index to be whole. With --index it makes the index anew from
the packs, unless it is whole. Mounts go on, and take the releases for new ones:
their inode numbers are others. What it cannot bring back it names; gofs repair
SRC and gofs import mend that.

EXIT STATUS
  0  all is sound
  1  something could not be mended or looked at
  2  wrong usage`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if ofIndex && len(args) > 0 {
				return usagef("--index takes no SRC: it reads the packs only (see gofs repair --help)")
			}
			s, err := g.openStore()
			if err != nil {
				return err
			}
			if ofIndex {
				return rebuildIndex(cmd, g, s, asJSON, noWait)
			}
			r, err := importer.NewRepair(cmd.Context(), s, g.lockOptions(cmd, noWait))
			if err != nil {
				return err
			}
			defer r.Close()
			mend(cmd, g, s, r, args)
			if err := cmd.Context().Err(); err != nil {
				return context.Cause(cmd.Context())
			}
			left := r.Versions(cmd.Context())
			res, err := r.Commit(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				if err := printJSON(cmd, res); err != nil {
					return err
				}
			} else if !g.quiet {
				printRepair(cmd, r.Sound(), res)
			}
			if n := r.Missing(); n > 0 {
				return fmt.Errorf("%d damaged blobs could not be mended, which hits %s (gofs repair SRC takes them from another store or archive)",
					n, strings.Join(importer.RepairSources(left), ", "))
			}
			noteDamage(s, &index.VerifyReport{})
			return nil
		},
	}
	cmd.Flags().BoolVar(&ofIndex, "index", false, "make the index anew from the packs")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "fail if another process writes to the store")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// rebuildIndex makes the index anew and says what is there and what is not.
func rebuildIndex(cmd *cobra.Command, g *globals, s *index.Store, asJSON, noWait bool) error {
	b := g.newBar(cmd, -1, "verify")
	r, err := s.Rebuild(cmd.Context(), g.lockOptions(cmd, noWait), index.VerifyOptions{Total: b.total, Progress: b.add})
	b.clear()
	if err != nil {
		return err
	}
	if r.Verify != nil {
		noteDamage(s, r.Verify)
	}
	if asJSON {
		if err := printJSON(cmd, r); err != nil {
			return err
		}
	} else {
		printRebuild(cmd, g, r)
	}
	if !r.OK() {
		return exitStatus(exitFailed)
	}
	return nil
}

func printRebuild(cmd *cobra.Command, g *globals, r *index.RebuildReport) {
	out := cmd.OutOrStdout()
	if r.Sound {
		if !g.quiet {
			fmt.Fprintln(out, "the index is whole, nothing to make anew")
		}
		return
	}
	for _, l := range r.Lost {
		fmt.Fprintf(out, "lost: %s: %s (gofs import brings it back)\n", l.Version, l.Error)
	}
	if !g.quiet {
		fmt.Fprintf(out, "index made anew from %d packs: %s\n", r.Verify.Packs, cmp.Or(strings.Join(r.Versions, ", "), "no versions"))
	}
	printVerify(cmd, g, r.Verify)
}

// mend tries one source after the other until nothing is missing. That one
// cannot be used matters only if something is missing in the end.
func mend(cmd *cobra.Command, g *globals, s *index.Store, r *importer.Repair, sources []string) {
	ctx := cmd.Context()
	if len(sources) == 0 {
		sources = importer.RepairSources(r.Versions(ctx))
	}
	for _, arg := range sources {
		if r.Missing() == 0 || ctx.Err() != nil {
			break
		}
		if !g.quiet {
			fmt.Fprintf(cmd.ErrOrStderr(), "taking from %s\n", source.Redact(arg))
		}
		if err := mendFrom(cmd, s, r, arg); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %v\n", err)
		}
	}
}

func mendFrom(cmd *cobra.Command, s *index.Store, r *importer.Repair, arg string) error {
	if other, err := index.Open(arg); err == nil {
		return r.FromStore(cmd.Context(), other)
	}
	// Plain http is as good as https where only the right bytes are taken.
	src, err := source.Open(cmd.Context(), arg, source.Options{Stdin: cmd.InOrStdin(), TempDir: s.PackDir(), AllowHTTP: true})
	if err != nil {
		return err
	}
	defer src.Close()
	return r.FromSource(cmd.Context(), src)
}

func printRepair(cmd *cobra.Command, sound bool, res *importer.RepairResult) {
	out := cmd.OutOrStdout()
	if sound {
		fmt.Fprintln(out, "all sound, nothing to mend")
		return
	}
	fmt.Fprintf(out, "%d of %d damaged blobs mended, %d packs written anew (%s)\n", res.Mended, res.Damaged, res.Dropped, size(res.Stored))
}
