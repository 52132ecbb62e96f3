package compact

import (
	"context"
	"strings"

	"gofs/blobstore"
	"gofs/index"
)

// groupSize is how many plain bytes of small files are encoded as one, as at
// an import.
const groupSize = 512 << 10

// group is a run of small files that become one record.
type group struct {
	blobs []blobstore.ID
	bases []blobstore.ID
	bytes int64
	chain int64 // plain bytes of the records that the bases need
	depth int   // the largest of the bases'
	from  map[*stored]bool
}

// groups encodes the small files.
func (e *encoder) groups(ctx context.Context) error {
	groups := e.gather()
	return e.inOrder(ctx, len(groups), func(ctx context.Context, i int) (*blobstore.Record, error) {
		g := blobstore.Group{Depth: groups[i].depth}
		for _, id := range groups[i].blobs {
			b, err := e.view.Blob(ctx, id)
			if err != nil {
				return nil, err
			}
			g.Blobs = append(g.Blobs, blobstore.Blob{ID: id, Data: b})
		}
		for _, id := range groups[i].bases {
			b, err := e.view.Blob(ctx, id)
			if err != nil {
				return nil, err
			}
			g.Bases = append(g.Bases, blobstore.Blob{ID: id, Data: b})
		}
		return blobstore.EncodeGroup(e.c.opts.Effort, g)
	})
}

// gather plans the groups: files in the order of the tree, those of tests
// apart, since a build does not read them.
func (e *encoder) gather() []*group {
	var all []*group
	var open [2]*group
	for _, f := range e.work.small {
		ref := e.work.release.tree.Blobs(f.entry)[0]
		class := 0
		if isTest(f.path) {
			class = 1
		}
		g := open[class]
		if g == nil || g.bytes+int64(ref.Length) > groupSize {
			g = &group{from: map[*stored]bool{}}
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
// nearest version whose record is not too deep.
func (e *encoder) addBase(g *group, f file, own blobstore.ID) {
	limit := e.limit([]blobstore.ID{own})
	for _, o := range e.relatives {
		entry, ok := o.tree.Find(f.path)
		if !ok || entry.Kind != index.File || entry.Size == 0 || entry.Size >= smallFile {
			continue
		}
		id := o.tree.Blobs(entry)[0].ID
		s := e.at(id)
		if id == own || s == nil || !e.dense(s) || s.rec.Depth() >= limit {
			continue
		}
		if !g.from[s] {
			if chain := e.chainOf(s); g.chain+chain+groupSize > e.c.opts.MaxChain {
				continue
			} else {
				g.chain += chain
			}
			g.from[s] = true
		}
		g.bases = append(g.bases, id)
		g.depth = max(g.depth, s.rec.Depth())
		return
	}
}

func isTest(path string) bool {
	return strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/testdata/") || strings.HasPrefix(path, "test/")
}
