package fs

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gofs/index"
)

// release is a version. It stays the same through all reloads.
type release struct {
	version index.Version

	tree atomic.Pointer[grown]
	used atomic.Bool // somebody has looked into it
	mu   sync.Mutex
	snap *index.Snapshot // has its inode numbers; nil once the tree is there
}

// grown is the tree of a release with its inodes.
type grown struct {
	*index.Tree
	root   uint64       // node id of the root folder; the other folders follow it
	mtime  int64        // of the folders, Unix seconds
	inodes []*inode     // as Tree.Entries; nil for folders
	ahead  atomic.Int32 // the entry at which the last prefetch stopped
	pushed atomic.Int32 // the entry that was pushed whole last

	listed   listed
	toTools  atomic.Int32 // how many folders must be listed until the tools are brought; 0: no go command runs
	platform string       // as the folder of its tools is named
}

// node is the node id of entry i.
func (g *grown) node(i int32) uint64 {
	if n := g.inodes[i]; n != nil {
		return n.number
	}
	return g.root + uint64(g.Entries[i].Folder)
}

// folder is the index of the folder with a node id; ok is false for what is
// no folder of this tree.
func (g *grown) folder(node uint64) (i int32, ok bool) {
	if node < g.root || node-g.root >= uint64(len(g.Folders)) {
		return 0, false
	}
	return int32(node - g.root), true
}

// lookup finds the entry with a name in a folder.
func (g *grown) lookup(folder int32, name string) (i int32, ok bool) {
	f := &g.Folders[folder]
	k, ok := slices.BinarySearchFunc(g.Entries[f.First:f.First+f.N], name, func(e index.Entry, name string) int {
		return strings.Compare(e.Name, name)
	})
	return f.First + int32(k), ok
}

// folderOf is the index of the folder that entry i is in.
func (g *grown) folderOf(i int32) int32 {
	// Entries follow each other in the order of their folders; an empty
	// folder begins where the next one does.
	return int32(sort.Search(len(g.Folders), func(f int) bool { return g.Folders[f].First > i })) - 1
}

// load returns the tree, and reads it the first time. Many askers wait for
// one reading; later ones take no lock.
func (s *Server) load(r *release) (*grown, error) {
	if g := r.tree.Load(); g != nil {
		return g, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.tree.Load(); g != nil {
		return g, nil
	}
	g, err := s.grow(r)
	if err != nil {
		s.reportFailure(r.version.Tree, err)
		return nil, err
	}
	r.snap = nil
	return g, nil
}

// renew has a later snapshot take the place of the one that the release
// holds, which would otherwise stay in memory for its sake.
func (r *release) renew(snap *index.Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tree.Load() == nil {
		r.snap = snap
	}
}

// grow reads a tree and makes its inodes; r.mu is held.
func (s *Server) grow(r *release) (*grown, error) {
	d, i, err := s.record(context.Background(), r.version.Tree, again)
	if err != nil {
		return nil, fmt.Errorf("tree of %s: %w", r.version.Name, err)
	}
	tree, err := index.DecodeTree(d.Bytes(i))
	d.Release()
	if err != nil {
		return nil, fmt.Errorf("tree of %s: %w", r.version.Name, err)
	}
	nodes, err := r.snap.Nodes(&r.version, tree)
	if err != nil {
		return nil, err
	}
	list := make([]identity, len(nodes))
	for i := range tree.Entries {
		e, id := &tree.Entries[i], &list[i]
		id.number, id.mtime = nodes[i].Number, nodes[i].MTime
		switch e.Kind {
		case index.Folder:
			id.number = 0
		case index.Symlink:
			id.mode, id.target, id.size = unix.S_IFLNK|0o777, e.Target, int64(len(e.Target))
		default:
			id.mode, id.size, id.refs = unix.S_IFREG|uint32(e.Mode), e.Size, tree.Blobs(e)
		}
	}
	s.pruning.RLock()
	defer s.pruning.RUnlock()
	inodes, err := s.inodes.intern(list)
	if err != nil {
		return nil, fmt.Errorf("tree of %s: %w", r.version.Name, err)
	}
	g := &grown{
		Tree: tree, root: r.version.RootNode, mtime: r.version.Time, inodes: inodes,
		platform: strings.ReplaceAll(r.version.Platform, "-", "_"),
	}
	r.tree.Store(g)
	return g, nil
}

// loadAll loads the trees that are missing. The kernel may know node ids that
// this process has not given out.
func (s *Server) loadAll(e *epoch) {
	e.all.Do(func() {
		for _, r := range e.releases {
			_, _ = s.load(r) // a failure is reported and leaves its inodes unknown
		}
	})
}

// inode finds a file or link by its node id; nil where there is none.
func (s *Server) inode(node uint64) *inode {
	n := s.inodes.get(node)
	if n == nil && node < index.MaxNode {
		s.loadAll(s.now.Load())
		n = s.inodes.get(node)
	}
	return n
}

// findFolder finds the folder with a node id; ok is false where there is none.
func (s *Server) findFolder(node uint64) (g *grown, folder int32, ok bool, err error) {
	r := s.now.Load().release(node)
	if r == nil {
		return nil, 0, false, nil
	}
	// Only the root can be known before the tree is loaded, other folders
	// only to a kernel that another process served before.
	if g, err = s.load(r); err != nil {
		return nil, 0, false, err
	}
	if !r.used.Load() {
		r.used.Store(true)
	}
	folder, ok = g.folder(node)
	return g, folder, ok, nil
}
