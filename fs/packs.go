package fs

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"gofs/blobstore"
)

// packs is a view that is closed when nobody reads from it any more.
type packs struct {
	view *blobstore.View
	refs atomic.Int64 // one is the server's
}

func newPacks(v *blobstore.View) *packs {
	p := &packs{view: v}
	p.refs.Store(1)
	return p
}

// acquire reports false when the view is closed or about to be.
func (p *packs) acquire() bool {
	for {
		n := p.refs.Load()
		if n == 0 {
			return false
		}
		if p.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (p *packs) release() {
	if p.refs.Add(-1) == 0 {
		p.view.Close()
	}
}

// retiredPacks are the packs of an earlier epoch, which may have blobs of
// removed versions that the current ones have not.
type retiredPacks struct {
	*packs
	until time.Time
}

// currentPacks returns the packs of the current epoch, acquired; nil after
// the mount is gone.
func (s *Server) currentPacks() *packs {
	for {
		e := s.now.Load()
		if e.packs.acquire() {
			return e.packs
		}
		if s.now.Load() == e {
			return nil
		}
	}
}

// use is whether a record will be needed again.
type use bool

const (
	again use = true
	once  use = false // all that is needed of it goes to the kernel now
)

func (u use) record(ctx context.Context, v *blobstore.View, id blobstore.ID) (*blobstore.Decoded, int, error) {
	if u == once {
		return v.RecordOnce(ctx, id)
	}
	return v.Record(ctx, id)
}

// record returns the decoded record that holds a blob, and its place in it.
func (s *Server) record(ctx context.Context, id blobstore.ID, use use) (*blobstore.Decoded, int, error) {
	p := s.currentPacks()
	if p == nil {
		return nil, 0, os.ErrClosed
	}
	d, i, err := use.record(ctx, p.view, id)
	p.release()
	if errors.Is(err, blobstore.ErrNotFound) {
		d, i, err = s.retiredRecord(ctx, id, use, err)
	}
	return d, i, err
}

// retiredRecord looks for a blob in the packs of earlier epochs; err is what
// the current ones said.
func (s *Server) retiredRecord(ctx context.Context, id blobstore.ID, use use, err error) (d *blobstore.Decoded, i int, _ error) {
	for _, p := range s.acquireRetired() {
		if errors.Is(err, blobstore.ErrNotFound) {
			d, i, err = use.record(ctx, p.view, id)
		}
		p.release()
	}
	return d, i, err
}

// acquireRetired returns the retired packs, the latest first.
func (s *Server) acquireRetired() []*packs {
	s.retiredMu.Lock()
	defer s.retiredMu.Unlock()
	var list []*packs
	for _, r := range slices.Backward(s.retired) {
		if r.acquire() {
			list = append(list, r.packs)
		}
	}
	return list
}

// maxRetired bounds the states of the store that are kept for removed
// versions. Each has its index in memory, and the packs that later ones have
// not.
const maxRetired = 16

// retire keeps the packs of an earlier epoch where removed versions that can
// still be read may have blobs there that the new one has not.
func (s *Server) retire(old, e *epoch) (kept bool) {
	if len(e.removed) == 0 || e.snap.HasAll(old.snap) {
		return false
	}
	s.retiredMu.Lock()
	defer s.retiredMu.Unlock()
	s.retired = append(s.retired, retiredPacks{old.packs, time.Now().Add(removedFor)})
	if len(s.retired) > maxRetired {
		s.retired[0].release()
		s.retired = slices.Delete(s.retired, 0, 1)
	}
	return true
}

// expire closes the retired packs whose time is over.
func (s *Server) expire(now time.Time) {
	s.retiredMu.Lock()
	defer s.retiredMu.Unlock()
	s.retired = slices.DeleteFunc(s.retired, func(r retiredPacks) bool {
		over := !now.Before(r.until)
		if over {
			r.release()
		}
		return over
	})
}

// closeViews lets go of all packs; the mount is gone.
func (s *Server) closeViews() {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.closed = true
	s.expire(time.Now().Add(2 * removedFor))
	s.now.Load().packs.release()
}
