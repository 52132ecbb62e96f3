package fs

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollEvery is how often the generation is read where no event announces it,
// as on network file systems.
const pollEvery = 2 * time.Second

// watch reloads when the store's generation changes.
func (s *Server) watch(ctx context.Context) {
	var events chan fsnotify.Event
	var errs chan error
	if w, err := fsnotify.NewWatcher(); err != nil {
		s.log.Debug("the store is polled only", "err", err)
	} else {
		defer w.Close()
		// The file is renamed into place, so its folder is watched.
		if err := w.Add(s.store.Dir()); err != nil {
			s.log.Debug("the store is polled only", "err", err)
		}
		events, errs = w.Events, w.Errors
	}
	name := filepath.Base(s.store.GenerationFile())
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-events:
			if filepath.Base(ev.Name) == name {
				s.checkGeneration(ctx)
			}
		case err := <-errs: // an overflow: some event was lost
			s.log.Debug("watching the store", "err", err)
			s.checkGeneration(ctx)
		case now := <-tick.C:
			s.checkGeneration(ctx)
			s.prune(now)
			s.rest(now)
			if now.Sub(s.noted) >= notesEvery {
				s.noted = now
				s.keepNotes()
			}
		}
	}
}

// checkGeneration reloads if another generation was announced. An error is
// logged once, and the mount goes on as it is.
func (s *Server) checkGeneration(ctx context.Context) {
	n, err := s.store.Generation()
	if err != nil || n == s.announced.Load() {
		return
	}
	if err := s.Reload(ctx); err != nil {
		s.counters.reloadErrors.Add(1)
		text := err.Error()
		if last := s.failed.Swap(&text); last == nil || *last != text {
			s.log.Error("reload failed, the mount stays as it is", "err", err)
		}
		return
	}
	s.failed.Store(nil)
	s.announced.Store(n)
}

// Reload reads the store's index anew and shows what changed. The mount does
// so by itself too; after Reload has returned, it is done. On an error the
// mount stays as it is.
func (s *Server) Reload(ctx context.Context) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed {
		return fmt.Errorf("reload: %w", fs.ErrClosed)
	}
	old := s.now.Load()
	snap, view, err := s.store.OpenView(s.cache)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if snap.Generation <= old.generation {
		view.Close()
		if snap.Generation < old.generation {
			return fmt.Errorf("reload: %w", ErrReplaced)
		}
		return nil
	}
	view.Share(old.packs.view)
	e := s.newEpoch(old, snap, newPacks(view))
	s.tellShown(e)
	// Whoever finds a blob in the new packs no more must find the old ones.
	kept := s.retire(old, e)
	s.now.Store(e)
	if !kept {
		old.packs.release()
	}
	s.counters.reloads.Add(1)
	s.invalidate(old, e)
	return nil
}

// invalidate makes the kernel ask anew for the names that changed, known or
// known to be missing, and for their folders' listings. EntryNotify waits for
// lookups and listings of the folder that are under way, so none of them can
// bring back what was before; hence its place before InodeNotify. A removed
// version gets no DeleteNotify: that would take its files from those who are
// in it.
//
// The status is not looked at: the kernel need not know the name, and a mount
// that is gone needs no notice.
func (s *Server) invalidate(old, e *epoch) {
	k := s.kernel.Load()
	if k == nil {
		return
	}
	for _, p := range [][2]*listing{{old.root, e.root}, {old.bin, e.bin}} {
		names := p[1].changed(p[0])
		for _, name := range names {
			(*k).EntryNotify(p[1].node, name)
		}
		if len(names) > 0 {
			(*k).InodeNotify(p[1].node, 0, 0)
		}
	}
}

// invalidateAll makes the kernel ask anew for every name that this process or
// one before it has shown: the store may have changed while nobody served.
func (s *Server) invalidateAll() {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	k := s.kernel.Load()
	if k == nil {
		return
	}
	for key := range s.cookies {
		node, name, _ := strings.Cut(key, "/")
		if n, err := strconv.ParseUint(node, 10, 64); err == nil {
			(*k).EntryNotify(n, name)
		}
	}
	for _, node := range []uint64{rootNode, binNode} {
		(*k).InodeNotify(node, 0, 0)
	}
}

// prune forgets removed versions whose time is over.
func (s *Server) prune(now time.Time) {
	s.expire(now)
	s.reloading.Lock()
	defer s.reloading.Unlock()
	old := s.now.Load()
	e := &epoch{
		generation: old.generation, packs: old.packs, snap: old.snap,
		removed: map[*release]time.Time{},
		root:    old.root, bin: old.bin, links: old.links, bytes: old.bytes, files: old.files, provenance: old.provenance,
	}
	for _, r := range old.releases {
		until, removed := old.removed[r]
		if removed && !now.Before(until) {
			continue
		}
		if removed {
			e.removed[r] = until
		}
		e.releases = append(e.releases, r)
	}
	if len(e.releases) == len(old.releases) {
		return
	}
	s.pruning.Lock()
	defer s.pruning.Unlock()
	s.now.Store(e)
	var lists [][]*inode
	for _, r := range e.releases {
		if g := r.tree.Load(); g != nil {
			lists = append(lists, g.inodes)
		}
	}
	s.inodes.keepOnly(lists)
}
