// Package export writes a version of the store out again, as a tarball that
// imports to the identical tree or as a folder.
package export

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gofs/blobstore"
	"gofs/index"
)

// Release is a version that is about to be written.
type Release struct {
	Version *index.Version
	Tree    *index.Tree
	View    *blobstore.View
	// Progress, when not nil, is called with bytes of files written.
	Progress func(int64)
}

// item is an entry with its path.
type item struct {
	path  string
	entry *index.Entry
}

// items lists all entries by path, as the release's own tarball does.
func (r *Release) items() []item {
	var list []item
	_ = r.Tree.Walk(func(path string, e *index.Entry) error {
		list = append(list, item{path, e})
		return nil
	})
	slices.SortFunc(list, func(a, b item) int { return strings.Compare(a.path, b.path) })
	return list
}

// content writes the bytes of a file.
func (r *Release) content(ctx context.Context, w io.Writer, it item) error {
	for _, ref := range r.Tree.Blobs(it.entry) {
		b, err := r.View.Blob(ctx, ref.ID)
		if err == nil && len(b) != int(ref.Length) {
			err = fmt.Errorf("blob of %d bytes instead of %d: %w", len(b), ref.Length, blobstore.ErrDamaged)
		}
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", it.path, err)
		}
		if r.Progress != nil {
			r.Progress(int64(len(b)))
		}
	}
	return nil
}

// Tar writes a tarball with the top folder "go", as the Go project lays them
// out: sorted, owner root, the release's time on every file, and no entries
// for folders but those that are empty or have a mode other than 0755.
func (r *Release) Tar(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	when := time.Unix(r.Version.Time, 0)
	for _, it := range r.items() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		e := it.entry
		h := &tar.Header{Name: "go/" + it.path, Mode: int64(e.Mode), ModTime: when}
		switch e.Kind {
		case index.Folder:
			if f := r.Tree.Folders[e.Folder]; f.N > 0 && f.Mode == 0o755 {
				continue
			}
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case index.Symlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		default:
			h.Typeflag, h.Size = tar.TypeReg, e.Size
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", it.path, err)
		}
		if e.Kind == index.File {
			if err := r.content(ctx, tw, it); err != nil {
				return err
			}
		}
	}
	return tw.Close()
}

// Folder writes the release below dir, which must be empty.
func (r *Release) Folder(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	when := time.Unix(r.Version.Time, 0)
	list := r.items()
	for _, it := range list {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		name := filepath.FromSlash(it.path)
		switch e := it.entry; e.Kind {
		case index.Folder:
			err = root.Mkdir(name, 0o755) // its own mode once it is full
		case index.Symlink:
			err = root.Symlink(e.Target, name)
		default:
			err = r.file(ctx, root, name, it, when)
		}
		if err != nil {
			return err
		}
	}
	for _, it := range slices.Backward(list) {
		if it.entry.Kind != index.Folder {
			continue
		}
		name := filepath.FromSlash(it.path)
		if err := root.Chmod(name, os.FileMode(it.entry.Mode)); err != nil {
			return err
		}
		if err := root.Chtimes(name, when, when); err != nil {
			return err
		}
	}
	return nil
}

func (r *Release) file(ctx context.Context, root *os.Root, name string, it item, when time.Time) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.content(ctx, f, it); err != nil {
		return err
	}
	if err := f.Chmod(os.FileMode(it.entry.Mode)); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("%s: %w", path.Base(name), err)
	}
	return root.Chtimes(name, when, when)
}
