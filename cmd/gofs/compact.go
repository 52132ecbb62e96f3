package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gofs/blobstore"
	"gofs/index"
	"gofs/index/compact"
)

func newCompactCmd(g *globals) *cobra.Command {
	var level, maxDepth, workers int
	var quick []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Store the releases in less room",
		Long: `Compact encodes what the store holds anew, for density: programs as deltas of
the same programs of a neighbouring release, sources with those of one as
dictionary. Twelve releases that took 657 MB as imported take 144.

Mounts, imports and removals go on meanwhile. Compact may be interrupted at any
moment and loses only the release under way; the next compact goes on from
there, and one that finds nothing to do ends at once.

A program of a compacted store takes 30 to 200 ms to decode, so the first build
after a start takes up to twice as long. --quick VERSION stores what builds with
that release run and read in a form that is read quickly, for some 28 MB a
release. Later compactions leave it so, until --quick names others, or none;
gofs stats says which are.

What was encoded with the same --level or a higher one stays as it is: another
--max-depth is for what is imported later. Each release is written anew before
what it replaces is removed; on a full disk gofs rm and gofs gc make room.

EXIT STATUS
  0  the store is compact
  1  it is not, or not all of it, but whole
  2  wrong usage`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("compact is for the whole store (--quick %s has a release be read quickly, see gofs compact --help)", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if level < 1 || level > int(blobstore.MaxEffort) {
				return usagef("--level %d: not 1 to %d", level, blobstore.MaxEffort)
			}
			if maxDepth < 3 || maxDepth > blobstore.MaxDepth {
				return usagef("--max-depth %d: not 3 to %d", maxDepth, blobstore.MaxDepth)
			}
			if workers < 0 {
				return usagef("--workers %d: not a number of files", workers)
			}
			s, err := g.openStore()
			if err != nil {
				return err
			}
			o := compact.Options{Effort: blobstore.Effort(level), MaxDepth: maxDepth, Workers: workers}
			if cmd.Flags().Changed("quick") {
				if o.Quick, err = quickVersions(s, quick); err != nil {
					return err
				}
			}
			hugeHeap()
			r, err := g.compact(cmd, s, o)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, struct {
					*compact.Result
					Seconds float64 `json:"seconds"`
				}{r, r.Elapsed.Seconds()})
			}
			return g.reportCompact(cmd, r)
		},
	}
	cmd.Flags().IntVar(&level, "level", 2, "effort: 1 is quicker, 3 denser")
	cmd.Flags().IntVar(&maxDepth, "max-depth", compact.DefaultMaxDepth, "follow at most `N` bases to read a file")
	cmd.Flags().IntVar(&workers, "workers", 0, "encode `N` files at a time (0: one for each processor)")
	cmd.Flags().StringSliceVar(&quick, "quick", nil, "store what builds with `VERSION`s need so that it is read quickly, and of no others; or none")
	_ = cmd.RegisterFlagCompletionFunc("quick", g.completeVersions) // fails for a flag that is not there
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// quickVersions finds the versions that --quick names, by name or alias. What it
// returns is never nil.
func quickVersions(s *index.Store, args []string) ([]string, error) {
	names := []string{}
	for i := range args {
		args[i] = strings.TrimSpace(args[i])
	}
	args = slices.DeleteFunc(args, func(name string) bool { return name == "" })
	if len(args) == 0 {
		return nil, usagef("--quick names no version (none stands for that)")
	}
	if slices.Contains(args, "none") {
		if len(args) > 1 {
			return nil, usagef("--quick none goes with no version")
		}
		return names, nil
	}
	versions, err := s.Versions()
	if err != nil {
		return nil, err
	}
	list, err := findVersions(versions, args)
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names, err
}

// compactMemory is what the garbage collector keeps a compaction below, if it
// can, beside its cache: two programs with their bases and the tables of two encoders.
const compactMemory = 1000 << 20

func (g *globals) compact(cmd *cobra.Command, s *index.Store, o compact.Options) (*compact.Result, error) {
	limitFor(s, compactMemory)
	defer limitFor(s, storeMemory)
	verb := "compact"
	if o.Rebase {
		verb = "gc"
	}
	b := g.newBar(cmd, -1, verb)
	defer b.clear()
	if o.Lock.Verb == "" {
		// Between two releases there is nothing to lose by waiting, so nobody is told.
		o.Lock = index.LockOptions{Verb: "compact"}
	}
	o.Progress = func(done, total int64) {
		b.total(max(total, 1))
		b.set(done)
	}
	r, err := compact.Run(cmd.Context(), s, o)
	if err != nil && !o.Rebase {
		err = resumable{err}
	}
	return r, roomHint(err)
}

func (g *globals) reportCompact(cmd *cobra.Command, r *compact.Result) error {
	if g.quiet {
		return nil
	}
	if r.Records == 0 {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "the store is compact already (%s)\n", size(r.After))
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "compacted %s to %s in %v\n", size(r.Before), size(r.After), r.Elapsed.Round(time.Second))
	return err
}

// readAfter reads after how many imports to compact: --compact-after or the environment
// says so.
func (c *importCmd) readAfter() error {
	if text := os.Getenv("GOFS_COMPACT_AFTER"); text != "" && !c.cmd.Flags().Changed("compact-after") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return usagef("GOFS_COMPACT_AFTER=%s: not a number of releases (0 is never)", text)
		}
		c.after = n
	}
	if c.after < 0 {
		return usagef("--compact-after %d: not a number of releases (0 is never)", c.after)
	}
	return nil
}

// compactNow compacts after an import if --compact says so, or if as many
// releases have been imported as it takes.
func (c *importCmd) compactNow(ctx context.Context) error {
	if !c.compact {
		if c.after <= 0 {
			return nil
		}
		n, err := compact.Pending(ctx, c.store)
		if err != nil || n < c.after {
			return err
		}
	}
	c.bar.clear()
	r, err := c.g.compact(c.cmd, c.store, compact.Options{})
	if err != nil || c.json {
		return err
	}
	return c.g.reportCompact(c.cmd, r)
}
