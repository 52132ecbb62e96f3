package importer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gofs/blobstore"
	"gofs/importer/source"
	"gofs/index"
)

// Repair mends a store: blobs that cannot be read are taken from another
// store or from the releases they came with, and packs that hold damage are
// written anew. Nothing changes before Commit. One goroutine uses it.
type Repair struct {
	store *index.Store
	lock  *index.Writer
	snap  *index.Snapshot
	view  *blobstore.View
	w     *blobstore.Writer

	damaged map[blobstore.ID]blobstore.Location // that versions have, and not mended yet
	found   int                                 // of them before anything was mended
	hurt    map[blobstore.ID]bool               // all that could not be read, mended or not
	packs   map[uint32]bool                     // that are to be written anew
	used    map[blobstore.ID]bool               // by versions; nil where a tree cannot be read
	lost    map[blobstore.ID]bool               // damaged and not mended, used or not
	anew    map[place]bool                      // records that cannot be copied as they are
	moved   map[blobstore.ID]bool               // blobs of such records: none is a program as a whole any more
	kinds   map[blobstore.ID]blobstore.Kind     // of what is not the data of files
	mended  map[blobstore.ID]bool               // that lie in new packs
	trees   map[blobstore.ID]*index.Tree        // of what is mended
}

// place is where a record lies.
type place struct {
	pack   uint32
	record int64
}

// RepairResult is what a repair did.
type RepairResult struct {
	Damaged int   `json:"damaged"` // blobs that could not be read
	Mended  int   `json:"mended"`  // of them
	Dropped int   `json:"dropped"` // packs that were replaced
	Stored  int64 `json:"stored"`  // bytes of the packs that took their place
}

// NewRepair takes the lock and reads every blob to find what is damaged. The
// error is index.ErrLocked, or that of an index that cannot be read.
func NewRepair(ctx context.Context, store *index.Store, lo index.LockOptions) (_ *Repair, err error) {
	r := &Repair{store: store, damaged: map[blobstore.ID]blobstore.Location{}, packs: map[uint32]bool{}, hurt: map[blobstore.ID]bool{}, lost: map[blobstore.ID]bool{}, anew: map[place]bool{}, moved: map[blobstore.ID]bool{}, kinds: map[blobstore.ID]blobstore.Kind{}, mended: map[blobstore.ID]bool{}, trees: map[blobstore.ID]*index.Tree{}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.lock, err = store.Lock(ctx, lo); err != nil {
		return nil, err
	}
	if r.snap, r.view, err = store.OpenView(blobstore.NewCache(64 << 20)); err != nil {
		return nil, err
	}
	if err := r.find(ctx); err != nil {
		return nil, err
	}
	r.found = len(r.damaged)
	if r.w, err = blobstore.NewWriter(store.PackDir(), blobstore.WriterOptions{}); err != nil {
		return nil, err
	}
	return r, r.fromItself(ctx)
}

// Close gives the lock back. Without Commit before, the store is as it was.
func (r *Repair) Close() error {
	if r.w != nil {
		r.w.Abort()
	}
	if r.view != nil {
		r.view.Close()
	}
	if r.lock != nil {
		return r.lock.Close()
	}
	return nil
}

// find reads all blobs, record by record, and all records, in use or not.
func (r *Repair) find(ctx context.Context) error {
	var ids []blobstore.ID
	r.snap.EachBlob(func(id blobstore.ID, _ blobstore.Location) { ids = append(ids, id) })
	ids = r.inOrder(ids)
	for len(ids) > 0 {
		at, _ := r.snap.Locate(ids[0])
		n := 1
		for n < len(ids) {
			if loc, _ := r.snap.Locate(ids[n]); loc.Pack != at.Pack || loc.Record != at.Record {
				break
			}
			n++
		}
		if err := r.findIn(ctx, at, ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	for _, ref := range r.snap.Packs {
		err := r.view.VerifyPack(ctx, ref, func(d blobstore.Damage) {
			r.packs[ref.Number] = true
			r.anew[place{ref.Number, d.Offset}] = true
		}, func(int64, []blobstore.Placed) {})
		if err != nil {
			return err
		}
	}
	return r.forgetUnused(ctx)
}

// findIn reads blobs from the record that the index has them in, and not from another
// one in memory.
func (r *Repair) findIn(ctx context.Context, at blobstore.Location, ids []blobstore.ID) error {
	d, err := r.view.RecordAt(ctx, at)
	if err == nil {
		defer d.Release()
	}
	for _, id := range ids {
		loc, _ := r.snap.Locate(id)
		if err != nil || d.Check(id, loc) != nil {
			r.damaged[id], r.lost[id], r.hurt[id] = loc, true, true
			r.packs[loc.Pack] = true
		}
	}
	return context.Cause(ctx)
}

// forgetUnused leaves out what no version has, which need not be mended, and
// adds what the index knows no place of: it was made anew when a pack was lost.
// Where the tree of a version is damaged, all may be in use until it is mended.
func (r *Repair) forgetUnused(ctx context.Context) error {
	used := map[blobstore.ID]bool{}
	for i := range r.snap.Versions {
		v := &r.snap.Versions[i]
		record, err := index.VersionRecord(v)
		if err != nil {
			return err
		}
		r.kinds[v.Tree], r.kinds[blobstore.Sum(record)] = blobstore.Tree, blobstore.Version
	}
	for id := range r.kinds {
		used[id] = true
		r.miss(id)
	}
	for i := range r.snap.Versions {
		v := &r.snap.Versions[i]
		t, err := r.tree(ctx, v)
		if err != nil {
			return context.Cause(ctx)
		}
		for _, b := range t.AllBlobs() {
			used[b.ID] = true
			r.miss(b.ID)
		}
	}
	for id := range r.damaged {
		if !used[id] {
			delete(r.damaged, id)
		}
	}
	r.used = used
	return nil
}

// miss notes a blob that lies nowhere.
func (r *Repair) miss(id blobstore.ID) {
	if _, ok := r.snap.Locate(id); !ok && !r.mended[id] {
		r.damaged[id], r.lost[id], r.hurt[id] = blobstore.Location{}, true, true
	}
}

// tree is the tree of a version, stored or mended.
func (r *Repair) tree(ctx context.Context, v *index.Version) (*index.Tree, error) {
	if t := r.trees[v.Tree]; t != nil {
		return t, nil
	}
	return r.snap.Tree(ctx, r.view, v)
}

// inOrder sorts blobs by where they lie.
func (r *Repair) inOrder(ids []blobstore.ID) []blobstore.ID {
	slices.SortFunc(ids, func(a, b blobstore.ID) int {
		la, _ := r.snap.Locate(a)
		lb, _ := r.snap.Locate(b)
		return cmp.Or(cmp.Compare(la.Pack, lb.Pack), cmp.Compare(la.Record, lb.Record), cmp.Compare(la.Offset, lb.Offset))
	})
	return ids
}

// Sound tells whether there is nothing to repair.
func (r *Repair) Sound() bool { return len(r.packs) == 0 && r.found == 0 }

// Missing is how many blobs no source has mended so far.
func (r *Repair) Missing() int { return len(r.damaged) }

// Versions lists the versions that miss something that no source has mended
// so far.
func (r *Repair) Versions(ctx context.Context) []index.Version {
	var list []index.Version
	for i := range r.snap.Versions {
		v := &r.snap.Versions[i]
		t, err := r.tree(ctx, v)
		if err != nil || slices.ContainsFunc(t.AllBlobs(), func(b index.Ref) bool { _, bad := r.damaged[b.ID]; return bad }) {
			list = append(list, *v)
		}
	}
	return list
}

// fromItself mends what the store has a second time, as it has the chunks of a
// program that is stored quickly and densely.
func (r *Repair) fromItself(ctx context.Context) error {
	for _, ref := range r.snap.Packs {
		if len(r.damaged) == 0 {
			break
		}
		p, err := blobstore.OpenPack(r.store.PackDir(), ref.Name)
		if err != nil {
			continue
		}
		for rec, err := range p.Records(false) {
			if err != nil {
				break // what is before that is good to use
			}
			if err = r.fromRecord(ctx, ref.Number, rec); err != nil {
				p.Close()
				return err
			}
		}
		p.Close()
	}
	return nil
}

// fromRecord takes from a record what the index has elsewhere and cannot be read there.
func (r *Repair) fromRecord(ctx context.Context, pack uint32, rec *blobstore.Record) error {
	second := func(m blobstore.Member) bool {
		at, bad := r.damaged[m.ID]
		return bad && (at.Pack != pack || at.Record != rec.Offset)
	}
	if !slices.ContainsFunc(rec.Blobs(), second) {
		return nil
	}
	d, err := r.view.RecordAt(ctx, blobstore.Location{Pack: pack, Record: rec.Offset})
	if err != nil {
		return context.Cause(ctx) // nothing is lost by that
	}
	defer d.Release()
	return r.take(ctx, func(id blobstore.ID) ([]byte, error) {
		i := slices.IndexFunc(d.Blobs, func(m blobstore.Member) bool { return m.ID == id && second(m) })
		if i < 0 || !d.Sound(i) {
			return nil, blobstore.ErrNotFound
		}
		return slices.Clone(d.Bytes(i)), nil
	})
}

// FromStore takes what it has from another store.
func (r *Repair) FromStore(ctx context.Context, other *index.Store) error {
	_, view, err := other.OpenView(blobstore.NewCache(64 << 20))
	if err != nil {
		return err
	}
	defer view.Close()
	return r.take(ctx, func(id blobstore.ID) ([]byte, error) { return view.Blob(ctx, id) })
}

// take mends what read has.
func (r *Repair) take(ctx context.Context, read func(blobstore.ID) ([]byte, error)) error {
	added, err := r.add(ctx, r.inOrder(slices.Collect(maps.Keys(r.damaged))), read)
	r.settle(added)
	if err == nil && r.used == nil {
		err = r.forgetUnused(ctx)
	}
	return err
}

// settle notes what is mended.
func (r *Repair) settle(ids []blobstore.ID) {
	for _, id := range ids {
		delete(r.damaged, id)
		delete(r.lost, id)
		r.mended[id] = true
	}
}

// add queues those of some blobs that read has, in groups, and says which.
func (r *Repair) add(ctx context.Context, ids []blobstore.ID, read func(blobstore.ID) ([]byte, error)) ([]blobstore.ID, error) {
	var added []blobstore.ID
	g, size := blobstore.Group{}, 0
	flush := func() error {
		full := g
		g, size = blobstore.Group{}, 0
		if len(full.Blobs) == 0 {
			return nil
		}
		return r.w.Add(ctx, full)
	}
	for _, id := range ids {
		b, err := read(id)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil || blobstore.Sum(b) != id {
			continue // it is not there, or damaged there too
		}
		if r.kinds[id] == blobstore.Tree {
			if r.trees[id], err = index.DecodeTree(b); err != nil {
				return nil, fmt.Errorf("tree %s: %w", id, err)
			}
		}
		if len(g.Blobs) == blobstore.MaxGroup || size+len(b) > groupSize[index.ForBuild] || g.Kind != r.kinds[id] {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		g.Kind = r.kinds[id]
		g.Blobs = append(g.Blobs, blobstore.Blob{ID: id, Data: b})
		size += len(b)
		added = append(added, id)
	}
	return added, flush()
}

// FromSource takes what it has from a release.
func (r *Repair) FromSource(ctx context.Context, src source.Source) error {
	in := newIntake(r.snap, r.view, r.w)
	in.wanted = map[blobstore.ID]bool{}
	for id := range r.damaged {
		in.wanted[id] = true
	}
	in.proof = newProof(ctx, Options{})
	if err := in.read(ctx, src); err != nil {
		return err
	}
	r.settle(slices.Collect(maps.Keys(in.mine)))
	tree, err := index.EncodeTree(in.items)
	if err != nil {
		return fmt.Errorf("%s: %w", src.Label(), err)
	}
	return r.take(ctx, func(id blobstore.ID) ([]byte, error) {
		if id != blobstore.Sum(tree) {
			return nil, blobstore.ErrNotFound
		}
		return tree, nil
	})
}

// Commit makes what was mended part of the store. A pack with damage goes when
// nothing is left in it that was not mended.
func (r *Repair) Commit(ctx context.Context) (*RepairResult, error) {
	if err := r.records(ctx); err != nil {
		return nil, err
	}
	if err := r.spread(ctx); err != nil {
		return nil, err
	}
	res := &RepairResult{Damaged: r.found, Mended: r.found - len(r.damaged)}
	keep := map[uint32]bool{}
	for _, loc := range r.damaged {
		keep[loc.Pack] = true
	}
	var c index.Change
	var old []blobstore.Pack
	for _, ref := range r.snap.Packs {
		if !r.packs[ref.Number] || keep[ref.Number] {
			continue
		}
		if err := r.salvage(ctx, ref); err != nil {
			return nil, err
		}
		c.Drop = append(c.Drop, ref.Number)
		old = append(old, blobstore.Pack{Name: ref.Name})
	}
	res.Dropped = len(old)
	var err error
	if c.Packs, err = r.w.Finish(); err != nil {
		return nil, err
	}
	if len(c.Packs) == 0 && len(c.Drop) == 0 {
		return res, nil
	}
	for _, p := range c.Packs {
		res.Stored += p.Size
	}
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), r.lock.Discard(c.Packs))
	}
	if err := r.lock.Commit(c); err != nil {
		return nil, errors.Join(err, r.lock.Discard(c.Packs))
	}
	return res, r.lock.Discard(old)
}

// records mends the descriptions of versions, which the index has too.
func (r *Repair) records(ctx context.Context) error {
	made := map[blobstore.ID][]byte{}
	for i := range r.snap.Versions {
		b, err := index.VersionRecord(&r.snap.Versions[i])
		if err != nil {
			return err
		}
		made[blobstore.Sum(b)] = b
	}
	return r.take(ctx, func(id blobstore.ID) ([]byte, error) {
		if b, ok := made[id]; ok {
			return b, nil
		}
		return nil, blobstore.ErrNotFound
	})
}

// spread finds the records that need a lost blob as base, though what they
// hold can be read: of a program of which one part is damaged, others may use
// the rest, and of a group those of it that are only bases are not stored again.
// They are encoded anew, without it, wherever they lie; then the program that such
// a record holds is no base either.
func (r *Repair) spread(ctx context.Context) error {
	if len(r.lost)+len(r.anew) == 0 {
		return nil
	}
	for before := -1; before < len(r.lost)+len(r.moved); {
		before = len(r.lost) + len(r.moved)
		for _, ref := range r.snap.Packs {
			seen, err := r.eachRecord(ref, false, func(rec *blobstore.Record, here []blobstore.ID) error {
				at := place{ref.Number, rec.Offset}
				if !r.anew[at] && slices.ContainsFunc(rec.Bases(), func(id blobstore.ID) bool { return r.lost[id] || rec.IsProgram() && r.moved[id] }) {
					r.anew[at], r.packs[ref.Number] = true, true
				}
				if r.anew[at] {
					r.lose(here)
				}
				return ctx.Err()
			})
			if err != nil {
				return context.Cause(ctx)
			}
			r.lose(r.others(ref, seen))
		}
	}
	return nil
}

// lose notes that what is only a base will not be stored any more, and the rest
// by itself.
func (r *Repair) lose(ids []blobstore.ID) {
	for _, id := range ids {
		r.moved[id] = true
		if !r.wants(id) {
			r.lost[id] = true
		}
	}
}

// eachRecord calls fn for the records of a pack for whose blobs the index
// names them, as far as the pack can be read in order, and returns all these
// blobs. The error is fn's.
func (r *Repair) eachRecord(ref blobstore.PackRef, content bool, fn func(*blobstore.Record, []blobstore.ID) error) (map[blobstore.ID]bool, error) {
	seen := map[blobstore.ID]bool{}
	p, err := blobstore.OpenPack(r.store.PackDir(), ref.Name)
	if err != nil {
		return seen, nil
	}
	defer p.Close()
	for rec, err := range p.Records(content) {
		if err != nil {
			break
		}
		var here []blobstore.ID
		for _, b := range rec.Placed() {
			if r.reads(ref.Number, b) {
				here = append(here, b.ID)
				seen[b.ID] = true
			}
		}
		if len(here) == 0 {
			continue
		}
		if err := fn(rec, here); err != nil {
			return seen, err
		}
	}
	return seen, nil
}

// reads says whether the index has a blob just where a record of a pack has it.
func (r *Repair) reads(pack uint32, b blobstore.Placed) bool {
	at, ok := r.snap.Locate(b.ID)
	b.Location.Pack = pack
	return ok && at == b.Location
}

// others lists the blobs that the index says are in a pack, but those seen.
// Some can be read all the same: only what is before them in the pack cannot.
func (r *Repair) others(ref blobstore.PackRef, seen map[blobstore.ID]bool) []blobstore.ID {
	var ids []blobstore.ID
	r.snap.EachBlob(func(id blobstore.ID, loc blobstore.Location) {
		if loc.Pack == ref.Number && !seen[id] {
			ids = append(ids, id)
		}
	})
	return r.inOrder(ids)
}

// wants tells whether a version has a blob. Others are only bases.
func (r *Repair) wants(id blobstore.ID) bool { return r.used == nil || r.used[id] }

// salvage copies what is sound of a pack: whole records as they are stored,
// and of others the blobs that can be read and that versions have.
func (r *Repair) salvage(ctx context.Context, ref blobstore.PackRef) error {
	seen, err := r.eachRecord(ref, true, func(rec *blobstore.Record, here []blobstore.ID) error {
		if r.anew[place{ref.Number, rec.Offset}] {
			return r.again(ctx, here)
		}
		// What is read from elsewhere stays there.
		return r.w.Copy(ctx, rec, func(p blobstore.Placed) bool { return r.reads(ref.Number, p) })
	})
	if err == nil {
		err = r.again(ctx, r.others(ref, seen))
	}
	return err
}

// again queues those of some blobs that versions have and that could be read.
func (r *Repair) again(ctx context.Context, ids []blobstore.ID) error {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id blobstore.ID) bool { return !r.wants(id) || r.hurt[id] })
	var failed error
	added, err := r.add(ctx, ids, func(id blobstore.ID) ([]byte, error) {
		b, err := r.view.Blob(ctx, id)
		failed = cmp.Or(failed, err)
		return b, err
	})
	if err == nil && len(added) < len(ids) {
		// Its pack would go.
		err = fmt.Errorf("what could be read a moment ago cannot be read any more: %w", cmp.Or(failed, error(blobstore.ErrDamaged)))
	}
	return err
}

// RepairSources are the names by which the releases of versions can be had,
// for a repair that is given no other source.
func RepairSources(versions []index.Version) []string {
	var list []string
	for _, v := range versions {
		if name := strings.Join([]string{v.Release, v.Platform}, "."); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}
