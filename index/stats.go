package index

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"gofs/blobstore"
)

// Stats is what deduplication and compression save, in bytes.
type Stats struct {
	Files     int   `json:"files"`      // of all versions, with links
	Plain     int64 `json:"plain"`      // of all versions, as tar -x would write them
	FileDedup int64 `json:"file_dedup"` // with identical files kept once
	BlobDedup int64 `json:"blob_dedup"` // with identical blobs kept once
	Packs     int64 `json:"packs"`      // the packs
	Unused    int64 `json:"unused"`     // of the packs, what no version needs
	Index     int64 `json:"index"`      // the database
	Store     int64 `json:"store"`      // all files of the store
	Blobs     int   `json:"blobs"`
	PackFiles int   `json:"pack_files"`

	Encodings []EncodingStats `json:"encodings"`
	Chains    []ChainStats    `json:"chains"`
	Versions  []VersionStats  `json:"versions"`
}

// EncodingStats is how much is stored in one way.
type EncodingStats struct {
	Name    string `json:"name"`
	Records int    `json:"records"`
	Plain   int64  `json:"plain"`
	Stored  int64  `json:"stored"`
	Saved   int64  `json:"saved"` // the difference
}

// ChainStats counts the records whose longest chain of bases has a length.
type ChainStats struct {
	Depth   int   `json:"depth"`
	Records int   `json:"records"`
	Stored  int64 `json:"stored"`
}

// VersionStats is what one version takes.
type VersionStats struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`  // of all files
	Unique int64  `json:"unique"` // bytes of blobs that no other version has
	Stored int64  `json:"stored"` // room in packs of all its blobs
	Frees  int64  `json:"frees"`  // room in packs of the unique ones
	Quick  bool   `json:"quick"`  // whether the programs that builds run are stored to be read quickly
}

// Stats adds up what the store holds. It reads the trees and the record
// headers, not the content.
func (s *Store) Stats(ctx context.Context) (*Stats, error) {
	snap, view, err := s.OpenView(blobstore.NewCache(16 << 20))
	if err != nil {
		return nil, err
	}
	defer view.Close()
	c := &collection{writer: &Writer{store: s}, snap: snap, view: view, live: map[blobstore.ID]bool{}}
	if err := c.mark(ctx); err != nil {
		return nil, err
	}
	t := &tally{use: c, snap: snap, stored: map[blobstore.ID]uint32{}, users: map[blobstore.ID]int{}}
	if err := t.packs(ctx); err != nil {
		return nil, err
	}
	if err := t.versions(ctx, view); err != nil {
		return nil, err
	}
	if st, err := os.Stat(filepath.Join(s.dir, databaseFile)); err == nil {
		t.s.Index = st.Size()
	}
	t.s.Store, err = folderSize(s.dir)
	return &t.s, err
}

type tally struct {
	use    *collection // knows what gc would keep
	snap   *Snapshot
	s      Stats
	stored map[blobstore.ID]uint32 // room in packs
	users  map[blobstore.ID]int    // versions that have a blob
	dense  []denseProgram
}

// denseProgram is a program that is read from quick records and kept for those that
// are deltas of it.
type denseProgram struct {
	parts []blobstore.ID
	room  int64
}

func (t *tally) packs(ctx context.Context) error {
	encodings := map[string]int{}
	err := t.use.eachRecord(ctx, func(ref blobstore.PackRef, r *blobstore.Record) {
		i, ok := encodings[r.Encoding()]
		if !ok {
			i = len(t.s.Encodings)
			encodings[r.Encoding()] = i
			t.s.Encodings = append(t.s.Encodings, EncodingStats{Name: r.Encoding()})
		}
		t.s.Encodings[i].Records++
		t.s.Encodings[i].Plain += r.Plain()
		t.s.Encodings[i].Stored += r.Size()
		t.s.Encodings[i].Saved += r.Plain() - r.Size()
		for len(t.s.Chains) <= r.Depth() {
			t.s.Chains = append(t.s.Chains, ChainStats{Depth: len(t.s.Chains)})
		}
		t.s.Chains[r.Depth()].Records++
		t.s.Chains[r.Depth()].Stored += r.Size()
		placed := r.Placed()
		for _, b := range placed {
			t.s.Unused += int64(b.Stored)
		}
		for _, i := range t.use.used(ref.Number, r) {
			t.s.Unused -= int64(placed[i].Stored)
			if t.use.here(ref.Number, placed[i]) {
				t.stored[placed[i].ID] = placed[i].Stored
			}
		}
		if len(placed) > 1 && r.IsProgram() && t.use.here(ref.Number, placed[0]) {
			d := denseProgram{}
			for _, b := range placed[1:] {
				d.parts = append(d.parts, b.ID)
				if !t.use.here(ref.Number, b) {
					d.room += int64(b.Stored)
				}
			}
			t.dense = append(t.dense, d)
		}
	})
	for _, p := range t.snap.Packs {
		t.s.PackFiles++
		t.s.Packs += p.Size
	}
	return err
}

func (t *tally) versions(ctx context.Context, view *blobstore.View) error {
	trees := make([]*Tree, len(t.snap.Versions))
	files := map[[16]byte]bool{}
	for i := range trees {
		v := &t.snap.Versions[i]
		tree, err := t.snap.Tree(ctx, view, v)
		if err != nil {
			return err
		}
		trees[i] = tree
		t.s.Files += v.Files
		t.s.Plain += v.Bytes
		mine := map[blobstore.ID]bool{}
		for j := range tree.Entries {
			e := &tree.Entries[j]
			if e.Kind != File {
				continue
			}
			if key := FileKey(tree, e); !files[key] {
				files[key] = true
				t.s.FileDedup += e.Size
			}
			for _, r := range tree.Blobs(e) {
				if !mine[r.ID] {
					mine[r.ID] = true
					if t.users[r.ID]++; t.users[r.ID] == 1 {
						t.s.BlobDedup += int64(r.Length)
					}
				}
			}
		}
		record, err := VersionRecord(v)
		if err != nil {
			return err
		}
		for _, id := range []blobstore.ID{v.Tree, blobstore.Sum(record)} {
			t.users[id]++
		}
	}
	t.s.Blobs = len(t.users)
	for i, tree := range trees {
		t.s.Versions = append(t.s.Versions, t.version(&t.snap.Versions[i], tree))
	}
	return nil
}

func (t *tally) version(v *Version, tree *Tree) VersionStats {
	vs := VersionStats{Name: v.Name, Bytes: v.Bytes}
	seen := map[blobstore.ID]bool{}
	add := func(id blobstore.ID, length int64) {
		if seen[id] {
			return
		}
		seen[id] = true
		vs.Stored += int64(t.stored[id])
		if t.users[id] == 1 {
			vs.Unique += length
			vs.Frees += int64(t.stored[id])
		}
	}
	for _, r := range tree.AllBlobs() {
		add(r.ID, int64(r.Length))
	}
	for _, d := range t.dense {
		if slices.ContainsFunc(d.parts, func(id blobstore.ID) bool { return !seen[id] }) {
			continue
		}
		vs.Stored += d.room
		if slices.ContainsFunc(d.parts, func(id blobstore.ID) bool { return t.users[id] == 1 }) {
			vs.Frees += d.room
		}
	}
	add(v.Tree, 0)
	vs.Quick = t.quick(tree)
	return vs
}

// quick says whether the programs of a version that builds run are all in quick records,
// but those of one blob, which are as any.
func (t *tally) quick(tree *Tree) bool {
	programs, dense := 0, 0
	_ = tree.Walk(func(path string, e *Entry) error {
		if blobs := tree.Blobs(e); e.Kind == File && len(blobs) > 1 && RunByBuilds(path) {
			programs++
			if slices.ContainsFunc(blobs, func(r Ref) bool { return !t.use.quick[r.ID] }) {
				dense++
			}
		}
		return nil
	})
	return programs > 0 && dense == 0
}
