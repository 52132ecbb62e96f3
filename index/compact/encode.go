package compact

import (
	"context"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"gofs/blobstore"
	"gofs/index"
)

// encode writes the records of a version into packs.
func (r *round) encode(ctx context.Context, w *work) ([]blobstore.Pack, error) {
	out, err := blobstore.NewWriter(r.c.store.PackDir(), blobstore.WriterOptions{Workers: 1})
	if err != nil {
		return nil, err
	}
	defer out.Abort()
	e := &encoder{round: r, work: w, out: out, relatives: r.relatives(w.release), left: r.total, now: r.encodes(w), replaced: map[*stored]bool{}}
	if err := e.programs(ctx); err != nil {
		return nil, err
	}
	if err := e.groups(ctx); err != nil {
		return nil, err
	}
	if len(r.made) == 0 {
		return nil, nil
	}
	return out.Finish()
}

// encoder encodes the files of one version.
type encoder struct {
	*round
	work      *work
	out       *blobstore.Writer
	relatives []*release
	left      int64
	pending   map[index.PartsKey]*blobstore.Program
	fresh     map[blobstore.ID]*blobstore.Record // of those in pending
	now       map[blobstore.ID]bool              // what may be encoded
	mu        sync.Mutex
	replaced  map[*stored]bool // memory of replaces, under mu
}

// encodes lists the blobs of a version's work, and the programs as a whole: all
// that may lie elsewhere after it.
func (r *round) encodes(w *work) map[blobstore.ID]bool {
	now := map[blobstore.ID]bool{}
	for _, f := range slices.Concat(w.large, w.small) {
		for _, ref := range w.release.tree.Blobs(f.entry) {
			now[ref.ID] = true
		}
		if s := r.files[index.PartsOf(w.release.tree, f.entry)]; s != nil && s.rec.IsProgram() {
			now[s.rec.Blobs()[0].ID] = true
		}
	}
	return now
}

// replaces says whether nothing will be read from a record any more once the work is
// done.
func (e *encoder) replaces(s *stored) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	is, ok := e.replaced[s]
	if !ok {
		// Of a file that is no program what is dense stays where it is.
		is = e.without(s, func(id blobstore.ID) bool { return e.now[id] && e.sparseAt(id) })
		e.replaced[s] = is
	}
	return is
}

// without says whether nothing is read from a record if some blobs lie elsewhere.
func (r *round) without(s *stored, elsewhere func(blobstore.ID) bool) bool {
	return !slices.ContainsFunc(s.rec.Blobs(), func(m blobstore.Member) bool { return r.at(m.ID) == s && !elsewhere(m.ID) })
}

// inOrder runs encode for each of n jobs on all workers, and writes what they
// return in the order of the jobs.
func (e *encoder) inOrder(ctx context.Context, n int, encode func(ctx context.Context, i int) (*blobstore.Record, error)) error {
	g, ctx := errgroup.WithContext(ctx)
	// A worker waits while the writer is this many jobs behind.
	queue := make(chan chan *blobstore.Record, 4*e.c.opts.Workers)
	limit := make(chan struct{}, e.c.opts.Workers)
	g.Go(func() error {
		defer close(queue)
		for i := range n {
			slot := make(chan *blobstore.Record, 1)
			select {
			case queue <- slot:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			select {
			case limit <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			g.Go(func() error {
				defer func() { <-limit }()
				rec, err := encode(ctx, i)
				if err == nil {
					slot <- rec
				}
				return err
			})
		}
		return nil
	})
	g.Go(func() error {
		for slot := range queue {
			select {
			case rec := <-slot:
				if err := e.write(ctx, rec); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return g.Wait()
}

// write queues a record for the pack; nil is none.
func (e *encoder) write(ctx context.Context, rec *blobstore.Record) error {
	if rec == nil {
		return nil
	}
	if err := e.out.Copy(ctx, rec, nil); err != nil {
		return err
	}
	e.made = append(e.made, rec.Header())
	e.records++
	e.plain += rec.Plain()
	e.progress(e.left)
	return nil
}

// limit is how deep a record of these blobs may be, for the sake of those that
// it is a base of.
func (e *encoder) limit(ids []blobstore.ID) int { return e.within(e.c.opts.MaxDepth, ids) }

// within is limit where another depth is allowed.
func (e *encoder) within(limit int, ids []blobstore.ID) int {
	for _, id := range ids {
		if e.quick[id] { // what is quick stays where it is
			continue
		}
		for _, s := range e.needs[id] {
			if s.rec.Depth() <= limit && !e.replaces(s) {
				limit = s.rec.Depth() - 1
			}
		}
	}
	return limit
}

// content returns the blobs of a file, and their bytes as one.
func (e *encoder) content(ctx context.Context, f file) (blobs []blobstore.Blob, plain []byte, err error) {
	plain = make([]byte, 0, f.entry.Size)
	for _, ref := range e.work.release.tree.Blobs(f.entry) {
		b, err := e.view.Blob(ctx, ref.ID)
		if err != nil {
			return nil, nil, err
		}
		plain = append(plain, b...)
		blobs = append(blobs, blobstore.Blob{ID: ref.ID, Data: plain[len(plain)-len(b):]})
	}
	return blobs, plain, nil
}

// Programs of a release that others of it are deltas of. The go command comes
// first, so that "go version" needs nothing but go commands.
func rankOf(path string) int {
	name := strings.TrimSuffix(path[strings.LastIndexByte(path, '/')+1:], ".exe")
	switch {
	case name == "go" && strings.HasPrefix(path, "bin/"):
		return 0
	case name == "compile" && strings.HasPrefix(path, "pkg/tool/"):
		return 1
	}
	return 2
}

// programs encodes the large files.
func (e *encoder) programs(ctx context.Context) error {
	e.pending, e.fresh = map[index.PartsKey]*blobstore.Program{}, map[blobstore.ID]*blobstore.Record{}
	files := slices.Clone(e.work.large)
	slices.SortStableFunc(files, func(a, b file) int {
		if ra, rb := rankOf(a.path), rankOf(b.path); ra != rb {
			return ra - rb
		}
		return int(b.entry.Size - a.entry.Size) // the largest first: both workers end together
	})
	for len(files) > 0 && rankOf(files[0].path) < 2 {
		f := files[0]
		files = files[1:]
		rec, program, err := e.large(ctx, f)
		if err != nil {
			return err
		}
		if program != nil {
			e.pending[index.PartsOf(e.work.release.tree, f.entry)] = program
			e.fresh[program.ID] = rec.Header()
		}
		if err := e.write(ctx, rec); err != nil {
			return err
		}
	}
	return e.inOrder(ctx, len(files), func(ctx context.Context, i int) (*blobstore.Record, error) {
		rec, _, err := e.large(ctx, files[i])
		return rec, err
	})
}

// large encodes a large file, as a program if it is one.
func (e *encoder) large(ctx context.Context, f file) (*blobstore.Record, *blobstore.Program, error) {
	blobs, plain, err := e.content(ctx, f)
	if err != nil {
		return nil, nil, err
	}
	if filtered, ok := blobstore.Filter(plain); ok {
		ids := []blobstore.ID{blobstore.Sum(plain)}
		for _, b := range blobs {
			ids = append(ids, b.ID)
		}
		bases, err := e.bases(ctx, f, filtered, e.within(e.programDepth(), ids))
		if err != nil {
			return nil, nil, err
		}
		rec, program, err := blobstore.EncodeProgram(e.c.opts.Effort, blobs, plain, filtered, bases)
		if rec != nil || err != nil {
			return rec, program, err
		}
	}
	rec, err := e.parts(ctx, f, blobs)
	return rec, nil, err
}

// denseDepth is from which MaxDepth on the tools, too, are deltas of those of
// another minor release. To read the programs of a release then is to decode
// those of every newer minor release; the go command and the compiler are the
// bases of all others, so theirs are decoded once.
const denseDepth = 6

// programDepth bounds the chains of programs. Those of a platform that follows
// another begin one lower and so may be one longer.
func (e *encoder) programDepth() int {
	if e.work.release.follows() {
		return min(e.c.opts.MaxDepth+1, blobstore.MaxDepth)
	}
	return e.c.opts.MaxDepth
}

// bases returns the programs that f is to be a delta of: the same of another
// version, and go and compile of its own. A chain may be limit long.
//
// Compilers that a reader does not keep, those of 1.20 and before, stand alone in
// their release: they would have to be decoded anew for each of the tools, and
// beside the go command in memory. That is some 2 MB more for 1.20.14.
func (e *encoder) bases(ctx context.Context, f file, filtered []byte, limit int) ([]*blobstore.Program, error) {
	var bases []*blobstore.Program
	rank := rankOf(f.path)
	// A head leaves room for its patches, a go command for the compiler, and
	// that for the other tools.
	depth := e.programDepth() - 2 + rank
	if e.work.release.head {
		depth--
	}
	depth = min(depth, limit)
	for _, o := range e.relatives {
		patch := o.minor == e.work.release.minor && o.version.Platform == e.work.release.version.Platform
		twin := e.work.release.follows() && o == e.work.release.lead
		if rank == 2 && !patch && !twin && e.c.opts.MaxDepth < denseDepth {
			continue
		}
		p, err := e.program(ctx, o, e.work.release.counterpart(f.path, o), depth-1)
		if err != nil {
			return nil, err
		}
		if p == nil {
			continue
		}
		if !e.readable(f, bases, p) {
			continue
		}
		bases = append(bases, p)
		if patch && o.head {
			// Its own go and compile would be two more programs to decode, and have
			// little that this one has not.
			return bases, nil
		}
		break
	}
	if !blobstore.Kept(filtered) {
		return bases, nil
	}
	for _, own := range e.work.release.tools() {
		if rankOf(own) >= rank {
			continue
		}
		p, err := e.program(ctx, e.work.release, own, limit-1)
		if err != nil {
			return nil, err
		}
		if p != nil && blobstore.Kept(p.Filtered) && e.readable(f, bases, p) {
			bases = append(bases, p)
		}
	}
	return bases, nil
}

// readable says whether a program could be read that has one more base.
func (e *encoder) readable(f file, bases []*blobstore.Program, more *blobstore.Program) bool {
	ids := []blobstore.ID{more.ID}
	for _, p := range bases {
		ids = append(ids, p.ID)
	}
	return decodedFor(f.entry.Size)+e.decodes(ids) <= e.c.opts.room
}

// decodes is how many bytes are decoded for blobs, bases that several share
// counted once.
func (e *encoder) decodes(ids []blobstore.ID) (total int64) {
	seen := map[*blobstore.Record]bool{}
	var add func(ids []blobstore.ID)
	add = func(ids []blobstore.ID) {
		for _, id := range ids {
			rec := e.fresh[id]
			if rec == nil {
				s := e.at(id)
				if s == nil {
					continue
				}
				rec = s.rec
			}
			if !seen[rec] {
				seen[rec] = true
				total += rec.Decodes()
				add(rec.Bases())
			}
		}
	}
	add(ids)
	return total
}

// decodedFor bounds what decoding a file takes besides its bases: plain,
// filtered, where it is a program, and its header.
func decodedFor(plain int64) int64 { return 3*plain + plain/2 + 64<<10 }

// tools lists the paths of the compiler and the go command.
func (r *release) tools() []string {
	var paths []string
	_ = r.tree.Walk(func(path string, e *index.Entry) error {
		if e.Kind == index.File && rankOf(path) < 2 {
			paths = append(paths, path)
		}
		return nil
	})
	slices.SortFunc(paths, func(a, b string) int { return rankOf(b) - rankOf(a) })
	return paths
}

// program returns a program of a version, if its record has been made and is
// not too deep.
func (e *encoder) program(ctx context.Context, v *release, path string, depth int) (*blobstore.Program, error) {
	entry, ok := v.tree.Find(path)
	if !ok || entry.Kind != index.File {
		return nil, nil
	}
	key := index.PartsOf(v.tree, entry)
	if p := e.pending[key]; p != nil {
		if p.Depth > depth {
			return nil, nil
		}
		return p, nil
	}
	s := e.files[key]
	if s == nil || !s.rec.IsProgram() || s.rec.Depth() > depth || !e.dense(s) {
		return nil, nil
	}
	return e.view.Program(ctx, s.rec.Blobs()[0].ID)
}

// parts encodes those blobs of a large file that no compaction has encoded
// yet, with the blobs of the same file in another version as bases.
func (e *encoder) parts(ctx context.Context, f file, blobs []blobstore.Blob) (*blobstore.Record, error) {
	var g blobstore.Group
	var ids []blobstore.ID
	for _, b := range blobs {
		if e.sparseAt(b.ID) && !slices.Contains(ids, b.ID) {
			g.Blobs = append(g.Blobs, b)
			ids = append(ids, b.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	limit := e.limit(ids)
	for _, o := range e.relatives {
		entry, ok := o.tree.Find(f.path)
		if !ok || entry.Kind != index.File {
			continue
		}
		for _, ref := range o.tree.Blobs(entry) {
			s := e.at(ref.ID)
			if s == nil || !e.dense(s) || s.rec.IsProgram() || s.rec.Quick() || e.now[ref.ID] || s.rec.Depth() >= limit { // a program may take the place of quick records
				continue
			}
			b, err := e.view.Blob(ctx, ref.ID)
			if err != nil {
				return nil, err
			}
			g.Bases = append(g.Bases, blobstore.Blob{ID: ref.ID, Data: b})
			g.Depth = max(g.Depth, s.rec.Depth())
		}
		if len(g.Bases) > 0 {
			break
		}
	}
	bases := make([]blobstore.ID, len(g.Bases))
	for i, b := range g.Bases {
		bases[i] = b.ID
	}
	if decodedFor(f.entry.Size)+e.decodes(bases) > e.c.opts.room {
		g.Bases, g.Depth = nil, 0
	}
	return blobstore.EncodeGroup(e.c.opts.Effort, g)
}
