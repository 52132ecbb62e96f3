package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gofs "gofs/fs"
)

func newMountStatsCmd(g *globals) *cobra.Command {
	var asJSON, watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "mount-stats [DIR]",
		Short: "Show what a mount has done",
		Long: `Mount-stats asks the process that serves the mount at DIR for its counters:
requests of the kernel by kind, bytes read and decoded, what came from which
cache, files pushed ahead, blobs that failed their checksum, the hot layer.
Without DIR it is GOFS_MOUNT, the mount of the store, or the only one there is.

The mount itself is not touched, so it works on one that hangs. Only the user
who mounted and root may ask.

EXIT STATUS
  0  it answered
  1  there is no such mount, or it does not answer
  2  wrong usage`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return mountDirs(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if every <= 0 {
				return usagef("--interval %v: it must be more than 0", every)
			}
			dir := ""
			if len(args) > 0 {
				dir = args[0]
			}
			m, err := g.findMount(dir)
			if err != nil {
				return err
			}
			var before *gofs.Stats
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				st, err := mountStats(cmd.Context(), m)
				if watch && cmd.Context().Err() != nil {
					return nil // asked to end, not interrupted
				}
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(cmd, st)
				} else {
					err = printMountStats(cmd.OutOrStdout(), m, st, before)
				}
				if err != nil || !watch {
					return err
				}
				before = st
				select {
				case <-cmd.Context().Done():
					return nil
				case <-tick.C:
				}
			}
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVarP(&watch, "watch", "w", false, "print again and again, with the change since the time before")
	f.DurationVar(&every, "interval", 2*time.Second, "time between two with --watch")
	return cmd
}

// mountDirs lists the mounts for the shell.
func mountDirs() []string {
	mounts, _ := gofsMounts()
	var dirs []string
	for _, m := range mounts {
		dirs = append(dirs, m.dir)
	}
	return dirs
}

// mountStats asks anew each time, so that a watcher holds no place.
func mountStats(ctx context.Context, m mountPoint) (*gofs.Stats, error) {
	a, err := ask(ctx, m)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	st, err := a.Stats(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.dir, err)
	}
	return &st, nil
}

// printMountStats prints the counters, and what was added since before.
func printMountStats(out io.Writer, m mountPoint, st, before *gofs.Stats) error {
	if before != nil {
		fmt.Fprintf(out, "\n%s\n", time.Now().Format(time.TimeOnly))
	} else {
		before = st
	}
	line := func(what, n, change string) {
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  %-26s %10s  %s", what, n, change), " "))
	}
	row := func(what string, n, was uint64, form func(uint64) string) {
		change := ""
		if n > was {
			change = "+" + form(n-was)
		}
		line(what, form(n), change)
	}
	count := func(n uint64) string { return fmt.Sprint(n) }
	bytes := func(n uint64) string { return size(int64(n)) }

	fmt.Fprintf(out, "%s: %d versions of %s, generation %d, up %s, io %s\n",
		m.dir, st.Versions, m.source, st.Generation, st.Uptime.Round(time.Second), st.IO.Mode)
	for _, kind := range slices.Sorted(maps.Keys(st.Requests)) {
		if st.Requests[kind] > 0 {
			row("requests: "+kind, st.Requests[kind], before.Requests[kind], count)
		}
	}
	row("bytes given to READs", st.ReadBytes, before.ReadBytes, bytes)
	row("pushed ahead: files", st.Prefetch.Stores, before.Prefetch.Stores, count)
	row("pushed ahead: bytes", st.Prefetch.Bytes, before.Prefetch.Bytes, bytes)
	row("pushed ahead in vain", st.Prefetch.Unknown+st.Prefetch.Failed, before.Prefetch.Unknown+before.Prefetch.Failed, count)
	row("records decoded", st.Cache.Decodes, before.Cache.Decodes, count)
	row("bytes decoded", st.Cache.Decoded, before.Cache.Decoded, bytes)
	row("decoded cache: hits", st.Cache.Hits+st.Cache.Shared, before.Cache.Hits+before.Cache.Shared, count)
	row("decoded cache: holds", uint64(st.Cache.Bytes), uint64(before.Cache.Bytes), bytes)
	if st.IO.Mode == "passthrough" {
		row("opens passed through", st.IO.Passthrough, before.IO.Passthrough, count)
		row("opens not passed through", st.IO.Cached, before.IO.Cached, count)
	}
	if h, b := st.Hot, before.Hot; h != nil && b != nil {
		line("hot layer: takes", size(h.Bytes), "of "+size(h.Limit)+" in "+h.Place)
		row("hot layer: files", uint64(h.Files), uint64(b.Files), count)
		row("hot layer: READs served", h.Hits, b.Hits, count)
		row("hot layer: bytes served", h.HitBytes, b.HitBytes, bytes)
		row("hot layer: made", h.Made, b.Made, count)
		row("hot layer: checked again", h.Checked, b.Checked, count)
		row("hot layer: evicted", h.Evicted, b.Evicted, count)
		row("hot layer: damaged files", h.Corrupt, b.Corrupt, count)
		row("hot layer: failures", h.Failures, b.Failures, count)
	}
	row("integrity failures", st.Damaged, before.Damaged, count)
	row("other read failures", st.Failures, before.Failures, count)
	if st.Supervised {
		row("restarts", uint64(st.Restarts), uint64(before.Restarts), count)
	}
	row("reloads", st.Reloads, before.Reloads, count)
	if st.ReloadErrors > 0 {
		row("failed reloads", st.ReloadErrors, before.ReloadErrors, count)
	}
	if st.Refused > 0 {
		row("askers refused", st.Refused, before.Refused, count)
	}
	if st.Hot != nil && st.Hot.Error != "" {
		_, err := fmt.Fprintf(out, "the hot layer fails: %s\n", st.Hot.Error)
		return err
	}
	return nil
}
