package importer

import (
	"context"
	"fmt"

	"gofs/blobstore"
	"gofs/importer/provenance"
	"gofs/importer/source"
	"gofs/index"
)

// Fingerprint says which release some files are. It is the same wherever they
// lie: times do not count, and modes only so far as to tell what can be run.
type Fingerprint struct {
	Version  string       `json:"version"`  // as in its VERSION file, without "go": 1.23.3
	Platform string       `json:"platform"` // GOOS-GOARCH
	Tree     blobstore.ID `json:"tree"`     // hash of all names, modes and contents
	H1       string       `json:"h1"`       // of the toolchain module, "" for files that make none
}

// String is the fingerprint in one line.
func (f *Fingerprint) String() string {
	h1 := f.H1
	if h1 == "" {
		h1 = "-"
	}
	return fmt.Sprintf("%s %s %s %s", f.Version, f.Platform, f.Tree, h1)
}

// FingerprintOf reads a source to its end and stores nothing.
func FingerprintOf(ctx context.Context, src source.Source) (*Fingerprint, error) {
	in := newIntake(nil, nil, nil)
	in.proof = newProof(ctx, Options{})
	defer in.proof.stop()
	if err := in.read(ctx, src); err != nil {
		return nil, err
	}
	r, err := in.result(src, Options{})
	if err == nil {
		_, err = in.prove(ctx, &r.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.Label(), err)
	}
	return fingerprint(&r.Version, in.tree)
}

// FingerprintStored is that of a version in the store.
func FingerprintStored(ctx context.Context, snap *index.Snapshot, view *blobstore.View, v *index.Version) (*Fingerprint, error) {
	t, err := snap.Tree(ctx, view, v)
	if err != nil {
		return nil, err
	}
	w := *v
	if w.H1 == "" {
		// Imported by a gofs that did not compute it.
		p, err := provenance.Read(ctx, t, view, v, false)
		if err != nil {
			return nil, err
		}
		w.H1 = p.H1
	}
	return fingerprint(&w, t)
}

// fingerprint gives all files the modes that the Go project's archives have.
// A folder that was unpacked has those of its owner's umask.
func fingerprint(v *index.Version, t *index.Tree) (*Fingerprint, error) {
	var items []index.Item
	_ = t.Walk(func(path string, e *index.Entry) error {
		it := index.Item{Path: path, Kind: e.Kind, Mode: 0o644, Size: e.Size, Blobs: t.Blobs(e), Target: e.Target}
		if e.Kind != index.File || e.Mode&0o111 != 0 {
			it.Mode = 0o755
		}
		if e.Kind == index.Symlink {
			it.Mode = 0o777
		}
		items = append(items, it)
		return nil
	})
	b, err := index.EncodeTree(items)
	if err != nil {
		return nil, err
	}
	return &Fingerprint{v.Release, v.Platform, blobstore.Sum(b), v.H1}, nil
}
