package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"gofs/blobstore"
	"gofs/importer/provenance"
	"gofs/index"
)

// proofLine is what verify --provenance says of a version.
type proofLine struct {
	Name       string `json:"name"`
	Release    string `json:"release"`
	Platform   string `json:"platform"`
	H1         string `json:"h1"`
	Provenance string `json:"provenance"`
	Error      string `json:"error,omitempty"`
}

// proveVersions is verify --provenance, for all versions if names is empty.
func proveVersions(cmd *cobra.Command, g *globals, s *index.Store, names []string, asJSON bool) error {
	db, err := provenance.Open(provenance.Options{Store: s.Dir()})
	if err != nil {
		return err
	}
	snap, view, err := s.OpenView(blobstore.NewCache(64 << 20))
	if err != nil {
		return err
	}
	defer view.Close()
	versions, err := findVersions(snap.Versions, names)
	if err != nil {
		return err
	}
	lines := []proofLine{}
	failed := false
	for _, v := range versions {
		l, err := proveOne(cmd.Context(), db, snap, view, v)
		if err != nil && cmd.Context().Err() != nil {
			return err
		}
		if err != nil {
			l.Error, failed = err.Error(), true
		}
		lines = append(lines, l)
		switch {
		case asJSON:
		case err != nil:
			fmt.Fprintf(cmd.ErrOrStderr(), "gofs: %s: %v\n", v.Name, err)
		case !g.quiet:
			fmt.Fprintf(cmd.OutOrStdout(), "%s: go%s for %s, %s, signed by %s\n", l.Name, l.Release, l.Platform, l.H1, db.Name())
		}
	}
	if asJSON {
		if err := printJSON(cmd, lines); err != nil {
			return err
		}
	}
	if failed {
		return exitStatus(exitFailed)
	}
	return nil
}

func proveOne(ctx context.Context, db *provenance.Database, snap *index.Snapshot, view *blobstore.View, v *index.Version) (proofLine, error) {
	l := proofLine{Name: v.Name, Platform: v.Platform, Provenance: provenance.Unverified}
	t, err := snap.Tree(ctx, view, v)
	if err != nil {
		return l, err
	}
	r, err := db.Prove(ctx, t, view, v)
	if r != nil {
		l.Release, l.H1 = r.Release, r.H1
	}
	if err == nil {
		l.Provenance = db.Proof()
	}
	return l, err
}

// findVersions finds versions by their names and aliases, all for none.
func findVersions(versions []index.Version, names []string) ([]*index.Version, error) {
	var list []*index.Version
	for _, name := range names {
		v, ok := index.Resolve(versions, name)
		if !ok {
			return nil, notInStore(name)
		}
		list = append(list, v)
	}
	if len(names) == 0 {
		for i := range versions {
			list = append(list, &versions[i])
		}
	}
	return list, nil
}
