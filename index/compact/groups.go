package compact

import (
	"context"

	"gofs/blobstore"
	"gofs/index"
)

// groupSize is how many plain bytes of small files are encoded as one. As at an
// import, a build does not decode what is not for it.
var groupSize = [index.Classes]int64{
	index.ForBuild:  256 << 10,
	index.ForTest:   1 << 20,
	index.ForOthers: 1 << 20,
}

// group is a run of small files that become one record.
type group struct {
	class index.Class
	blobs []blobstore.ID
	bases []blobstore.ID
	bytes int64
	chain int64 // plain bytes of the records that the bases need
	depth int   // the largest of the bases'
	from  map[*stored]bool
	has   map[blobstore.ID]bool // the bases
	room  int64                 // their bytes
}

// groups encodes the small files.
func (e *encoder) groups(ctx context.Context) error {
	groups := e.gather()
	return e.inOrder(ctx, len(groups), func(ctx context.Context, i int) (*blobstore.Record, error) {
		g := blobstore.Group{Depth: groups[i].depth}
		var err error
		if g.Blobs, err = e.blobs(ctx, groups[i].blobs); err != nil {
			return nil, err
		}
		if g.Bases, err = e.blobs(ctx, groups[i].bases); err != nil {
			return nil, err
		}
		return blobstore.EncodeGroup(e.c.opts.Effort, g)
	})
}

// blobs reads blobs.
func (r *round) blobs(ctx context.Context, ids []blobstore.ID) ([]blobstore.Blob, error) {
	var list []blobstore.Blob
	for _, id := range ids {
		b, err := r.view.Blob(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, blobstore.Blob{ID: id, Data: b})
	}
	return list, nil
}

// gather plans the groups: files of a class in the order of the tree.
func (e *encoder) gather() []*group {
	var all []*group
	var open [index.Classes]*group
	for _, f := range e.work.small {
		ref := e.work.release.tree.Blobs(f.entry)[0]
		class := index.ClassOf(f.path)
		g := open[class]
		if g == nil || g.bytes+int64(ref.Length) > groupSize[class] || len(g.blobs) == blobstore.MaxGroup {
			g = &group{class: class, from: map[*stored]bool{}, has: map[blobstore.ID]bool{}}
			open[class] = g
			all = append(all, g)
		}
		g.blobs = append(g.blobs, ref.ID)
		g.bytes += int64(ref.Length)
		e.addBase(g, f, ref.ID)
	}
	for _, g := range all {
		if g.depth >= e.limit(g.blobs) {
			g.bases, g.depth = nil, 0
		}
	}
	return all
}

// addBase finds the file that f is most like: that of the same path in the
// nearest version whose record is not too deep. Nothing that this round encodes, too,
// is one: nobody knows yet how deep it will lie.
func (e *encoder) addBase(g *group, f file, own blobstore.ID) {
	limit := e.limit([]blobstore.ID{own})
	for _, o := range e.relatives {
		entry, ok := o.tree.Find(f.path)
		if !ok || entry.Kind != index.File || entry.Size == 0 || entry.Size >= smallFile {
			continue
		}
		id := o.tree.Blobs(entry)[0].ID
		s := e.at(id)
		if id == own || s == nil || !e.dense(s) || s.rec.Depth() >= limit || e.now[id] {
			continue
		}
		if g.has[id] {
			return
		}
		if g.room+entry.Size > blobstore.MaxBases || len(g.bases) == blobstore.MaxBaseBlobs {
			continue
		}
		if !g.from[s] {
			if chain := e.chainOf(s); g.chain+chain+groupSize[g.class] > e.c.opts.MaxChain {
				continue
			} else {
				g.chain += chain
			}
			g.from[s] = true
		}
		g.bases, g.has[id] = append(g.bases, id), true
		g.room += entry.Size
		g.depth = max(g.depth, s.rec.Depth())
		return
	}
}
