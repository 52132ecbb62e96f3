package index

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"gofs/blobstore"
)

// RebuildReport is what Rebuild found.
type RebuildReport struct {
	Sound    bool          `json:"sound"`    // the index was whole and is as it was
	Versions []string      `json:"versions"` // that the new index has
	Lost     []LostVersion `json:"lost"`     // that had to be left out
	Verify   *VerifyReport `json:"verify"`   // of the store with the new index
}

// OK says whether nothing is lost.
func (r *RebuildReport) OK() bool {
	return len(r.Lost) == 0 && (r.Verify == nil || r.Verify.OK())
}

// LostVersion is a version that cannot be shown.
type LostVersion struct {
	Version string `json:"version"`
	Error   string `json:"error"`
}

// Rebuild makes the database anew from the packs, unless it is whole. The
// error is that of an index which cannot be read now, though it may be whole,
// or of the file system; the store is then as it was.
//
// All versions get inode numbers that no mount has been given, so mounts take
// them for new ones. Which versions had been removed, and where the numbers
// go on, is read from the generation file. Where that is lost too, all versions
// whose packs are there come back, and the numbers begin where no earlier
// index can have come to.
func (s *Store) Rebuild(ctx context.Context, lo LockOptions, vo VerifyOptions) (*RebuildReport, error) {
	f, err := s.flock(ctx, lo)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch err := (&Writer{s, f}).sound(); {
	case err == nil:
		return &RebuildReport{Sound: true}, nil
	case !errors.Is(err, ErrIndex):
		return nil, err
	}
	b := &rebuilding{store: s, r: &RebuildReport{}, found: map[blobstore.ID]candidate{}}
	if err := b.run(ctx); err != nil {
		return nil, fmt.Errorf("rebuild index: %w", err)
	}
	b.r.Verify, err = s.Verify(ctx, vo)
	return b.r, err
}

// sound checks all of the database.
func (w *Writer) sound() error {
	if _, err := w.store.Snapshot(); err != nil {
		return err
	}
	if err := w.store.view(func(tx *bolt.Tx) error { return checkSums(tx, summed...) }); err != nil {
		return err
	}
	return w.heal()
}

// rebuilding is a database that is being made.
type rebuilding struct {
	store *Store
	r     *RebuildReport
	begin *announcement // the numbers it begins with, and the versions that were announced
	known bool          // the versions and the generation that were announced are known
	packs []blobstore.PackRef
	all   []salvaged
	found map[blobstore.ID]candidate

	announced uint64 // generation
}

// salvaged is a record that can be used.
type salvaged struct {
	*blobstore.Record
	pack  uint32
	sound bool
}

// candidate is a place of a blob.
type candidate struct {
	salvaged
	loc blobstore.Location
	i   int // in its record
}

// Locate finds a blob at the best of its places.
func (b *rebuilding) Locate(id blobstore.ID) (blobstore.Location, bool) {
	c, ok := b.found[id]
	return c.loc, ok
}

func (b *rebuilding) run(ctx context.Context) error {
	b.readAnnouncement()
	if err := b.scan(ctx); err != nil {
		return err
	}
	b.choose()
	versions, err := b.versions(ctx)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := b.store.newDatabase(b.begin, func(tx *bolt.Tx) error { return b.fill(tx, versions) }); err != nil {
		return err
	}
	return b.store.reannounce()
}

// slack is what the last commit may have taken that was not announced: its
// process was killed, and a mount has read the database all the same.
const slack = 1 << 24

// readAnnouncement finds out where the numbers go on. Where that cannot be
// read, they begin with the time: in seconds it is more than the commits that
// a store can have seen, its double leaves half of the pack numbers, and for
// each second there are 65,536 inode numbers.
func (b *rebuilding) readAnnouncement() {
	now := uint64(time.Now().Unix())
	b.begin = &announcement{generation: now, node: now << 16, pack: now % (1 << 31)}
	if n, err := b.store.Generation(); err == nil && n < 1<<62 {
		b.begin.generation = n + 2
	}
	text, err := b.store.readAnnouncement()
	if err != nil {
		return
	}
	if a, ok := parseAnnouncement(text); ok && a.node < MaxNode-2*slack && a.pack < 1<<31 {
		b.begin.node, b.begin.pack = a.node+slack, a.pack+1<<10
		b.begin.versions, b.announced, b.known = a.versions, a.generation, true
	}
}

// scan reads the heads of all records.
func (b *rebuilding) scan(ctx context.Context) error {
	names, _, err := blobstore.ListPacks(b.store.PackDir())
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		var id blobstore.ID
		if id.UnmarshalText([]byte(name)) != nil || id.String() != name {
			continue // no pack has such a name
		}
		number := uint32(b.begin.pack)
		b.begin.pack++
		size, err := blobstore.Salvage(ctx, b.store.PackDir(), name, func(r *blobstore.Record, sound bool) {
			b.all = append(b.all, salvaged{r, number, sound})
		}, func(blobstore.Damage) {}) // the verification names it
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		b.packs = append(b.packs, blobstore.PackRef{Number: number, Name: name, Size: size})
	}
	return nil
}

// choose finds the best place of each blob. There are several where a
// compaction or gc was killed before it removed the packs that it replaced,
// and where programs share a part.
//
// A base must lie less deep than what needs it, and one of a program must be a
// program as a whole. The least deep of the places that fulfil the second
// fulfils the first, since one of them did when the record was written.
func (b *rebuilding) choose() {
	bases, programs := map[blobstore.ID]bool{}, map[blobstore.ID]bool{}
	for _, r := range b.all {
		for _, id := range r.Bases() {
			bases[id] = true
			programs[id] = programs[id] || r.IsProgram()
		}
	}
	rank := func(id blobstore.ID, c *candidate) [4]int {
		var rank [4]int
		if !c.sound {
			rank[0] = 1
		}
		if programs[id] && (!c.IsProgram() || c.i != 0) {
			rank[1] = 1
		}
		if !bases[id] {
			rank[2] = -int(c.Effort())
		}
		rank[3] = c.Depth()
		return rank
	}
	for _, r := range b.all {
		for i, p := range r.Placed() {
			p.Location.Pack = r.pack
			c := candidate{r, p.Location, i}
			if old, ok := b.found[p.ID]; ok {
				was, is := rank(p.ID, &old), rank(p.ID, &c)
				if slices.Compare(is[:], was[:]) >= 0 {
					continue
				}
			}
			b.found[p.ID] = c
		}
	}
	// All of a program is read from one record, where there are several of it: else none
	// of them can go.
	for _, r := range b.all {
		if whole := b.found[r.Blobs()[0].ID]; !r.IsProgram() || !whole.in(r) {
			continue
		}
		for i, p := range r.Placed() {
			p.Location.Pack = r.pack
			if c := b.found[p.ID]; !bases[p.ID] && c.IsProgram() && c.Blobs()[0].ID == r.Blobs()[0].ID && c.sound == r.sound {
				b.found[p.ID] = candidate{r, p.Location, i}
			}
		}
	}
}

// in says whether a place is in a record.
func (c *candidate) in(r salvaged) bool { return c.pack == r.pack && c.Offset == r.Offset }

// described is a version record that was found.
type described struct {
	Version
	id blobstore.ID
}

// versions reads the versions that the new index is to have, in the order of
// their imports.
func (b *rebuilding) versions(ctx context.Context) ([]Addition, error) {
	view, err := blobstore.OpenView(b.store.PackDir(), b.packs, b, blobstore.NewCache(64<<20))
	if err != nil {
		return nil, err
	}
	defer view.Close()
	best := map[string]described{}
	for id, c := range b.found {
		if c.Kind() != blobstore.Version {
			continue
		}
		d, err := b.describe(ctx, view, id)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil || b.removed(&d) {
			continue // of one that is lost the name's absence tells
		}
		if old, ok := best[d.Name]; !ok || b.prefer(d, old) {
			best[d.Name] = d
		}
	}
	var list []Addition
	for _, name := range slices.Sorted(maps.Keys(best)) {
		tree, err := view.Blob(ctx, best[name].Tree)
		var t *Tree
		if err == nil {
			t, err = DecodeTree(tree)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			b.r.Lost = append(b.r.Lost, LostVersion{name, fmt.Sprintf("its tree: %v", err)})
			continue
		}
		list = append(list, Addition{best[name].Version, t})
	}
	for _, name := range slices.Sorted(maps.Keys(b.begin.versions)) {
		if _, ok := best[name]; !ok {
			b.r.Lost = append(b.r.Lost, LostVersion{name, "its description is in none of the packs"})
		}
	}
	slices.SortStableFunc(list, func(x, y Addition) int {
		return cmp.Or(cmp.Compare(x.Version.Generation, y.Version.Generation), CompareNames(x.Version.Name, y.Version.Name))
	})
	for _, a := range list {
		b.r.Versions = append(b.r.Versions, a.Version.Name)
	}
	return list, nil
}

// maxRecord bounds a version record, in bytes.
const maxRecord = 64 << 10

// describe reads a version record.
func (b *rebuilding) describe(ctx context.Context, view *blobstore.View, id blobstore.ID) (d described, err error) {
	if b.found[id].loc.Length > maxRecord {
		return d, ErrIndex
	}
	text, err := view.Blob(ctx, id)
	if err != nil {
		return d, err
	}
	d.id = id
	if err := json.Unmarshal(text, &d.Version); err != nil {
		return d, err
	}
	// gc knows the record by what it is written as.
	again, err := VersionRecord(&d.Version)
	if err != nil || !bytes.Equal(again, text) {
		return d, ErrIndex
	}
	return d, CheckName(d.Name)
}

// removed says whether a version had been removed when the last commit was
// announced. Those of later commits, which a crash kept from being announced,
// may have been too, but are not known to be.
func (b *rebuilding) removed(d *described) bool {
	_, there := b.begin.versions[d.Name]
	return b.known && !there && !b.later(d)
}

// later says whether a version came after what was announced last.
func (b *rebuilding) later(d *described) bool { return b.known && d.Generation > b.announced }

// prefer says whether of two records of the same name a is the one to take:
// the later commit's, unless both had been announced. Then it is the one that
// was, and without any announcement the one that says what proved it, since
// that is written later.
func (b *rebuilding) prefer(a, o described) bool {
	want := b.begin.versions[a.Name]
	if !b.later(&a) && !b.later(&o) && (a.id == want) != (o.id == want) {
		return a.id == want
	}
	return cmp.Or(cmp.Compare(a.Generation, o.Generation), cmp.Compare(len(a.H1), len(o.H1)),
		cmp.Compare(rankProof(a.Provenance), rankProof(o.Provenance)), bytes.Compare(a.id[:], o.id[:])) > 0
}

func rankProof(provenance string) int {
	switch provenance {
	case "":
		return 0
	case "unverified":
		return 1
	}
	return 2
}

// fill writes what was found into the new database.
func (b *rebuilding) fill(tx *bolt.Tx, versions []Addition) error {
	for _, p := range b.packs {
		if err := tx.Bucket(bucketPacks).Put(be32(p.Number), encodePack(p)); err != nil {
			return err
		}
	}
	ids := slices.SortedFunc(maps.Keys(b.found), func(x, y blobstore.ID) int { return bytes.Compare(x[:], y[:]) })
	for _, id := range ids {
		if err := tx.Bucket(bucketBlobs).Put(id[:], encodeLocation(b.found[id].loc)); err != nil {
			return err
		}
	}
	for i := range versions {
		if err := putVersion(tx, &versions[i]); err != nil {
			return err
		}
	}
	return nil
}
