package compact

import (
	"cmp"
	"context"
	"go/version"
	"runtime"
	"slices"
	"strings"

	"gofs/blobstore"
	"gofs/index"
)

// round is a compaction of one version, planned from one snapshot.
type round struct {
	c    *compaction
	snap *index.Snapshot
	view *blobstore.View

	versions []*release // in the order of their rounds
	stored   map[place]*stored
	files    map[index.PartsKey]*stored // large files that are one record
	needs    map[blobstore.ID][]*stored // the records that have a blob as base
	used     map[blobstore.ID]bool      // blobs of versions, and programs as a whole
	quick    map[blobstore.ID]bool      // blobs that are read from quick records and stay there
	wanted   [][]blobstore.ID           // blobs that are to be, as their records group them

	total   int64 // plain bytes of all that is to do
	made    []*blobstore.Record
	records int
	plain   int64
}

// lost says whether a record has a base that no version has any more: it was
// of one that has been removed, and is only kept for the record's sake.
func (r *round) lost(s *stored) bool {
	return slices.ContainsFunc(s.rec.Bases(), func(id blobstore.ID) bool { return !r.used[id] })
}

// sparse says whether a record is to be made anew.
func (r *round) sparse(s *stored) bool {
	return !r.c.opts.Rebase && !r.dense(s) || r.lost(s)
}

// sparseAt says whether a blob is to be stored anew: with its record, or out of a
// quick one in which it need not be any more.
func (r *round) sparseAt(id blobstore.ID) bool {
	s := r.at(id)
	return s != nil && (r.sparse(s) || s.rec.Quick() && !r.quick[id])
}

// dense says whether a record is fit to be a base: it was made with the effort
// of this compaction, so that it stays as deep as it is.
func (r *round) dense(s *stored) bool {
	if r.c.opts.Rebase {
		return s.rec.Effort() > 0
	}
	return s.rec.Effort() >= r.c.opts.Effort
}

// place is where a record lies.
type place struct {
	pack   uint32
	offset int64
}

// stored is what the header of a record says.
type stored struct {
	rec   *blobstore.Record
	chain int64 // plain bytes that decoding it takes, bases included
	added bool  // chain is added up
}

// release is a version and its place among the others.
type release struct {
	version *index.Version
	tree    *index.Tree
	minor   string // 1.23
	head    bool   // the newest patch of its minor release and platform
	// lead is the head of its minor release on the one of its architecture's platforms whose programs
	// those of the others are deltas of.
	lead *release
}

// follows says whether a release's programs are deltas of another platform's.
func (r *release) follows() bool { return r.lead.version.Platform != r.version.Platform }

// arch is the architecture of a release's platform.
func (r *release) arch() string {
	return r.version.Platform[strings.LastIndexByte(r.version.Platform, '-')+1:]
}

// counterpart is the path that another release has for the program that r has at a path.
func (r *release) counterpart(path string, o *release) string {
	from, to := r.version.Platform, o.version.Platform
	if from == to || !strings.HasPrefix(path, "bin/") && !strings.HasPrefix(path, "pkg/tool/") {
		return path
	}
	folder := func(platform string) string { return "pkg/tool/" + strings.ReplaceAll(platform, "-", "_") + "/" }
	if tool, ok := strings.CutPrefix(path, folder(from)); ok {
		path = folder(to) + tool
	}
	path = strings.TrimSuffix(path, ".exe")
	if strings.HasPrefix(to, "windows-") {
		path += ".exe"
	}
	return path
}

func (r *release) compare(o *release) int {
	return index.CompareNames(r.version.Release, o.version.Release)
}

// survey reads what the store holds: the trees and the headers of all records.
func (r *round) survey(ctx context.Context) error {
	r.stored = map[place]*stored{}
	r.files = map[index.PartsKey]*stored{}
	r.needs = map[blobstore.ID][]*stored{}
	r.used = map[blobstore.ID]bool{}
	r.quick = map[blobstore.ID]bool{}
	for _, ref := range r.snap.Packs {
		if err := r.scan(ctx, ref); err != nil {
			return err
		}
	}
	for i := range r.snap.Versions {
		v := &r.snap.Versions[i]
		t := r.c.trees[v.Tree]
		if t == nil {
			var err error
			if t, err = r.snap.Tree(ctx, r.view, v); err != nil {
				return err
			}
			r.c.trees[v.Tree] = t
		}
		r.versions = append(r.versions, &release{version: v, tree: t, minor: version.Lang("go" + v.Release)})
		r.use(t)
	}
	r.order()
	r.planQuick()
	return nil
}

// use notes what a version has.
func (r *round) use(t *index.Tree) {
	for _, ref := range t.AllBlobs() {
		r.used[ref.ID] = true
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		if e.Kind != index.File || len(t.Blobs(e)) < 2 {
			continue
		}
		if s := r.files[index.PartsOf(t, e)]; s != nil && s.rec.IsProgram() {
			r.used[s.rec.Blobs()[0].ID] = true
		}
	}
}

func (r *round) scan(ctx context.Context, ref blobstore.PackRef) error {
	p, err := r.view.Pack(ref.Number)
	if err != nil {
		return err
	}
	for rec, err := range p.Records(false) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if rec.Kind() != blobstore.Data {
			continue
		}
		s := &stored{rec: rec}
		here := 0
		for _, m := range rec.Blobs() {
			if loc, ok := r.snap.Locate(m.ID); ok && loc.Pack == ref.Number && loc.Record == rec.Offset {
				here++
			}
		}
		if here == 0 {
			continue
		}
		r.stored[place{ref.Number, rec.Offset}] = s
		if rec.Quick() {
			for _, m := range rec.Blobs() {
				r.quick[m.ID] = true
			}
			continue
		}
		if rec.Effort() > 0 {
			key := index.PartsOfRecord(rec)
			if old := r.files[key]; old == nil || old.rec.Effort() <= rec.Effort() {
				r.files[key] = s
			}
		}
		for _, id := range rec.Bases() {
			r.needs[id] = append(r.needs[id], s)
		}
	}
	return nil
}

// at returns the record that holds a blob now.
func (r *round) at(id blobstore.ID) *stored {
	loc, ok := r.snap.Locate(id)
	if !ok {
		return nil
	}
	return r.stored[place{loc.Pack, loc.Record}]
}

// chainOf is how many plain bytes must be decoded for a record, at most:
// bases that several of its bases share are counted for each. Bases that are not less
// deep, which no reader follows, are not followed.
func (r *round) chainOf(s *stored) int64 {
	if !s.added {
		s.chain, s.added = s.rec.Plain(), true
		seen := map[*stored]bool{}
		for _, id := range s.rec.Bases() {
			if b := r.at(id); b != nil && !seen[b] && b.rec.Depth() < s.rec.Depth() {
				seen[b] = true
				s.chain += r.chainOf(b)
			}
		}
	}
	return s.chain
}

// order sorts the versions so that each comes after those it may be a delta
// of: the newest patch of each minor release first, the newest of these
// before the others, since that is what people use most, and of its platforms
// the one that leads before those that follow; then the patches.
func (r *round) order() {
	newest := map[string]*release{}
	for _, v := range r.versions {
		line := v.version.Platform + v.minor
		if h := newest[line]; h == nil || v.compare(h) > 0 {
			newest[line] = v
		}
	}
	leads := map[string]*release{}
	for _, v := range newest {
		v.head = true
		line := v.arch() + v.minor
		if l := leads[line]; l == nil || v.before(l) {
			leads[line] = v
		}
	}
	turn := func(v *release) int {
		switch {
		case !v.head:
			return 2
		case v.follows():
			return 1
		}
		return 0
	}
	for _, v := range r.versions {
		v.lead = leads[v.arch()+v.minor]
	}
	slices.SortStableFunc(r.versions, func(a, b *release) int {
		return cmp.Or(turn(a)-turn(b), b.compare(a))
	})
}

// before says whether r is to lead rather than o: the machine's own programs are read most.
func (r *release) before(o *release) bool {
	const own = runtime.GOOS + "-" + runtime.GOARCH
	if mine := r.version.Platform == own; mine != (o.version.Platform == own) {
		return mine
	}
	return r.version.Platform < o.version.Platform
}

// relatives lists the versions whose files are good bases for those of v, the
// best first: for a patch its minor release's newest and then the others of
// it; for these the one that leads and then the next newer minor releases.
func (r *round) relatives(v *release) []*release {
	var list []*release
	for _, o := range r.versions {
		if o != v {
			list = append(list, o)
		}
	}
	at := r.minors()
	rank := func(o *release) (rank [4]int) {
		switch {
		case v.head && v.follows() && o == v.lead:
		case o.version.Platform == v.version.Platform:
			rank[0] = 1
		case o.arch() == v.arch():
			rank[0] = 2
		default:
			rank[0] = 3
		}
		d := at[o.minor] - at[v.minor] // positive for newer ones
		if d < 0 {
			rank[1] = 100 - d // after all newer ones
		} else {
			rank[1] = d
		}
		if v.head && d == 0 {
			rank[1] = 50 // before the older ones: an import of a new patch
		}
		if !o.head {
			rank[2] = 1
		}
		return rank
	}
	slices.SortStableFunc(list, func(a, b *release) int {
		ra, rb := rank(a), rank(b)
		if c := slices.Compare(ra[:], rb[:]); c != 0 {
			return c
		}
		// Of the patches of one minor release, the newest.
		return b.compare(a)
	})
	return list
}

// minors numbers the minor releases, the oldest first.
func (r *round) minors() map[string]int {
	var names []string
	for _, v := range r.versions {
		if !slices.Contains(names, v.minor) {
			names = append(names, v.minor)
		}
	}
	slices.SortFunc(names, version.Compare)
	at := map[string]int{}
	for i, name := range names {
		at[name] = i
	}
	return at
}

// work is what there is to do for a version.
type work struct {
	version *index.Version
	release *release
	large   []file
	small   []file
}

// file is a file of the version, or of a large one the part that Ref names.
type file struct {
	path  string
	entry *index.Entry
}

// maxWhole is the largest file that becomes one record, in bytes.
const maxWhole = 48 << 20

// smallFile is the largest file that shares a record with others.
const smallFile = 512 << 10

// Pending is how many versions have something that a compaction with the
// default effort would encode anew.
func Pending(ctx context.Context, store *index.Store) (int, error) {
	o := Options{}
	o.defaults()
	c := &compaction{store: store, opts: o, cache: blobstore.NewCache(0), trees: map[blobstore.ID]*index.Tree{}}
	snap, view, err := store.OpenView(c.cache)
	if err != nil {
		return 0, err
	}
	defer view.Close()
	r := &round{c: c, snap: snap, view: view}
	if err := r.survey(ctx); err != nil {
		return 0, err
	}
	todo, _ := r.todo()
	return len(todo), nil
}

// next returns the next version that has something to do, and the plain bytes
// of all that is to do.
func (r *round) next() (*work, int64) {
	todo, left := r.todo()
	for _, w := range todo {
		if r.c.tried[w.version.Name] < maxTries {
			return w, left
		}
	}
	return nil, left
}

// todo lists the versions that have something to do, each file once.
func (r *round) todo() (list []*work, left int64) {
	seen := map[index.PartsKey]bool{}
	for _, v := range r.versions {
		w := &work{version: v.version, release: v}
		_ = v.tree.Walk(func(path string, e *index.Entry) error {
			if e.Kind != index.File || e.Size == 0 {
				return nil
			}
			key := index.PartsOf(v.tree, e)
			if seen[key] {
				return nil
			}
			seen[key] = true
			blobs := v.tree.Blobs(e)
			sparse := slices.ContainsFunc(blobs, func(ref index.Ref) bool { return r.sparseAt(ref.ID) })
			// A program whose parts are read from quick records is a base besides.
			if s := r.files[key]; s != nil && slices.ContainsFunc(blobs, func(ref index.Ref) bool { return r.quick[ref.ID] }) {
				sparse = sparse || r.sparse(s)
			}
			if !sparse {
				return nil
			}
			f := file{path, e}
			switch {
			case e.Size < smallFile && len(blobs) == 1:
				w.small = append(w.small, f)
			case e.Size > maxWhole:
				return nil
			default:
				if s := r.files[key]; s != nil && !r.sparse(s) {
					return nil
				}
				w.large = append(w.large, f)
			}
			left += e.Size
			return nil
		})
		if len(w.large)+len(w.small) > 0 {
			list = append(list, w)
		}
	}
	return list, left
}

func (r *round) progress(left int64) {
	if r.c.opts.Progress != nil {
		r.c.opts.Progress(r.c.done+r.plain, r.c.done+left)
	}
}
