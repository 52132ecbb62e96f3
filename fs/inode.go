package fs

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"gofs/index"
)

// identity is what an inode is and never changes.
type identity struct {
	number uint64
	size   int64
	mtime  int64 // Unix seconds
	refs   []index.Ref
	target string // of a link
	mode   uint32 // with the type bits
}

// inode is a file or a symbolic link of one or more releases.
type inode struct {
	identity

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
func (n *identity) same(o *identity) bool {
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

// intern returns the inodes of a tree's entries; nil where the number is 0, of
// a folder. Those that the table has not are made and put into it: four
// fifths of a release's files are in others too, and 12 releases with inodes
// of their own took 10 MB more. It fails where a number stands for another
// file in the table: then the index is wrong, and to show either could be to
// show wrong bytes.
func (t *table) intern(list []identity) ([]*inode, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pages := inodePages{}
	if old := t.pages.Load(); old != nil {
		maps.Copy(pages, *old)
	}
	inodes, fresh := make([]*inode, len(list)), make(map[uint64]*inode, len(list))
	var slab []inode
	for i := range list {
		id := &list[i]
		if id.number == 0 {
			continue
		}
		n := t.get(id.number)
		if n == nil {
			n = fresh[id.number] // the tree has it twice
		}
		if n == nil {
			if len(slab) == 0 {
				slab = make([]inode, inodeSlab)
			}
			n, slab = &slab[0], slab[1:]
			n.identity = *id
			fresh[id.number] = n
		}
		if !n.same(id) {
			return nil, fmt.Errorf("inode %d is two files: %w", id.number, index.ErrIndex)
		}
		inodes[i] = n
	}
	for number, n := range fresh {
		pages.slot(number).Store(n)
	}
	t.pages.Store(&pages)
	return inodes, nil
}

// inodeSlab is how many inodes are allocated at once.
const inodeSlab = 64

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
