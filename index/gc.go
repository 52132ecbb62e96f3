package index

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"gofs/blobstore"
)

// GCOptions say what gc is to do. The zero value removes all it can.
type GCOptions struct {
	// MaxUnused is the part of a pack, from 0 to 1, that may be unused
	// without the pack being rewritten.
	MaxUnused float64
	DryRun    bool
	room      int64 // instead of what the file system has, in tests
	// Progress is called with the bytes of packs dealt with and their sum.
	Progress func(done, total int64)
}

// GCResult is what gc did, or would do.
type GCResult struct {
	Freed     int64 `json:"freed"`     // bytes of the store
	Removed   int   `json:"removed"`   // packs without a blob in use
	Rewritten int   `json:"rewritten"` // packs with unused blobs
	Garbage   int   `json:"garbage"`   // packs and files that no index names
	Unused    int64 `json:"unused"`    // bytes left in packs that were not worth it
	Bases     int64 `json:"bases"`     // bytes of content kept only as bases
}

// GC removes from the packs what no version needs, and from the folder of the
// packs what no index names. Packs that a mount has open stay readable there.
//
// What is left of packs is written to new ones before they are removed. Where the file
// system has no room for all of that, GC goes on by as many packs as it has room for, and
// what was done is kept if there is not enough for one.
func (w *Writer) GC(ctx context.Context, o GCOptions) (*GCResult, error) {
	before, err := folderSize(w.store.dir)
	if err != nil {
		return nil, err
	}
	sum := &GCResult{}
	for more := true; more; {
		var r *GCResult
		if r, more, err = w.collect(ctx, o); err != nil {
			return nil, fmt.Errorf("gc: %w", err)
		}
		r.Freed += sum.Freed
		r.Removed += sum.Removed
		r.Rewritten += sum.Rewritten
		r.Garbage += sum.Garbage
		sum = r
	}
	if o.DryRun {
		return sum, nil
	}
	after, err := folderSize(w.store.dir)
	sum.Freed = before - after
	return sum, err
}

// collect does what there is room for, and says whether more is to do.
func (w *Writer) collect(ctx context.Context, o GCOptions) (r *GCResult, more bool, err error) {
	snap, view, err := w.store.OpenView(blobstore.NewCache(64 << 20))
	if err != nil {
		return nil, false, err
	}
	defer view.Close() // packs that are removed take room until then
	for name, err := range view.Broken() {
		return nil, false, fmt.Errorf("pack %s: %w (gofs verify lists what it hits)", name, err)
	}
	c := &collection{writer: w, opts: o, snap: snap, view: view, live: map[blobstore.ID]bool{}, r: &GCResult{}}
	if err := c.mark(ctx); err != nil {
		return nil, false, err
	}
	more, err = c.sweep(ctx)
	return c.r, more, err
}

// collection is a gc under way.
type collection struct {
	writer *Writer
	opts   GCOptions
	snap   *Snapshot
	view   *blobstore.View
	live   map[blobstore.ID]bool // what is kept
	wanted map[blobstore.ID]bool // of it, what versions have
	quick  map[blobstore.ID]bool // what is read from quick records
	packs  []packUse
	eased  bool // a record that was encoded anew may need fewer bases
	r      *GCResult
}

// packUse is how much of a pack is in use.
type packUse struct {
	ref    blobstore.PackRef
	blobs  int   // in use
	used   int64 // bytes of records and parts of records
	unused int64
}

// mark finds the blobs in use: those of the versions, and the bases that
// these need.
func (c *collection) mark(ctx context.Context) error {
	files := map[PartsKey]bool{} // of several blobs
	for i := range c.snap.Versions {
		v := &c.snap.Versions[i]
		t, err := c.snap.Tree(ctx, c.view, v)
		if err != nil {
			return err
		}
		c.live[v.Tree] = true
		record, err := VersionRecord(v)
		if err != nil {
			return err
		}
		c.live[blobstore.Sum(record)] = true
		for _, r := range t.AllBlobs() {
			c.live[r.ID] = true
		}
		for j := range t.Entries {
			if e := &t.Entries[j]; len(t.Blobs(e)) > 1 {
				files[PartsOf(t, e)] = true
			}
		}
	}
	c.wanted = maps.Clone(c.live)
	c.quick = map[blobstore.ID]bool{}
	type stored struct {
		pack uint32
		*blobstore.Record
	}
	var based, programs []stored
	err := c.eachRecord(ctx, func(ref blobstore.PackRef, r *blobstore.Record) {
		if len(r.Bases()) > 0 {
			based = append(based, stored{ref.Number, r})
		}
		if r.IsProgram() && len(r.Blobs()) > 1 {
			programs = append(programs, stored{ref.Number, r})
		}
		if r.Quick() {
			for _, b := range r.Placed() {
				if c.lies(ref.Number, b) {
					c.quick[b.ID] = true
				}
			}
		}
	})
	if err != nil {
		return err
	}
	// A program of a version that is stored quickly, too, stays: those of neighbouring
	// releases that are still to come are deltas of it.
	for _, r := range programs {
		if files[PartsOfRecord(r.Record)] && slices.ContainsFunc(r.Parts(), func(m blobstore.Member) bool { return c.quick[m.ID] }) {
			c.live[r.Blobs()[0].ID] = true
		}
	}
	// Chains are at most MaxDepth long.
	for range blobstore.MaxDepth {
		for _, r := range based {
			if len(c.used(r.pack, r.Record)) > 0 {
				for _, id := range r.Bases() {
					c.live[id] = true
				}
			}
		}
	}
	return nil
}

// used lists the blobs of a record that are in use and read from there. A
// program is used as a whole if any part of it is: parts of it may lie in the
// records of other programs too, and for a delta it must be whole.
func (c *collection) used(pack uint32, r *blobstore.Record) []int {
	var used, all []int
	placed := r.Placed()
	live := true
	for i, b := range placed {
		all = append(all, i)
		if c.here(pack, b) {
			used = append(used, i)
		}
		live = live && (c.live[b.ID] || r.IsProgram() && i == 0 && len(placed) > 1)
	}
	if len(used) > 0 && r.IsProgram() && (live || c.live[placed[0].ID]) {
		return all
	}
	return used
}

// eachRecord calls fn for every record of every pack that the index names.
func (c *collection) eachRecord(ctx context.Context, fn func(blobstore.PackRef, *blobstore.Record)) error {
	for _, ref := range c.snap.Packs {
		p, err := c.view.Pack(ref.Number)
		if err != nil {
			return err
		}
		for r, err := range p.Records(false) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			fn(ref, r)
		}
	}
	return nil
}

// here says whether a blob of a record is in use and read from there.
func (c *collection) here(pack uint32, b blobstore.Placed) bool {
	return c.live[b.ID] && c.lies(pack, b)
}

// lies says whether a blob of a record is read from there.
func (c *collection) lies(pack uint32, b blobstore.Placed) bool {
	loc, ok := c.snap.Locate(b.ID)
	return ok && loc.Pack == pack && loc.Record == b.Location.Record && loc.Offset == b.Location.Offset
}

// weigh finds out how much of each pack is in use. A blob's share of its
// record may be none, so they are counted too.
func (c *collection) weigh(ctx context.Context) error {
	index := map[uint32]int{}
	for i, ref := range c.snap.Packs {
		index[ref.Number] = i
		c.packs = append(c.packs, packUse{ref: ref})
	}
	return c.eachRecord(ctx, func(ref blobstore.PackRef, r *blobstore.Record) {
		p := &c.packs[index[ref.Number]]
		placed := r.Placed()
		for _, b := range placed {
			p.unused += int64(b.Stored)
		}
		for _, i := range c.used(ref.Number, r) {
			p.blobs++
			p.used += int64(placed[i].Stored)
			p.unused -= int64(placed[i].Stored)
			if r.Kind() == blobstore.Data && !c.wanted[placed[i].ID] {
				c.r.Bases += int64(placed[i].Stored)
			}
		}
	})
}

func (c *collection) sweep(ctx context.Context) (more bool, err error) {
	if err := c.weigh(ctx); err != nil {
		return false, err
	}
	var unused, rewrite []packUse
	for _, p := range c.packs {
		switch {
		case p.blobs == 0:
			unused = append(unused, p)
		case p.unused > 0 && float64(p.unused) > c.opts.MaxUnused*float64(p.used+p.unused):
			rewrite = append(rewrite, p)
		default:
			c.r.Unused += p.unused
		}
	}
	if !c.opts.DryRun {
		rewrite, more = c.fitting(rewrite, len(unused) > 0)
	}
	change := Change{}
	total := int64(0)
	for _, p := range unused {
		c.r.Removed++
		c.r.Freed += p.ref.Size
		change.Drop = append(change.Drop, p.ref.Number)
	}
	for _, p := range rewrite {
		c.r.Rewritten++
		c.r.Freed += p.unused
		total += p.ref.Size
		change.Drop = append(change.Drop, p.ref.Number)
	}
	// Before the packs that this gc drops join it.
	if err := c.removeGarbage(); err != nil || c.opts.DryRun {
		return false, err
	}
	if len(change.Drop) > 0 {
		if err := c.replace(ctx, &change, rewrite, total); err != nil {
			return false, err
		}
	}
	return more || c.eased, c.writer.store.compactDatabase()
}

// fitting returns of the packs that are to be rewritten those that there is room for:
// none if others are removed first, else at least the one that needs least.
func (c *collection) fitting(rewrite []packUse, others bool) (now []packUse, more bool) {
	if len(rewrite) == 0 {
		return nil, false
	}
	room, need := c.room(), int64(0)
	for _, p := range rewrite {
		need += p.used
	}
	if need <= room {
		return rewrite, false
	}
	if others {
		return nil, true
	}
	slices.SortStableFunc(rewrite, func(a, b packUse) int { return cmp.Compare(a.used, b.used) })
	n, need := 1, rewrite[0].used
	for n < len(rewrite) && need+rewrite[n].used <= room {
		need += rewrite[n].used
		n++
	}
	return rewrite[:n], n < len(rewrite)
}

// spare is left for the index and what others write.
const spare = 8 << 20

// room is how many bytes of packs can be written.
func (c *collection) room() int64 {
	if c.opts.room > 0 {
		return c.opts.room
	}
	var st unix.Statfs_t
	if err := unix.Statfs(c.writer.store.PackDir(), &st); err != nil {
		return math.MaxInt64
	}
	return int64(st.Bavail)*st.Bsize - spare
}

// replace writes what is in use of some packs to new ones, and commits.
func (c *collection) replace(ctx context.Context, change *Change, rewrite []packUse, total int64) error {
	w, err := blobstore.NewWriter(c.writer.store.PackDir(), blobstore.WriterOptions{})
	if err != nil {
		return err
	}
	defer w.Abort()
	var done int64
	for _, p := range rewrite {
		if err := c.rewrite(ctx, w, p.ref); err != nil {
			return err
		}
		done += p.ref.Size
		if c.opts.Progress != nil {
			c.opts.Progress(done, total)
		}
	}
	if change.Packs, err = w.Finish(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(context.Cause(ctx), c.writer.Discard(change.Packs))
	}
	if err := c.writer.Commit(*change); err != nil {
		return errors.Join(err, c.writer.Discard(change.Packs))
	}
	return c.removeDropped(change.Drop)
}

// removeDropped removes the packs that the index does not name any more.
func (c *collection) removeDropped(numbers []uint32) error {
	var packs []blobstore.Pack
	for _, p := range c.packs {
		if slices.Contains(numbers, p.ref.Number) {
			packs = append(packs, blobstore.Pack{Name: p.ref.Name})
		}
	}
	return c.writer.Discard(packs)
}

// rewrite queues the records of a pack that are in use. One that is in use in
// part is encoded anew, with the bases it had if a compaction made it.
func (c *collection) rewrite(ctx context.Context, w *blobstore.Writer, ref blobstore.PackRef) error {
	p, err := c.view.Pack(ref.Number)
	if err != nil {
		return err
	}
	for r, err := range p.Records(true) {
		if err != nil {
			return err
		}
		used := c.used(ref.Number, r)
		switch len(used) {
		case 0:
			continue
		case len(r.Blobs()):
			// What is read from elsewhere stays there: here it may lie deeper than those
			// that need it allow, or in the record of a program that it is a part of.
			err = w.Copy(ctx, r, func(b blobstore.Placed) bool { return c.lies(ref.Number, b) })
		default:
			err = c.regroup(ctx, w, r, used)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) regroup(ctx context.Context, w *blobstore.Writer, r *blobstore.Record, used []int) error {
	d, err := c.view.Decode(ctx, r)
	if err != nil {
		return err
	}
	defer d.Release()
	g := blobstore.Group{Kind: r.Kind()}
	for _, i := range used {
		if !d.Sound(i) {
			return fmt.Errorf("blob %s: %w (gofs verify lists what it hits)", d.Blobs[i].ID, blobstore.ErrDamaged)
		}
		g.Blobs = append(g.Blobs, blobstore.Blob{ID: d.Blobs[i].ID, Data: bytes.Clone(d.Bytes(i))})
	}
	if g.Quick = r.Quick(); g.Quick || r.Effort() == 0 {
		return w.Add(ctx, g)
	}
	if !r.IsProgram() {
		for _, id := range r.Bases() {
			b, err := c.view.Blob(ctx, id)
			if err != nil {
				return err
			}
			g.Bases = append(g.Bases, blobstore.Blob{ID: id, Data: b})
		}
		g.Depth = r.Depth() - 1
		c.eased = c.eased || g.Bases != nil
	}
	dense, err := blobstore.EncodeGroup(r.Effort(), g)
	if err != nil {
		return err
	}
	return w.Copy(ctx, dense, nil)
}

// removeGarbage removes the packs that the index does not name, and what a
// crash left half done. Nobody else can be about to publish them: that takes
// the lock that this process has.
func (c *collection) removeGarbage() error {
	named := map[string]bool{}
	for _, p := range c.snap.Packs {
		named[p.Name] = true
	}
	dir := c.writer.store.dir
	packs, temps, err := blobstore.ListPacks(c.writer.store.PackDir())
	if err != nil {
		return err
	}
	var garbage []string
	for _, name := range []string{databaseFile, generationFile, formatFile} {
		garbage = append(garbage, name+newSuffix)
	}
	for _, name := range packs {
		if !named[name] {
			garbage = append(garbage, filepath.Join(packFolder, name+blobstore.Suffix))
		}
	}
	for _, name := range temps {
		garbage = append(garbage, filepath.Join(packFolder, name))
	}
	for _, name := range garbage {
		st, serr := os.Lstat(filepath.Join(dir, name))
		if serr != nil {
			continue
		}
		c.r.Garbage++
		if c.opts.DryRun {
			c.r.Freed += st.Size()
		} else {
			err = errors.Join(err, blobstore.Remove(dir, name))
		}
	}
	return err
}

func (s *Store) packRefs() (refs []blobstore.PackRef, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		refs, err = readPacks(tx)
		return err
	})
	return refs, err
}

// compactDatabase writes the database anew without its free pages, when they
// are worth it. The caller has the lock; withDB copes with the change of file.
func (s *Store) compactDatabase() error {
	path := filepath.Join(s.dir, databaseFile)
	return s.withDB(false, func(db *bolt.DB) error {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if free := int64(db.Stats().FreePageN * db.Info().PageSize); free < 1<<20 || 4*free < st.Size() {
			return nil
		}
		if err := os.Remove(path + newSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		to, err := bolt.Open(path+newSuffix, 0o644, &bolt.Options{OpenFile: openInStore})
		if err != nil {
			return err
		}
		to.AllocSize = 1 << 20
		err = errors.Join(bolt.Compact(to, db, 0), to.Sync(), to.Close())
		if err == nil {
			err = os.Rename(path+newSuffix, path)
		}
		if err != nil {
			os.Remove(path + newSuffix)
			return fmt.Errorf("compact index: %w", err)
		}
		return blobstore.SyncDir(s.dir)
	})
}

// folderSize adds up the files below dir.
func folderSize(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
