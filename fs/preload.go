package fs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gofs/index"
)

// To read a release's tree and make its inodes takes 15 ms, for which the first
// to look into the release would wait. So a mount reads the trees of those that
// were used last time before anybody asks, and not so early that it is in the
// way of who mounts. Each takes 2.5 MB.
const (
	preloadMost  = 4
	preloadAfter = 50 * time.Millisecond
)

// preload reads the trees of the releases that notes say were used.
func (s *Server) preload(ctx context.Context) {
	if s.notes == "" {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(preloadAfter):
	}
	n, err := readNotes(s.notes)
	if err != nil {
		return // who warms the mount is told
	}
	for _, r := range lastUsed(s.now.Load().releases, n) {
		if ctx.Err() != nil {
			return
		}
		_, _ = s.load(r) // who looks into it gets the error
	}
}

// lastUsed returns the releases that notes say were used, the latest first and
// the newest of a day.
func lastUsed(releases []*release, n notes) []*release {
	day := func(r *release) uint32 { return n[treeKey(r)] }
	used := slices.DeleteFunc(slices.Clone(releases), func(r *release) bool { return day(r) == 0 })
	slices.SortStableFunc(used, func(a, b *release) int {
		return cmp.Or(cmp.Compare(day(b), day(a)), index.CompareNames(b.version.Release, a.version.Release))
	})
	return used[:min(len(used), preloadMost)]
}
