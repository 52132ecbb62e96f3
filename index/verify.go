package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"gofs/blobstore"
)

// VerifyReport is what Verify found.
type VerifyReport struct {
	Versions int          `json:"versions"`
	Packs    int          `json:"packs"`
	Blobs    int          `json:"blobs"`
	Damage   []DamageLine `json:"damage"` // in packs and index
	Files    []BadFile    `json:"files"`  // that cannot be read because of it
}

// OK says whether nothing is wrong.
func (r *VerifyReport) OK() bool { return len(r.Damage) == 0 && len(r.Files) == 0 }

// DamageLine is one thing that is wrong.
type DamageLine struct {
	Pack   string `json:"pack,omitempty"`
	Offset int64  `json:"offset,omitempty"` // of the record in the pack
	Error  string `json:"error"`
}

// BadFile is a file that cannot be read whole. A Path of "" means that the
// tree of the version cannot be read.
type BadFile struct {
	Version string `json:"version"`
	Path    string `json:"path"`
}

// VerifyOptions say what to verify.
type VerifyOptions struct {
	// Versions are the names or aliases of versions to verify; without any,
	// every record of every pack is decoded, in use or not.
	Versions []string
	// Progress is called, also concurrently, with bytes of packs that were
	// read; Total is told first how many there are.
	Total    func(int64)
	Progress func(int64)
}

// Verify decodes and checks every blob. What is damaged is in the report; the
// error is for what kept it from looking.
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (*VerifyReport, error) {
	snap, view, err := s.OpenView(blobstore.NewCache(64 << 20))
	if err != nil {
		return nil, err
	}
	defer view.Close()
	for name, err := range view.Broken() {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("pack %s: %w", name, err) // that is no damage
		}
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	v := &verification{snap: snap, view: view, opts: o, bad: map[blobstore.ID]bool{}, r: &VerifyReport{Blobs: snap.Blobs()}}
	versions := snap.Versions
	if len(o.Versions) > 0 {
		versions = nil
		for _, name := range o.Versions {
			found, ok := snap.Find(name)
			if !ok {
				return nil, fmt.Errorf("version %s %w", name, ErrNoVersion)
			}
			versions = append(versions, *found)
		}
	} else if err := v.packs(ctx); err != nil {
		return nil, err
	}
	trees := make([]*Tree, len(versions))
	for i := range versions {
		t, err := v.tree(ctx, &versions[i])
		if err != nil {
			return nil, err
		}
		trees[i] = t
	}
	if len(o.Versions) > 0 {
		if err := v.blobs(ctx, trees); err != nil {
			return nil, err
		}
	}
	for i, t := range trees {
		if t != nil {
			v.files(&versions[i], t)
		}
	}
	v.r.Versions = len(versions)
	return v.r, nil
}

type verification struct {
	snap *Snapshot
	view *blobstore.View
	opts VerifyOptions

	mu  sync.Mutex // guards the rest where records are read side by side
	bad map[blobstore.ID]bool
	r   *VerifyReport
}

func (v *verification) damage(pack string, offset int64, err error) {
	v.r.Damage = append(v.r.Damage, DamageLine{pack, offset, err.Error()})
}

// place is where a record lies.
type place struct {
	pack   uint32
	record int64
}

func (b *placedBlob) place() place { return place{b.loc.Pack, b.loc.Record} }

// packs verifies all packs, and that what the index names can be read. What a
// pack's own records say is not enough: a mount goes by the index, and finds
// records that cannot be found from the front.
func (v *verification) packs(ctx context.Context) error {
	var total int64
	for _, p := range v.snap.Packs {
		total += p.Size
	}
	if v.opts.Total != nil {
		v.opts.Total(total)
	}
	sound := map[blobstore.ID]bool{} // in its place
	reported := map[place]bool{}
	for _, ref := range v.snap.Packs {
		v.r.Packs++
		err := v.view.VerifyPack(ctx, ref, func(d blobstore.Damage) {
			v.damage(d.Pack, d.Offset, d.Err)
			reported[place{ref.Number, d.Offset}] = true
		}, func(size int64, blobs []blobstore.Placed) {
			v.opts.Progress(size)
			v.mu.Lock()
			defer v.mu.Unlock()
			for _, b := range blobs {
				if loc, ok := v.snap.Locate(b.ID); ok && loc == b.Location {
					sound[b.ID] = true
				}
			}
		})
		if err != nil {
			return err
		}
	}
	var rest []placedBlob
	v.snap.EachBlob(func(id blobstore.ID, loc blobstore.Location) {
		switch b := (placedBlob{id, loc}); {
		case sound[id]:
		case reported[b.place()]:
			v.bad[id] = true
		default:
			rest = append(rest, b)
		}
	})
	return v.read(ctx, rest, func(run []placedBlob, failed []error) {
		if _, err := v.view.Pack(run[0].loc.Pack); err != nil {
			return // that is one damage, and reported
		}
		for i, err := range failed {
			if err != nil {
				v.damage("", 0, fmt.Errorf("blob %s is not where the index says: %w", run[i].id, err))
			}
		}
	})
}

// read reads blobs as a mount does that has nothing in memory, each record
// once, and notes those that it cannot. It hands on the errors of the blobs of
// each record, not concurrently.
func (v *verification) read(ctx context.Context, blobs []placedBlob, done func(run []placedBlob, failed []error)) error {
	slices.SortFunc(blobs, func(a, b placedBlob) int {
		return cmp.Or(cmp.Compare(a.loc.Pack, b.loc.Pack), cmp.Compare(a.loc.Record, b.loc.Record), cmp.Compare(a.loc.Offset, b.loc.Offset))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for len(blobs) > 0 {
		n := 1
		for n < len(blobs) && blobs[n].place() == blobs[0].place() {
			n++
		}
		run := blobs[:n]
		blobs = blobs[n:]
		g.Go(func() error {
			d, err := v.view.RecordAt(ctx, run[0].loc)
			if err == nil {
				defer d.Release()
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			failed := make([]error, len(run))
			for i, b := range run {
				if failed[i] = err; err == nil {
					failed[i] = d.Check(b.id, b.loc)
				}
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			for i, b := range run {
				if failed[i] != nil {
					v.bad[b.id] = true
				}
			}
			done(run, failed)
			return nil
		})
	}
	return g.Wait()
}

// tree reads a version's tree and inode numbers; nil if it cannot.
func (v *verification) tree(ctx context.Context, ver *Version) (*Tree, error) {
	t, err := v.snap.Tree(ctx, v.view, ver)
	if err == nil {
		_, err = v.snap.Nodes(ver, t)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		v.damage("", 0, err)
		v.r.Files = append(v.r.Files, BadFile{ver.Name, ""})
		return nil, nil
	}
	return t, nil
}

// blobs verifies the blobs of some trees.
func (v *verification) blobs(ctx context.Context, trees []*Tree) error {
	seen := map[blobstore.ID]bool{}
	var blobs []placedBlob
	var total int64
	for _, t := range trees {
		if t == nil {
			continue
		}
		for _, r := range t.AllBlobs() {
			if loc, ok := v.snap.Locate(r.ID); ok && !seen[r.ID] {
				seen[r.ID] = true
				blobs = append(blobs, placedBlob{r.ID, loc})
				total += int64(loc.Length)
			}
		}
	}
	if v.opts.Total != nil {
		v.opts.Total(total)
	}
	v.r.Blobs = len(blobs)
	return v.read(ctx, blobs, func(run []placedBlob, failed []error) {
		for i, err := range failed {
			if err != nil && (i == 0 || failed[i-1] != err) {
				v.damage("", run[i].loc.Record, err)
			}
			v.opts.Progress(int64(run[i].loc.Length))
		}
	})
}

// files lists the files of a version that damage hits.
func (v *verification) files(ver *Version, t *Tree) {
	for i := range t.Folders {
		list := t.List(int32(i))
		for j := range list {
			e := &list[j]
			if slices.ContainsFunc(t.Blobs(e), func(r Ref) bool {
				loc, ok := v.snap.Locate(r.ID)
				return !ok || loc.Length != r.Length || v.bad[r.ID]
			}) {
				v.r.Files = append(v.r.Files, BadFile{ver.Name, path.Join(t.Path(int32(i)), e.Name)})
			}
		}
	}
}

// ErrDamaged is returned by commands that found damage.
var ErrDamaged = errors.New("the store is damaged")
