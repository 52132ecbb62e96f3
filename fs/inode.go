package fs

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"gofs/index"
)

// inode is a file or a symbolic link of one or more releases.
type inode struct {
	number uint64
	size   int64
	mtime  int64 // Unix seconds
	refs   []index.Ref
	target string // of a link
	mode   uint32 // with the type bits

	// What the kernel is believed to have. It only steers prefetch.
	lookups atomic.Int64          // how often it was given out and not forgotten
	cached  atomic.Int64          // when its bytes last went there, see Server.clock
	next    atomic.Int64          // offset behind the last READ
	home    atomic.Pointer[grown] // the tree through which it was given out last,
	place   atomic.Int32          // and its index in that tree's entries

	flags atomic.Uint32           // flagRead and so on
	hot   atomic.Pointer[hotFile] // its file in the hot layer; nil where unknown
}

// handOut notes that the kernel is told of the inode.
func (n *inode) handOut(g *grown, place int32) {
	n.lookups.Add(1)
	// Mostly nothing changes, and a load does not take the cache line away
	// from other processors.
	if n.home.Load() != g {
		n.home.Store(g)
	}
	if n.place.Load() != place {
		n.place.Store(place)
	}
}

// same says whether the inode is what an entry of another tree says.
func (n *inode) same(o *inode) bool {
	return n.size == o.size && n.mtime == o.mtime && n.mode == o.mode && n.target == o.target && slices.Equal(n.refs, o.refs)
}

// table finds inodes by number. Readers take no lock.
type table struct {
	pages atomic.Pointer[inodePages] // never changes, only the pages in it do
	mu    sync.Mutex                 // of those who write
}

const pageBits = 9

type (
	inodePage  [1 << pageBits]atomic.Pointer[inode]
	inodePages map[uint64]*inodePage
)

func (t *table) get(number uint64) *inode {
	pages := t.pages.Load()
	if pages == nil {
		return nil
	}
	p := (*pages)[number>>pageBits]
	if p == nil {
		return nil
	}
	return p[number&(1<<pageBits-1)].Load()
}

// slot is where an inode's pointer is; the page is made when it is missing.
func (pages inodePages) slot(number uint64) *atomic.Pointer[inode] {
	p := pages[number>>pageBits]
	if p == nil {
		p = new(inodePage)
		pages[number>>pageBits] = p
	}
	return &p[number&(1<<pageBits-1)]
}

// share puts the inodes into the table; where one is there already it goes
// into list instead. It fails where that is another file: then the index is
// wrong, and to show either could be to show wrong bytes.
func (t *table) share(list []*inode) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	pages := inodePages{}
	if old := t.pages.Load(); old != nil {
		maps.Copy(pages, *old)
	}
	for i, n := range list {
		if n == nil {
			continue
		}
		have := t.get(n.number)
		if have == nil {
			continue
		}
		if !have.same(n) {
			return fmt.Errorf("inode %d is two files: %w", n.number, index.ErrIndex)
		}
		list[i] = have
	}
	for _, n := range list {
		if n != nil {
			pages.slot(n.number).Store(n)
		}
	}
	t.pages.Store(&pages)
	return nil
}

// keepOnly drops all inodes but those of the lists.
func (t *table) keepOnly(lists [][]*inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pages := inodePages{}
	for _, list := range lists {
		for _, n := range list {
			if n != nil {
				pages.slot(n.number).Store(n)
			}
		}
	}
	t.pages.Store(&pages)
}
