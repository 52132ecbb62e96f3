package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/spf13/cobra"

	"gofs/blobstore"
	"gofs/importer/export"
)

func newExportCmd(g *globals) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export VERSION -o FILE.tar.gz|DIR|-",
		Short: "Write a release out again",
		Long: `Export writes a release as a tarball (a FILE that ends in .tar.gz, .tgz or
.tar, or - for a .tar.gz on standard output), or unpacked into a folder that is
new or empty. An exported tarball imports again to the identical tree.`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: g.completeVersions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("export needs -o FILE.tar.gz, -o DIR or -o - (see gofs export --help)")
			}
			if out == "-" && isTerminal(cmd.OutOrStdout()) {
				return usagef("-o -: a tarball does not go to a terminal")
			}
			s, err := g.openStore()
			if err != nil {
				return err
			}
			snap, view, err := s.OpenView(blobstore.NewCache(16 << 20))
			if err != nil {
				return err
			}
			defer view.Close()
			v, ok := snap.Find(args[0])
			if !ok {
				return notInStore(args[0])
			}
			tree, err := snap.Tree(cmd.Context(), view, v)
			if err != nil {
				return err
			}
			b := g.newBar(cmd, v.Bytes, "export "+v.Name)
			defer b.clear()
			r := &export.Release{Version: v, Tree: tree, View: view, Progress: b.add}
			if err := exportTo(cmd, r, out); err != nil {
				return fmt.Errorf("export %s: %w", v.Name, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "where to write: `FILE.tar.gz`, a folder, or -")
	return cmd
}

func exportTo(cmd *cobra.Command, r *export.Release, out string) error {
	ctx := cmd.Context()
	switch {
	case out == "-":
		return exportTar(ctx, r, cmd.OutOrStdout(), true)
	case strings.HasSuffix(out, ".tar.gz"), strings.HasSuffix(out, ".tgz"), strings.HasSuffix(out, ".tar"):
		return exportFile(ctx, r, out)
	}
	return exportFolder(ctx, r, out)
}

func exportTar(ctx context.Context, r *export.Release, w io.Writer, compress bool) error {
	if !compress {
		buf := bufio.NewWriterSize(w, 1<<20)
		if err := r.Tar(ctx, buf); err != nil {
			return err
		}
		return buf.Flush()
	}
	gz := gzip.NewWriter(w)
	if err := r.Tar(ctx, gz); err != nil {
		return err
	}
	return gz.Close()
}

// exportFile writes beside the file and renames, so that it is whole or not
// there.
func exportFile(ctx context.Context, r *export.Release, name string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".gofs-export-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	err = exportTar(ctx, r, f, !strings.HasSuffix(name, ".tar"))
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// exportFolder fills a new folder beside dir and renames it. An empty folder
// that is there is filled in place.
func exportFolder(ctx context.Context, r *export.Release, dir string) error {
	dir = filepath.Clean(dir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".gofs-export-*")
	if err != nil {
		return err
	}
	if err = r.Folder(ctx, temp); err == nil {
		err = os.Chmod(temp, 0o755)
	}
	if err == nil {
		// Renaming over an empty folder replaces it.
		if err = os.Rename(temp, dir); err == nil {
			return nil
		}
	}
	return errors.Join(err, os.RemoveAll(temp))
}
