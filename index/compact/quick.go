package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gofs/blobstore"
	"gofs/index"
)

// A program of a compacted store is decoded as a whole, with all that it is a
// delta of: 90 MB for a compiler, 320 ms in which a build waits. So the programs
// of releases in use can be stored once more, chunk by chunk as an import does.
// The index has their chunks there; the record that has the program whole stays,
// by its own ID, since others are deltas of it or will be.
//
// The sources that builds read are in groups whose bases lie in groups of several
// other releases: a build decoded 26 MB more than out of an import. They are not
// stored twice but moved to groups without bases, which others may have as bases.

// quickGroups lists the blobs that are to lie in quick records, as these group them.
func (r *round) quickGroups() [][]blobstore.ID {
	var groups [][]blobstore.ID
	seen := map[blobstore.ID]bool{}
	for _, v := range r.versions {
		if !slices.Contains(r.c.opts.Quick, v.version.Name) {
			continue
		}
		var small []blobstore.ID
		size := int64(0)
		_ = v.tree.Walk(func(path string, e *index.Entry) error {
			if e.Kind != index.File || e.Size == 0 || e.Size > maxWhole {
				return nil
			}
			blobs := v.tree.Blobs(e)
			isSmall := len(blobs) == 1 && e.Size < smallFile
			// A program of one blob is what others are deltas of by the blob's ID.
			if isSmall != index.ReadByBuilds(path) || !isSmall && (len(blobs) == 1 || !index.RunByBuilds(path)) {
				return nil
			}
			for _, ref := range blobs {
				if seen[ref.ID] || r.isProgram(ref.ID) {
					continue
				}
				seen[ref.ID] = true
				if !isSmall {
					groups = append(groups, []blobstore.ID{ref.ID})
					continue
				}
				if size+int64(ref.Length) > groupSize[index.ForBuild] || len(small) == blobstore.MaxGroup {
					groups = append(groups, small)
					small, size = nil, 0
				}
				small = append(small, ref.ID)
				size += int64(ref.Length)
			}
			return nil
		})
		if len(small) > 0 {
			groups = append(groups, small)
		}
	}
	return groups
}

// isProgram says whether a blob is read from the record of a program that it is all
// of. It has to be, since others are deltas of that by its ID.
func (r *round) isProgram(id blobstore.ID) bool {
	s := r.at(id)
	return s != nil && s.rec.IsProgram() && s.rec.Blobs()[0].ID == id
}

// planQuick lists what is to be quick, and forgets of what is so far what need not be
// any more.
func (r *round) planQuick() {
	if r.c.opts.Quick == nil {
		return
	}
	r.wanted = r.quickGroups()
	now := r.quick
	r.quick = map[blobstore.ID]bool{}
	for _, ids := range r.wanted {
		for _, id := range ids {
			r.quick[id] = now[id]
		}
	}
}

// lastRound does what is left when no version has anything to encode, and reports
// whether there may be more to do. It fails if a version was given up because the
// store had changed each time.
func (c *compaction) lastRound(ctx context.Context, r *round) (more bool, err error) {
	c.last++
	err = r.quicken(ctx)
	if errors.Is(err, errMoved) || errors.Is(err, blobstore.ErrSwept) {
		if c.last < maxTries {
			return true, nil
		}
		err = errMoved
	}
	if err == nil {
		todo, _ := r.todo()
		for _, w := range todo {
			if c.moved[w.version.Name] >= maxTries {
				return false, fmt.Errorf("%s: %w", w.version.Name, errMoved)
			}
		}
	}
	return false, err
}

// quicken sees to it that what is to be stored quickly is, and that no other program
// is read from anything but its own record.
func (r *round) quicken(ctx context.Context) error {
	var groups [][]blobstore.ID
	for _, ids := range r.wanted {
		ids = slices.DeleteFunc(ids, func(id blobstore.ID) bool { return r.quick[id] || r.at(id) == nil })
		if len(ids) > 0 {
			groups = append(groups, ids)
		}
		for _, id := range ids {
			loc, _ := r.snap.Locate(id)
			r.total += int64(loc.Length)
		}
	}
	programs := r.astray()
	if len(groups)+len(programs) == 0 {
		return nil
	}
	out, err := blobstore.NewWriter(r.c.store.PackDir(), blobstore.WriterOptions{Workers: r.c.opts.Workers})
	if err != nil {
		return err
	}
	defer out.Abort()
	for _, id := range programs {
		rec, err := r.view.Whole(ctx, id)
		if err != nil {
			return err
		}
		if err := out.Copy(ctx, rec, nil); err != nil {
			return err
		}
		r.made = append(r.made, rec.Header())
		r.records++
	}
	for _, ids := range groups {
		g := blobstore.Group{Quick: true}
		if g.Blobs, err = r.blobs(ctx, ids); err != nil {
			return err
		}
		if err := out.Add(ctx, g); err != nil {
			return err
		}
		for _, b := range g.Blobs {
			r.plain += int64(len(b.Data))
		}
		r.records++
		r.progress(r.total)
	}
	packs, err := out.Finish()
	if err != nil {
		return err
	}
	if err := r.commit(ctx, packs); err != nil {
		return err
	}
	r.count()
	return nil
}

// astray lists the programs, as a whole, that have a record of their own but are read
// from others: from quick ones that need not be any more, or from those of an import
// or a repair, where their record had only been kept as a base.
func (r *round) astray() []blobstore.ID {
	var ids []blobstore.ID
	seen := map[blobstore.ID]bool{}
	for _, v := range r.versions {
		for i := range v.tree.Entries {
			e := &v.tree.Entries[i]
			if e.Kind != index.File || !slices.ContainsFunc(v.tree.Blobs(e), func(ref index.Ref) bool { return r.sparseAt(ref.ID) }) {
				continue
			}
			s := r.files[index.PartsOf(v.tree, e)]
			if s == nil || !s.rec.IsProgram() || r.sparse(s) {
				continue
			}
			if id := s.rec.Blobs()[0].ID; !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	return ids
}
