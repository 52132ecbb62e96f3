package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

	mu  sync.Mutex // guards the rest where blobs are verified side by side
	bad map[blobstore.ID]bool
	r   *VerifyReport
}

func (v *verification) damage(pack string, offset int64, err error) {
	v.r.Damage = append(v.r.Damage, DamageLine{pack, offset, err.Error()})
}

// packs verifies all packs, and that the index says right where blobs lie.
func (v *verification) packs(ctx context.Context) error {
	var total int64
	for _, p := range v.snap.Packs {
		total += p.Size
	}
	if v.opts.Total != nil {
		v.opts.Total(total)
	}
	placed := map[blobstore.ID]blobstore.Location{}
	broken := map[uint32]bool{} // not readable to the end, which is one damage
	for _, ref := range v.snap.Packs {
		v.r.Packs++
		err := v.view.VerifyPack(ctx, ref, func(d blobstore.Damage) {
			v.damage(d.Pack, d.Offset, d.Err)
			broken[ref.Number] = broken[ref.Number] || d.Offset == 0
			for _, id := range d.Blobs {
				v.bad[id] = true
			}
		}, v.opts.Progress)
		if err != nil {
			return err
		}
		if err := v.place(ref, placed); err != nil {
			return err
		}
	}
	v.snap.EachBlob(func(id blobstore.ID, loc blobstore.Location) {
		if placed[id] != loc {
			v.bad[id] = true
			if broken[loc.Pack] {
				return
			}
			v.damage("", 0, fmt.Errorf("blob %s is not where the index says: %w", id, ErrIndex))
		}
	})
	return nil
}

// place notes where the pack's own tables say its blobs lie, as far as they
// can be read. What cannot has been reported already.
func (v *verification) place(ref blobstore.PackRef, placed map[blobstore.ID]blobstore.Location) error {
	p, err := v.view.Pack(ref.Number)
	if err != nil {
		return nil
	}
	for r, err := range p.Records(false) {
		if err != nil {
			break
		}
		for _, b := range r.Placed() {
			loc := b.Location
			loc.Pack = ref.Number
			if want, ok := v.snap.Locate(b.ID); ok && want == loc {
				placed[b.ID] = loc
			}
		}
	}
	return nil
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

// blobs verifies the blobs of some trees, record by record.
func (v *verification) blobs(ctx context.Context, trees []*Tree) error {
	type place struct {
		loc blobstore.Location
		id  blobstore.ID
	}
	seen := map[blobstore.ID]bool{}
	var places []place
	for _, t := range trees {
		if t == nil {
			continue
		}
		for _, r := range t.AllBlobs() {
			if loc, ok := v.snap.Locate(r.ID); ok && !seen[r.ID] {
				seen[r.ID] = true
				places = append(places, place{loc, r.ID})
			}
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.loc.Pack, b.loc.Pack), cmp.Compare(a.loc.Record, b.loc.Record))
	})
	var total int64
	for _, p := range places {
		total += int64(p.loc.Length)
	}
	if v.opts.Total != nil {
		v.opts.Total(total)
	}
	v.r.Blobs = len(places)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for len(places) > 0 {
		n := 1 // the blobs of one record are verified by one goroutine
		for n < len(places) && places[n].loc.Pack == places[0].loc.Pack && places[n].loc.Record == places[0].loc.Record {
			n++
		}
		run := places[:n]
		places = places[n:]
		g.Go(func() error {
			for _, p := range run {
				_, err := v.view.Blob(ctx, p.id)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err != nil {
					v.mu.Lock()
					v.bad[p.id] = true
					v.damage("", p.loc.Record, err)
					v.mu.Unlock()
				}
				v.opts.Progress(int64(p.loc.Length))
			}
			return nil
		})
	}
	return g.Wait()
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
