package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gofs/index"
)

// openStore opens the store for a verb that only reads. A store that is not
// there yet is one without versions.
func (g *globals) openStore() (*index.Store, error) {
	dir, err := g.storeDir()
	if err != nil {
		return nil, err
	}
	s, err := index.Open(dir)
	if errors.Is(err, index.ErrNoStore) {
		return nil, fmt.Errorf("%w (gofs import VERSION makes it, --store names another)", err)
	}
	if err != nil {
		return nil, err
	}
	limitFor(s, storeMemory)
	return s, nil
}

// createStore opens the store for a verb that makes it on first use.
func (g *globals) createStore(ctx context.Context) (*index.Store, error) {
	dir, err := g.storeDir()
	if err != nil {
		return nil, err
	}
	mounts, err := gofsMounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if within(dir, m.dir) {
			return nil, fmt.Errorf("store %s lies inside the mount at %s, which only shows stores (use --store)", dir, m.dir)
		}
	}
	limitMemory(importMemory)
	return index.Create(ctx, dir)
}

// within says whether path is dir or lies below it, once the links in what
// there is of both have been followed.
func within(path, dir string) bool {
	path, dir = realPath(path), realPath(dir)
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent, base := filepath.Split(filepath.Clean(path))
	if parent == "" || parent == path {
		return path
	}
	return filepath.Join(realPath(filepath.Clean(parent)), base)
}

// lockOptions say to the user that another process has to be waited for.
func (g *globals) lockOptions(cmd *cobra.Command, noWait bool) index.LockOptions {
	return index.LockOptions{Verb: cmd.Name(), NoWait: noWait, Waiting: func(holder string) {
		if !g.quiet {
			fmt.Fprintf(cmd.ErrOrStderr(), "waiting for %s to finish with the store (--no-wait fails instead)\n", holder)
		}
	}}
}

// completeVersions offers the names of the versions in the store.
func (g *globals) completeVersions(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := g.openStore()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	versions, err := s.Versions()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, v := range versions {
		names = append(names, v.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// size prints bytes for people, in decimal units: 76.9 MB.
func size(n int64) string {
	const unit = 1000
	if n < unit && n > -unit {
		return fmt.Sprintf("%d B", n)
	}
	v, u := humanize.ComputeSI(float64(n))
	return fmt.Sprintf("%.1f %sB", v, u)
}

// printable is s with what a terminal would act on written as in Go source:
// names, and what an index says, may come from people who mean no good.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// percent prints part as a share of all.
func percent(part, all int64) string {
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(all))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// newBar returns a progress bar over total bytes (-1 unknown) on standard
// error, or nil where that is no terminal or nothing is to be shown. The
// methods used on it take nil.
func (g *globals) newBar(cmd *cobra.Command, total int64, what string) *bar {
	if g.quiet || !isTerminal(cmd.ErrOrStderr()) {
		return nil
	}
	return &bar{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(cmd.ErrOrStderr()),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionFullWidth(),
		progressbar.OptionThrottle(100e6),
	)}
}

type bar struct{ p *progressbar.ProgressBar }

func (b *bar) describe(what string) {
	if b != nil {
		b.p.Describe(what)
	}
}

func (b *bar) total(n int64) {
	if b != nil {
		b.p.ChangeMax64(n)
	}
}

func (b *bar) set(n int64) {
	if b != nil {
		_ = b.p.Set64(n) // a broken terminal shows in what follows
	}
}

func (b *bar) add(n int64) {
	if b != nil {
		_ = b.p.Add64(n)
	}
}

// clear removes the bar from the screen; the next update draws it again.
func (b *bar) clear() {
	if b != nil {
		_ = b.p.Clear()
	}
}
