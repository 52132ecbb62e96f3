package index

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"gofs/blobstore"
)

// Diff is what makes one version another.
type Diff struct {
	From    string       `json:"from"`
	To      string       `json:"to"`
	Added   []DiffFile   `json:"added"`
	Removed []DiffFile   `json:"removed"`
	Changed []DiffChange `json:"changed"`
	Same    int          `json:"same"` // files and links that both have alike
}

// DiffFile is a file or symbolic link that one of two versions has.
type DiffFile struct {
	Path   string `json:"path"`
	Plain  int64  `json:"plain"`  // bytes
	Stored int64  `json:"stored"` // its share of the packs, in bytes
}

// DiffChange is a file or symbolic link that both have, but not alike.
type DiffChange struct {
	Path  string   `json:"path"`
	Old   DiffSize `json:"old"`
	New   DiffSize `json:"new"`
	Bytes bool     `json:"content"` // the content or the target differs
	Mode  bool     `json:"mode"`    // the mode or the kind does
}

// DiffSize is the size of a file, plain and its share of the packs.
type DiffSize struct {
	Plain  int64 `json:"plain"`
	Stored int64 `json:"stored"`
}

// Diff compares two versions, by name or alias. A stored size is the file's
// share of the records that hold it, which it may have in common with others;
// what its bases take is not counted.
func (s *Store) Diff(ctx context.Context, from, to string) (*Diff, error) {
	snap, view, err := s.OpenView(blobstore.NewCache(16 << 20))
	if err != nil {
		return nil, err
	}
	defer view.Close()
	d := &differ{shares: map[blobstore.ID]uint32{}}
	d.d.Added, d.d.Removed, d.d.Changed = []DiffFile{}, []DiffFile{}, []DiffChange{}
	for i, name := range []string{from, to} {
		v, ok := snap.Find(name)
		if !ok {
			return nil, fmt.Errorf("version %s %w", name, ErrNoVersion)
		}
		if d.trees[i], err = snap.Tree(ctx, view, v); err != nil {
			return nil, err
		}
		if i == 0 {
			d.d.From = v.Name
		}
		d.d.To = v.Name
	}
	c := &collection{writer: &Writer{store: s}, snap: snap, view: view}
	err = c.eachRecord(ctx, func(ref blobstore.PackRef, r *blobstore.Record) {
		for _, b := range r.Placed() {
			if c.lies(ref.Number, b) {
				d.shares[b.ID] = b.Stored
			}
		}
	})
	if err != nil {
		return nil, err
	}
	d.folders(0, 0, "")
	for _, list := range [][]DiffFile{d.d.Added, d.d.Removed} {
		slices.SortFunc(list, func(a, b DiffFile) int { return strings.Compare(a.Path, b.Path) })
	}
	slices.SortFunc(d.d.Changed, func(a, b DiffChange) int { return strings.Compare(a.Path, b.Path) })
	return &d.d, nil
}

type differ struct {
	trees  [2]*Tree
	shares map[blobstore.ID]uint32
	d      Diff
}

// folders compares a folder of the one tree with one of the other; both are
// sorted by name.
func (d *differ) folders(a, b int32, dir string) {
	as, bs := d.trees[0].List(a), d.trees[1].List(b)
	for len(as) > 0 || len(bs) > 0 {
		switch {
		case len(bs) == 0 || len(as) > 0 && as[0].Name < bs[0].Name:
			d.d.Removed = d.all(d.d.Removed, 0, &as[0], dir)
			as = as[1:]
		case len(as) == 0 || bs[0].Name < as[0].Name:
			d.d.Added = d.all(d.d.Added, 1, &bs[0], dir)
			bs = bs[1:]
		default:
			d.entries(&as[0], &bs[0], dir)
			as, bs = as[1:], bs[1:]
		}
	}
}

func (d *differ) entries(a, b *Entry, dir string) {
	switch {
	case a.Kind == Folder && b.Kind == Folder:
		d.folders(a.Folder, b.Folder, path.Join(dir, a.Name))
	case a.Kind == Folder || b.Kind == Folder:
		d.d.Removed = d.all(d.d.Removed, 0, a, dir)
		d.d.Added = d.all(d.d.Added, 1, b, dir)
	default:
		c := DiffChange{
			Path: path.Join(dir, a.Name), Old: d.size(0, a), New: d.size(1, b),
			Bytes: a.Target != b.Target || !slices.Equal(d.trees[0].Blobs(a), d.trees[1].Blobs(b)),
			Mode:  a.Mode != b.Mode || a.Kind != b.Kind,
		}
		if c.Bytes || c.Mode {
			d.d.Changed = append(d.d.Changed, c)
		} else {
			d.d.Same++
		}
	}
}

// all lists an entry of a tree, or what is in it.
func (d *differ) all(list []DiffFile, tree int, e *Entry, dir string) []DiffFile {
	name := path.Join(dir, e.Name)
	if e.Kind != Folder {
		size := d.size(tree, e)
		return append(list, DiffFile{name, size.Plain, size.Stored})
	}
	in := d.trees[tree].List(e.Folder)
	for i := range in {
		list = d.all(list, tree, &in[i], name)
	}
	return list
}

func (d *differ) size(tree int, e *Entry) DiffSize {
	s := DiffSize{Plain: e.Size}
	for _, r := range d.trees[tree].Blobs(e) {
		s.Stored += int64(d.shares[r.ID])
	}
	return s
}
