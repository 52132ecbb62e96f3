package provenance

import (
	"context"
	"crypto/sha256"
	"fmt"

	"gofs/blobstore"
	"gofs/index"
)

// Reading is what the blobs of a stored version say it is.
type Reading struct {
	Release string // by its VERSION file, without "go"
	H1      string // of the module that the files make
	Foreign error  // instead of these: why they make none, an ErrForeign
}

// Read computes the h1 of a version in the store. With all set every blob is
// decoded, which checks it; else only those of files that are made of
// several, since the name of any other is the file's SHA-256.
func Read(ctx context.Context, t *index.Tree, view *blobstore.View, v *index.Version, all bool) (*Reading, error) {
	r := &Reading{}
	version, err := readVersion(ctx, t, view)
	if err != nil {
		return nil, err
	}
	files, err := stored(ctx, t, view, all)
	if err != nil {
		return nil, err
	}
	release, official := Release(version)
	if !official {
		r.Foreign = fmt.Errorf("its VERSION is none of the Go project's: %w", ErrForeign)
		return r, nil
	}
	r.Release = release
	r.H1, r.Foreign = files.H1(release, v.Platform)
	return r, nil
}

// maxVersion bounds the VERSION file, which has two lines.
const maxVersion = 4096

func readVersion(ctx context.Context, t *index.Tree, view *blobstore.View) ([]byte, error) {
	e, ok := t.Find("VERSION")
	if !ok || e.Kind != index.File || e.Size > maxVersion {
		return nil, nil
	}
	var file []byte
	for _, r := range t.Blobs(e) {
		b, err := view.Blob(ctx, r.ID)
		if err != nil {
			return nil, fmt.Errorf("VERSION: %w", err)
		}
		file = append(file, b...)
	}
	return file, nil
}

// stored gathers the files of a tree.
func stored(ctx context.Context, t *index.Tree, view *blobstore.View, all bool) (*Files, error) {
	f := &Files{}
	err := t.Walk(func(name string, e *index.Entry) error {
		switch {
		case e.Kind == index.Symlink:
			f.AddLink(name)
		case e.Kind == index.File && (all || !outside(name)):
			sum, err := storedSum(ctx, t.Blobs(e), view, all)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			f.Add(name, sum)
		}
		return nil
	})
	return f, err
}

func storedSum(ctx context.Context, refs []index.Ref, view *blobstore.View, all bool) (sum [sha256.Size]byte, err error) {
	if len(refs) == 1 && !all {
		return refs[0].ID, nil
	}
	h := sha256.New()
	for _, r := range refs {
		b, err := view.Blob(ctx, r.ID)
		if err == nil && len(b) != int(r.Length) {
			err = fmt.Errorf("blob of %d bytes instead of %d: %w", len(b), r.Length, blobstore.ErrDamaged)
		}
		if err != nil {
			return sum, err
		}
		if len(refs) == 1 {
			return r.ID, nil // the view has checked it
		}
		h.Write(b)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Prove shows from the stored blobs alone that a version is what the Go
// project released. The error is one of Check's, or blobstore.ErrDamaged
// where something cannot be read.
func (d *Database) Prove(ctx context.Context, t *index.Tree, view *blobstore.View, v *index.Version) (*Reading, error) {
	r, err := Read(ctx, t, view, v, true)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Release == "":
		return r, fmt.Errorf("%w: %w", ErrMismatch, r.Foreign)
	case r.Release != v.Release || v.H1 != "" && r.H1 != v.H1:
		return r, fmt.Errorf("%w: the store calls it go%s with %s, its files say go%s with %s", ErrMismatch, v.Release, v.H1, r.Release, r.H1)
	}
	return r, d.Check(ctx, r.Release, v.Platform, r.H1, r.Foreign)
}
