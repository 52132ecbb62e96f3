// Package compact encodes what a store holds anew, for density.
//
// It works in rounds, one for each release. A round plans from a snapshot,
// encodes into new packs without holding the store, takes the lock for the
// moment of one commit, and begins again from what the store then holds. So
// imports, mounts and removals go on meanwhile; what is interrupted loses the
// round under way; and since a record says with what effort it was made, the
// next compaction goes on where the last one ended. At the end the packs that
// nothing is left in are removed, as gofs gc does.
//
// A program becomes one record, a delta of the same program of a neighbouring
// release, or of the same release for another system on the same architecture,
// and of the go command and the compiler of its own, in the form of
// package goprog. Small files are gathered by folder, with the files of the
// same paths in a neighbouring release as bases. What builds with a release in
// use need can be stored in a form that is read quickly.
package compact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
)

// Options say how a store is compacted. The zero value is ready to use.
type Options struct {
	// Effort is what each record may take, 2 by default: 1 takes half the time
	// for some percent more room, 3 twice the time for one percent less.
	Effort blobstore.Effort
	// MaxDepth bounds the chains of bases, 3 to blobstore.MaxDepth, 4 by default.
	// From 6 on the tools are deltas of other minor releases' too, for less room
	// and slower reads. The programs of a platform may have one more where the
	// store has another platform of its architecture.
	MaxDepth int
	// MaxChain bounds the plain bytes that a read of a small file decodes.
	// Default 4 MiB.
	MaxChain int64
	// room is less than blobstore.MaxChain in tests.
	room int64
	// Rebase only makes anew what has bases that are of no version any more, so
	// that these need not be kept.
	Rebase bool
	// Quick names versions. The programs that their builds run are stored once more,
	// and the sources that these read without bases, to be read more quickly than
	// out of an import: some 28 MB a release. What was so of others is not any
	// more. If nil, all stays as it is.
	Quick []string
	// Workers encode at the same time. Default: GOMAXPROCS.
	Workers int
	// Lock says how to wait for the right to write.
	Lock index.LockOptions
	// Progress is called, also concurrently, with the plain bytes dealt with and
	// their sum.
	Progress func(done, total int64)
}

// Result is what a compaction did.
type Result struct {
	Before  int64         `json:"before"` // bytes of the store
	After   int64         `json:"after"`
	Records int           `json:"records"` // made anew
	Plain   int64         `json:"plain"`   // bytes of these
	Bases   int64         `json:"bases"`   // bytes kept only as bases of others
	Rounds  int           `json:"rounds"`
	Elapsed time.Duration `json:"-"`
}

// DefaultMaxDepth is the bound of chains that Options of 0 mean.
const DefaultMaxDepth = 4

func (o *Options) defaults() {
	if o.Effort == 0 {
		o.Effort = 2
	}
	if o.MaxDepth == 0 {
		o.MaxDepth = DefaultMaxDepth
	}
	if o.room == 0 {
		o.room = blobstore.MaxChain
	}
	if o.MaxChain == 0 {
		o.MaxChain = 4 << 20
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
}

// Run compacts a store. After an error or at the end of the context the store
// is whole, and what the rounds before have done is kept.
func Run(ctx context.Context, store *index.Store, o Options) (*Result, error) {
	start := time.Now()
	o.defaults()
	if o.Effort > blobstore.MaxEffort || o.MaxDepth < 3 || o.MaxDepth > blobstore.MaxDepth {
		return nil, fmt.Errorf("compact: effort %d, chains of %d", o.Effort, o.MaxDepth)
	}
	if err := known(store, o.Quick); err != nil {
		return nil, fmt.Errorf("compact: %w", err)
	}
	// Not only once minutes of work are to be published.
	if err := unix.Access(store.PackDir(), unix.W_OK); err != nil {
		return nil, fmt.Errorf("compact: %w", &fs.PathError{Op: "write to", Path: store.PackDir(), Err: err})
	}
	c := &compaction{store: store, opts: o, cache: blobstore.NewCache(cacheSize), trees: map[blobstore.ID]*index.Tree{}, tried: map[string]int{}, moved: map[string]int{}, r: &Result{}}
	var err error
	if c.r.Before, err = store.Size(); err != nil {
		return nil, err
	}
	for more := true; more && err == nil; {
		more, err = c.round(ctx)
	}
	// Also after a compaction that was interrupted before it came to this, or in
	// which others were in the way of what is quick, or the disk was full.
	if err == nil || errors.Is(err, errMoved) || errors.Is(err, unix.ENOSPC) {
		err = errors.Join(err, c.sweep(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("compact: %w", err)
	}
	if o.Progress != nil {
		o.Progress(c.done, c.done)
	}
	c.r.After, err = store.Size()
	c.r.Elapsed = time.Since(start)
	return c.r, err
}

// known finds out whether the store has all of some versions.
func known(store *index.Store, names []string) error {
	if len(names) == 0 {
		return nil
	}
	list, err := store.Versions()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(list, func(v index.Version) bool { return v.Name == name }) {
			return fmt.Errorf("version %s %w", name, index.ErrNoVersion)
		}
	}
	return nil
}

// cacheSize bounds the memory for decoded records: small ones, programs, and
// programs as bases.
const cacheSize = 480 << 20

type compaction struct {
	store *index.Store
	opts  Options
	cache *blobstore.Cache
	trees map[blobstore.ID]*index.Tree
	tried map[string]int // rounds that a version has had
	moved map[string]int // of these, those that could not be published
	last  int            // rounds that had nothing to do but what is quick
	done  int64          // plain bytes of the rounds that are over
	r     *Result
}

// maxTries is how many rounds a version gets when what it plans with is taken
// away before it commits.
const maxTries = 4

// errMoved means that a round's bases are not what they were any more.
var errMoved = errors.New("the store has changed meanwhile")

// round encodes one version and reports whether there may be more to do.
func (c *compaction) round(ctx context.Context) (more bool, err error) {
	snap, view, err := c.store.OpenView(c.cache)
	if err != nil {
		return false, err
	}
	defer view.Close()
	for name, err := range view.Broken() {
		return false, fmt.Errorf("pack %s: %w (gofs verify lists what it hits)", name, err)
	}
	r := &round{c: c, snap: snap, view: view}
	if err := r.survey(ctx); err != nil {
		return false, err
	}
	work, left := r.next()
	if work == nil {
		return c.lastRound(ctx, r)
	}
	c.tried[work.version.Name]++
	r.total = left
	r.progress(left)
	packs, err := r.encode(ctx, work)
	if errors.Is(err, blobstore.ErrSwept) {
		c.moved[work.version.Name]++
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if len(packs) == 0 {
		return true, nil
	}
	if c.opts.Rebase && !r.gains() {
		c.tried[work.version.Name] = maxTries
		return true, c.discard(ctx, packs)
	}
	err = r.commit(ctx, packs)
	if errors.Is(err, errMoved) {
		c.moved[work.version.Name]++
		return true, nil
	}
	if err != nil {
		return false, err
	}
	c.r.Rounds++
	r.count()
	return true, nil
}

// count adds what a round has done.
func (r *round) count() {
	r.c.r.Records += r.records
	r.c.r.Plain += r.plain
	r.c.done += r.plain
}

// commit publishes the packs if what they need is still there.
func (r *round) commit(ctx context.Context, packs []blobstore.Pack) error {
	lock, err := r.c.store.Lock(ctx, r.c.opts.Lock)
	if err != nil {
		// The packs are garbage for gc: only with the lock can one be sure that
		// no other compaction has just published the very same.
		return err
	}
	defer lock.Close()
	err = r.there(packs)
	if err == nil {
		err = r.check(ctx, packs)
	}
	if err != nil {
		return errors.Join(err, lock.Discard(packs))
	}
	if err := lock.Commit(index.Change{Packs: packs}); err != nil {
		return errors.Join(err, lock.Discard(packs))
	}
	return nil
}

// settle leaves out of packs those places of blobs that are not to be read from
// there. A blob may be a part of several programs, a program itself, and in a
// quick record besides. As a program it stays one, since others are deltas of it by
// its ID; else it is read from its quick record, old or new. The functions tell what
// a blob is read from before the packs are published. It returns whether a place is
// left in.
func settle(packs []blobstore.Pack, quick, program func(blobstore.ID) bool) (left func(blobstore.Placed) bool) {
	quickNow, programNow := map[blobstore.ID]bool{}, map[blobstore.ID]bool{}
	for _, p := range packs {
		for _, b := range p.Blobs {
			quickNow[b.ID] = quickNow[b.ID] || b.Quick
			programNow[b.ID] = programNow[b.ID] || b.Program
		}
	}
	left = func(b blobstore.Placed) bool {
		return b.Program || !programNow[b.ID] && !program(b.ID) && (b.Quick || !quickNow[b.ID] && !quick(b.ID))
	}
	for i := range packs {
		packs[i].Blobs = slices.DeleteFunc(packs[i].Blobs, func(b blobstore.Placed) bool { return !left(b) })
	}
	return left
}

// gains says whether what was made anew takes less room than what it is made
// of and the bases that this need not keep any more.
func (r *round) gains() bool {
	var now, before int64
	seen := map[*stored]bool{}
	var add func(id blobstore.ID)
	add = func(id blobstore.ID) {
		s := r.at(id)
		if s == nil || seen[s] || s.rec.Quick() { // that stays
			return
		}
		seen[s] = true
		before += s.rec.Size()
		for _, base := range s.rec.Bases() {
			if !r.used[base] {
				add(base)
			}
		}
	}
	for _, rec := range r.made {
		now += rec.Size()
		for _, m := range rec.Blobs() {
			add(m.ID)
		}
	}
	return now < before
}

// discard removes packs that are not to be published.
func (c *compaction) discard(ctx context.Context, packs []blobstore.Pack) error {
	lock, err := c.store.Lock(ctx, c.opts.Lock)
	if err != nil {
		return err
	}
	defer lock.Close()
	return lock.Discard(packs)
}

// there says whether the packs still are where they were written: a gc that
// had the lock before took them for garbage.
func (r *round) there(packs []blobstore.Pack) error {
	for _, p := range packs {
		st, err := os.Stat(filepath.Join(r.c.store.PackDir(), p.Name+blobstore.Suffix))
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() != p.Size {
			return errMoved
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check says whether the records of the round may be published in the store
// as it is now, and leaves out of the packs what is not to be read from there. The
// caller has the lock.
func (r *round) check(ctx context.Context, packs []blobstore.Pack) error {
	snap, view, err := r.c.store.OpenView(r.c.cache)
	if err != nil {
		return err
	}
	defer view.Close()
	now := r
	if snap.Generation != r.snap.Generation {
		now = &round{c: r.c, snap: snap, view: view}
		if err := now.survey(ctx); err != nil {
			return err
		}
	}
	left := settle(packs, func(id blobstore.ID) bool { return now.quick[id] }, now.isProgram)
	// What lies elsewhere once this is published.
	moved := map[blobstore.ID]*blobstore.Record{}
	for _, rec := range r.made {
		for _, p := range rec.Placed() {
			if left(p) {
				moved[p.ID] = rec
			}
		}
	}
	for id, rec := range moved {
		for _, s := range now.needs[id] {
			if rec.Depth() >= s.rec.Depth() && !now.without(s, func(id blobstore.ID) bool { return moved[id] != nil }) {
				return errMoved
			}
		}
	}
	for _, rec := range r.made {
		for _, id := range rec.Bases() {
			base := moved[id]
			if s := now.at(id); base == nil && s != nil {
				base = s.rec
			}
			if base == nil || base.Depth() >= rec.Depth() || rec.IsProgram() && (!base.IsProgram() || base.Blobs()[0].ID != id) {
				return errMoved
			}
		}
	}
	return nil
}

// sweep removes what the rounds have left without a use.
func (c *compaction) sweep(ctx context.Context) error {
	lock, err := c.store.Lock(ctx, c.opts.Lock)
	if err != nil {
		return err
	}
	defer lock.Close()
	r, err := lock.GC(ctx, index.GCOptions{})
	if err == nil {
		c.r.Bases = r.Bases
	}
	return err
}
