package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// entry is what is compared of a file.
type entry struct {
	mode fs.FileMode
	size int64
	link string
	sum  [sha256.Size]byte
}

// manifest is a tree: its entries by path.
type manifest map[string]entry

// tarManifest reads a release's tarball.
func tarManifest(name string) (manifest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	m := manifest{}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		_, rel, _ := strings.Cut(path.Clean(h.Name), "/")
		if h.Typeflag == tar.TypeDir || rel == "" {
			continue // a tarball need not name folders
		}
		e := entry{mode: h.FileInfo().Mode(), size: h.Size, link: h.Linkname}
		if e.sum, err = sum(tr); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, h.Name, err)
		}
		m[rel] = e
	}
}

// treeManifest reads a folder.
func treeManifest(ctx context.Context, root string) (manifest, error) {
	m := manifest{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{mode: fi.Mode(), size: fi.Size()}
		if fi.Mode()&fs.ModeSymlink != 0 {
			if e.link, err = os.Readlink(name); err != nil {
				return err
			}
			e.size, e.sum = 0, sha256.Sum256(nil)
		} else {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			if e.sum, err = sum(f); err != nil {
				return err
			}
		}
		m[strings.TrimPrefix(name, root+"/")] = e
		return nil
	})
	return m, err
}

func sum(r io.Reader) (s [sha256.Size]byte, err error) {
	h := sha256.New()
	_, err = io.Copy(h, r)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// compare returns an error that names the first difference it meets.
func (m manifest) compare(other manifest) error {
	for name, e := range m {
		if o, ok := other[name]; !ok {
			return fmt.Errorf("%s is missing", name)
		} else if o != e {
			return fmt.Errorf("%s differs", name)
		}
	}
	for name := range other {
		if _, ok := m[name]; !ok {
			return fmt.Errorf("%s is too much", name)
		}
	}
	return nil
}

// checkPeers compares every peer's tree with the tarball, and every release of
// the store with its own. What is different is not timed.
func (b *bench) checkPeers(ctx context.Context) error {
	b.logf("comparing trees")
	contents := map[[sha256.Size]byte]int64{}
	var plain int64
	for _, r := range b.releases {
		want, err := tarManifest(b.tarballs[r])
		if err != nil {
			return err
		}
		for _, e := range want {
			plain += e.size
			contents[e.sum] = e.size
		}
		for _, p := range b.present() {
			root := p.root()
			if p.Name == peerGofs {
				root = filepath.Join(p.base, r)
			} else if r != b.release {
				continue
			}
			got, err := treeManifest(ctx, root)
			if err == nil {
				err = want.compare(got)
			}
			if err != nil {
				return fmt.Errorf("%s does not show release %s: %w", p.Name, r, err)
			}
		}
	}
	var unique int64
	for _, size := range contents {
		unique += size
	}
	b.results.figure("plain bytes", "B", float64(plain))
	b.results.figure("unique bytes", "B", float64(unique))
	return ctx.Err()
}
