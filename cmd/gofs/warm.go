package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	gofs "gofs/fs"
)

type warmCmd struct {
	g       *globals
	cmd     *cobra.Command
	all     bool
	json    bool
	profile string
	mount   string
}

func newWarmCmd(g *globals) *cobra.Command {
	c := &warmCmd{g: g}
	cmd := &cobra.Command{
		Use:   "warm [VERSION...]",
		Short: "Load releases before they are needed",
		Long: `Warm loads the files of the versions, or of all, that have been read from the
mount or from earlier mounts of the store: into the hot layer what belongs
there where there is one, and else into the kernel's page cache.

With --profile FILE it loads the files that FILE names instead, one path a
line relative to the version, as src/fmt/print.go; a folder stands for all
that is in it, and lines that begin with # are skipped.

EXIT STATUS
  0  all is loaded
  1  a version or a path is not there, a file cannot be read, or the mount
     does not answer; what can be loaded is
  2  wrong usage`,
		Args:              usageArgs(cobra.ArbitraryArgs),
		ValidArgsFunction: g.completeVersions,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.cmd = cmd
	f := cmd.Flags()
	f.BoolVar(&c.all, "all-files", false, "load every file of the versions")
	f.StringVar(&c.profile, "profile", "", "load the paths in `FILE` (- is standard input)")
	f.BoolVar(&c.json, "json", false, "print JSON")
	f.StringVar(&c.mount, "mount", "", "the mount at `DIR` (default $GOFS_MOUNT, else that of the store)")
	return cmd
}

func (c *warmCmd) run(ctx context.Context, versions []string) error {
	if c.all && c.profile != "" {
		return usagef("--all-files and --profile are two different wishes")
	}
	w := gofs.Warm{Versions: versions, All: c.all}
	if c.profile != "" {
		var err error
		if w.Paths, err = readProfile(c.cmd.InOrStdin(), c.profile); err != nil {
			return err
		}
	}
	m, err := c.g.findMount(c.mount)
	if err != nil {
		return err
	}
	a, err := ask(ctx, m)
	if err != nil {
		return err
	}
	defer a.Close()
	b := c.g.newBar(c.cmd, -1, "warm")
	r, err := a.Warm(ctx, w, b.total, b.add)
	if err != nil {
		b.clear()
		return fmt.Errorf("%s: %w", m.dir, err)
	}
	failed, err := readFiles(ctx, m.dir, r.Read, b.add)
	b.clear()
	if err != nil {
		return err
	}
	return c.report(r, failed)
}

func (c *warmCmd) report(r gofs.Warming, failed int) error {
	out, errOut := c.cmd.OutOrStdout(), c.cmd.ErrOrStderr()
	switch {
	case c.json:
		err := printJSON(c.cmd, struct {
			Files   int      `json:"files"`
			Bytes   int64    `json:"bytes"`
			Hot     int      `json:"hot"`
			Failed  int      `json:"failed"`
			Absent  int      `json:"absent"`
			Missing []string `json:"missing,omitempty"`
		}{r.Files, r.Bytes, r.Hot, failed, r.Absent, r.Missing})
		if err != nil {
			return err
		}
	case c.g.quiet:
	case r.Files == 0 && !c.all && c.profile == "":
		fmt.Fprintln(out, "nothing to load: no file has been read yet (--all-files loads all)")
	case r.Hot > 0:
		fmt.Fprintf(out, "loaded %d files, %s, %d of them into the hot layer\n", r.Files-failed, size(r.Bytes), r.Hot)
	default:
		fmt.Fprintf(out, "loaded %d files, %s\n", r.Files-failed, size(r.Bytes))
	}
	for _, name := range r.Missing {
		fmt.Fprintf(errOut, "gofs: %s: %s is not there\n", c.profile, name)
	}
	if more := r.Absent - len(r.Missing); more > 0 {
		fmt.Fprintf(errOut, "gofs: %s: %d more are not there\n", c.profile, more)
	}
	if failed > 0 {
		fmt.Fprintf(errOut, "gofs: %d files could not be read (gofs verify says why)\n", failed)
	}
	if failed > 0 || r.Absent > 0 {
		return exitStatus(exitFailed)
	}
	return nil
}

// maxProfile bounds a profile, in bytes; all files of a release take 400 KB.
const maxProfile = 3 << 20

// readProfile reads a list of paths.
func readProfile(stdin io.Reader, name string) ([]string, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		defer f.Close()
		in = f
	}
	limited := &io.LimitedReader{R: in, N: maxProfile + 1}
	var paths []string
	s := bufio.NewScanner(limited)
	for line := 1; s.Scan(); line++ {
		p := strings.TrimSuffix(s.Text(), "\r")
		switch {
		case p == "" || p[0] == '#':
			continue
		case !filepath.IsLocal(p) || strings.ContainsRune(p, 0):
			return nil, fmt.Errorf("profile %s:%d: %q does not lie in a release (paths are relative to it)", name, line, p)
		}
		paths = append(paths, path.Clean(p))
	}
	switch err := s.Err(); {
	case err != nil:
		return nil, fmt.Errorf("profile %s: %w", name, err)
	case limited.N == 0:
		return nil, fmt.Errorf("profile %s: it has more than %d bytes", name, maxProfile)
	case len(paths) == 0:
		return nil, fmt.Errorf("profile %s: it names no file", name)
	}
	return paths, nil
}

// readFiles reads files of the mount, so that they are in the page cache, and
// returns how many could not be read. A folder is listed first: then the
// kernel knows all its files, and the mount can push them ahead of the
// reader. Folders are shared out among as many readers as there are
// processors.
func readFiles(ctx context.Context, dir string, files []gofs.WarmFile, done func(int64)) (failed int, err error) {
	var folders [][]gofs.WarmFile
	for i, f := range files {
		if i == 0 || path.Dir(f.Path) != path.Dir(files[i-1].Path) {
			folders = append(folders, nil)
		}
		last := &folders[len(folders)-1]
		*last = append(*last, f)
	}
	var bad atomic.Int64
	var mu sync.Mutex // of done
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	buffers := sync.Pool{New: func() any { b := make([]byte, 1<<20); return &b }}
	for _, list := range folders {
		g.Go(func() error {
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			_, _ = os.ReadDir(filepath.Join(dir, path.Dir(list[0].Path))) // the reads fail then
			for _, f := range list {
				if err := ctx.Err(); err != nil {
					return err
				}
				if readThrough(filepath.Join(dir, f.Path), *buf) != nil {
					bad.Add(1)
				}
				mu.Lock()
				done(f.Size)
				mu.Unlock()
			}
			return nil
		})
	}
	err = g.Wait()
	return int(bad.Load()), err
}

func readThrough(name string, buf []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
