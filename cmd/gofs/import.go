package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gofs/importer"
	"gofs/importer/provenance"
	"gofs/importer/source"
	"gofs/index"
)

type importCmd struct {
	g       *globals
	cmd     *cobra.Command
	as      string
	sha256  string
	maxSize string
	noWait  bool
	json    bool
	compact bool
	after   int // --compact-after
	needed  bool
	http    bool // --allow-http
	mount   string
	verify  string

	store *index.Store
	sums  *provenance.Database // nil if nobody is to be asked
	bar   *bar
	past  int64 // bytes of the sources that are done
	total int64 // bytes of all sources, as far as they are known
}

func newImportCmd(g *globals) *cobra.Command {
	c := &importCmd{g: g}
	cmd := &cobra.Command{
		Use:   "import SRC... | --needed",
		Short: "Bring releases into the store",
		Long: `Import brings releases into the store. A SRC is

  go1.23.3.linux-amd64.tar.gz   a release tarball; - reads one from standard input
  go1.23.3.windows-amd64.zip    a release's or a toolchain module's zip
  /usr/local/go                 an unpacked GOROOT
  https://HOST/PATH             any of these archives; from another machine plain
                                http only with --allow-http
  1.23.3, go1.24rc1             a release, by name
  1.23, stable, oldstable       the newest patch of 1.23, of the newest minor, of
                                the one before it
  1.23.3.darwin-arm64           a release for another platform

Releases by name come from the module proxy that the go command is configured
for (GOPROXY, go env -w, go.env), or from go.dev/dl where none is.

With --needed it is the release that the working directory asks for (see gofs
which), unless that is here.

Each release is looked up in the Go checksum database, which GOSUMDB, GOPROXY,
GONOSUMDB and GOPRIVATE configure as for the go command. What the database has
another hash for is never imported. What it does not list, or gives no answer
for within ten seconds, is imported with a warning; --verify=require refuses
it, and --verify=off asks nobody.

Content that the store has already is not stored again. A release that it has
already changes nothing. An import that fails or is interrupted leaves the
store as it was.

EXIT STATUS
  0  all sources are in the store
  1  one could not be imported; those before it were
  2  wrong usage`,
		Args: func(cmd *cobra.Command, args []string) error {
			if c.needed {
				return usageArgs(cobra.NoArgs)(cmd, args)
			}
			return usageArgs(cobra.MinimumNArgs(1))(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.needed {
				version, err := neededRelease(g, c.mount)
				if err != nil || version == "" {
					return err
				}
				args = []string{version}
			}
			return c.run(cmd.Context(), args)
		},
	}
	c.cmd = cmd
	cmd.Flags().StringVar(&c.as, "as", "", "name the version `NAME` instead of what its VERSION file says")
	cmd.Flags().StringVar(&c.sha256, "sha256", "", "fail unless the archive has this SHA-256 (`HEX`)")
	cmd.Flags().BoolVar(&c.http, "allow-http", false, "take a plain http URL of another machine")
	cmd.Flags().StringVar(&c.maxSize, "max-size", "4GiB", "fail if the release unpacks to more than `SIZE`")
	cmd.Flags().StringVar(&c.verify, "verify", "auto", "ask the checksum database: auto, require or off (`MODE`)")
	if err := cmd.RegisterFlagCompletionFunc("verify", cobra.FixedCompletions([]string{"auto", "require", "off"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there
	}
	cmd.Flags().BoolVar(&c.noWait, "no-wait", false, "fail if another process writes to the store")
	cmd.Flags().BoolVar(&c.needed, "needed", false, "import what the working directory asks for, if it is not here")
	cmd.Flags().StringVar(&c.mount, "mount", "", "with --needed: where the releases are mounted")
	cmd.Flags().BoolVar(&c.compact, "compact", false, "compact the store afterwards (see gofs compact)")
	cmd.Flags().IntVar(&c.after, "compact-after", 0, "compact when `N` releases have been imported since (default $GOFS_COMPACT_AFTER, else never)")
	cmd.Flags().BoolVar(&c.json, "json", false, "print a JSON object for each source")
	return cmd
}

func (c *importCmd) run(ctx context.Context, args []string) error {
	if len(args) > 1 && (c.as != "" || c.sha256 != "") {
		return usagef("--as and --sha256 go with one source")
	}
	limit, err := humanize.ParseBytes(c.maxSize)
	if err != nil || limit == 0 || limit > 1<<60 {
		return usagef("--max-size %q: not a size like 4GiB", c.maxSize)
	}
	if !slices.Contains([]string{"auto", "require", "off"}, c.verify) {
		return usagef("--verify %q: not auto, require or off", c.verify)
	}
	if err := c.readAfter(); err != nil {
		return err
	}
	if c.store, err = c.g.createStore(ctx); err != nil {
		return err
	}
	hugeHeap()
	if c.verify != "off" {
		if c.sums, err = provenance.Open(provenance.Options{Store: c.store.Dir()}); err != nil {
			return fmt.Errorf("%w (--verify=off asks no checksum database)", err)
		}
	}
	for _, arg := range args {
		// What is not a local file counts once it has been opened.
		if st, err := os.Stat(arg); err == nil && st.Mode().IsRegular() {
			c.total += st.Size()
		}
	}
	c.bar = c.g.newBar(c.cmd, max(c.total, 1), "")
	defer c.bar.clear()
	for i, arg := range args {
		if err := c.one(ctx, arg, i, len(args), int64(limit)); err != nil {
			return roomHint(err)
		}
	}
	return c.compactNow(ctx)
}

func (c *importCmd) one(ctx context.Context, arg string, i, n int, limit int64) error {
	c.bar.describe(label(arg, i, n))
	if c.bar == nil && !c.g.quiet && !c.json {
		fmt.Fprintf(c.cmd.ErrOrStderr(), "importing %s\n", label(arg, i, n))
	}
	src, err := source.Open(ctx, arg, source.Options{
		MaxSize:   limit,
		Stdin:     c.cmd.InOrStdin(),
		SHA256:    c.sha256,
		TempDir:   c.store.PackDir(),
		Status:    c.note,
		AllowHTTP: c.http,
	})
	if err != nil {
		return err
	}
	defer src.Close()
	if st, err := os.Stat(arg); (err != nil || !st.Mode().IsRegular()) && src.Size() > 0 {
		c.total += src.Size()
	}
	c.bar.total(max(c.total, 1))

	stop := c.follow(src)
	lo := c.g.lockOptions(c.cmd, c.noWait)
	r, err := importer.Import(ctx, c.store, src, importer.Options{
		As: c.as, NoWait: lo.NoWait, Waiting: lo.Waiting,
		Checksums: c.sums, Require: c.verify == "require",
	})
	stop()
	if err != nil {
		return err
	}
	if !r.Existed {
		showChange(ctx, c.store.Dir())
	}
	c.past += src.Read()
	c.bar.clear()
	return c.report(r)
}

func label(arg string, i, n int) string {
	arg = source.Redact(arg)
	if n == 1 {
		return arg
	}
	return fmt.Sprintf("%s (%d of %d)", arg, i+1, n)
}

func (c *importCmd) note(text string) {
	if !c.g.quiet {
		c.bar.clear()
		fmt.Fprintln(c.cmd.ErrOrStderr(), text)
	}
}

// follow shows how much of a source has been read, until stop is called.
func (c *importCmd) follow(src source.Source) (stop func()) {
	if c.bar == nil {
		return func() {}
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.bar.set(min(c.past+src.Read(), max(c.total-1, 0)))
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (c *importCmd) report(r *importer.Result) error {
	if c.json {
		return json.NewEncoder(c.cmd.OutOrStdout()).Encode(struct {
			Version index.Version `json:"version"`
			Existed bool          `json:"existed"`
			Proved  bool          `json:"proved,omitempty"`
			Bytes   int64         `json:"bytes"`
			New     int64         `json:"new"`
			Stored  int64         `json:"stored"`
			Seconds float64       `json:"seconds"`
			Warning string        `json:"warning,omitempty"`
		}{r.Version, r.Existed, r.Proved, r.Bytes, r.New, r.Stored, r.Elapsed.Seconds(), r.Warning})
	}
	if c.g.quiet {
		return nil
	}
	if r.Warning != "" {
		fmt.Fprintf(c.cmd.ErrOrStderr(), "warning: %s\n", r.Warning)
	}
	if r.Proved {
		_, err := fmt.Fprintf(c.cmd.OutOrStdout(), "%s is in the store already, proved now\n", r.Version.Name)
		return err
	}
	if r.Existed {
		_, err := fmt.Fprintf(c.cmd.OutOrStdout(), "%s is in the store already, nothing changed\n", r.Version.Name)
		return err
	}
	_, err := fmt.Fprintf(c.cmd.OutOrStdout(), "%s: %s in %d files, %s new, %s stored, %.1f s\n",
		r.Version.Name, size(r.Bytes), r.Version.Files, size(r.New), size(r.Stored), r.Elapsed.Seconds())
	return err
}
