package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"gofs/blobstore"
	"gofs/importer"
	"gofs/importer/source"
)

func newFingerprintCmd(g *globals) *cobra.Command {
	var asJSON bool
	var goroot string
	cmd := &cobra.Command{
		Use:   "fingerprint VERSION... | --go PATH",
		Short: "Print a line that is equal wherever a release is the same",
		Long: `Fingerprint prints a line for each VERSION of the store, or for the GOROOT or
archive at PATH: the release, its platform, its tree hash, and the hash (h1) of
its toolchain module, which the Go checksum database lists.

The tree hash covers the names and contents of all files and which of them can
be run. It does not depend on times, owners, the order of imports, or how the
release is stored, so that two machines with equal lines have the same release.
The h1 leaves out api, doc, misc and test: a release that came from a module
proxy lacks these, so its tree hash differs from that of the tarball, but not
its h1. In place of an h1 there is a - for files that make no such module.

EXIT STATUS
  0  all lines were printed
  1  something could not be read
  2  wrong usage`,
		Args: func(cmd *cobra.Command, args []string) error {
			if goroot != "" {
				return usageArgs(cobra.NoArgs)(cmd, args)
			}
			return usageArgs(cobra.MinimumNArgs(1))(cmd, args)
		},
		ValidArgsFunction: g.completeVersions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []*importer.Fingerprint
			var err error
			if goroot != "" {
				list, err = fingerprintPath(cmd.Context(), goroot)
			} else {
				list, err = fingerprintVersions(cmd.Context(), g, args)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, list)
			}
			for _, f := range list {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), f); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&goroot, "go", "", "of the GOROOT or archive at `PATH` instead")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func fingerprintPath(ctx context.Context, path string) ([]*importer.Fingerprint, error) {
	// A version or a URL is not meant.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	src, err := source.Open(ctx, path, source.Options{})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	f, err := importer.FingerprintOf(ctx, src)
	if err != nil {
		return nil, err
	}
	return []*importer.Fingerprint{f}, nil
}

func fingerprintVersions(ctx context.Context, g *globals, names []string) ([]*importer.Fingerprint, error) {
	s, err := g.openStore()
	if err != nil {
		return nil, err
	}
	snap, view, err := s.OpenView(blobstore.NewCache(16 << 20))
	if err != nil {
		return nil, err
	}
	defer view.Close()
	versions, err := findVersions(snap.Versions, names)
	if err != nil {
		return nil, err
	}
	var list []*importer.Fingerprint
	for _, v := range versions {
		f, err := importer.FingerprintStored(ctx, snap, view, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
		list = append(list, f)
	}
	return list, nil
}
