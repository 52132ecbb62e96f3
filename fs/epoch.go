package fs

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"gofs/index"
)

const (
	rootNode = fuse.FUSE_ROOT_ID
	binNode  = 2
)

// epoch is what the mount shows from one reload to the next. It never
// changes.
type epoch struct {
	generation uint64
	packs      *packs
	snap       *index.Snapshot        // of packs
	releases   []*release             // by root node, the removed ones too
	removed    map[*release]time.Time // until when they stay readable
	root, bin  *listing
	links      map[uint64]*link // the mount's own, also those of earlier epochs
	bytes      int64            // of all files of all versions
	files      int
	provenance map[uint64]string // of the versions, by the node ids of their folders
	all        sync.Once         // loading of all trees
}

// listing is the root or bin.
type listing struct {
	node    uint64
	mtime   time.Time // changes only with the names
	entries []named   // by cookie
	byName  map[string]*named
}

// named is an entry of a listing. Its cookie is the offset behind it in the
// folder's stream and belongs to the name for as long as the mount lives, so
// that a listing that a reload comes between misses and repeats no name.
type named struct {
	name   string
	cookie uint64
	node   uint64
	folder *release // of a version
	link   *link
}

// link is a symbolic link of the mount's own. Its node id is made from what
// it is, so that another target is another inode and the kernel may keep
// targets for ever.
type link struct {
	node   uint64
	target string
	mtime  int64 // Unix seconds
}

func newLink(target string, mtime int64) *link {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", target, mtime))
	return &link{index.MaxNode | binary.BigEndian.Uint64(sum[:])%index.MaxNode, target, mtime}
}

// newEpoch makes the epoch of a snapshot; old is the one before or nil.
// s.reloading is held, or nobody else has the server yet.
func (s *Server) newEpoch(old *epoch, snap *index.Snapshot, p *packs) *epoch {
	e := &epoch{
		generation: snap.Generation, packs: p, snap: snap,
		links: map[uint64]*link{}, removed: map[*release]time.Time{}, provenance: map[uint64]string{},
	}
	known := map[uint64]*release{}
	if old != nil {
		maps.Copy(e.links, old.links)
		for _, r := range old.releases {
			known[r.version.RootNode] = r
		}
	}
	var root, bin []named
	for _, v := range snap.Versions {
		r := known[v.RootNode]
		if r == nil {
			r = &release{version: v}
		}
		r.renew(snap)
		delete(known, v.RootNode)
		e.releases = append(e.releases, r)
		e.bytes += v.Bytes
		e.files += v.Files
		e.provenance[v.RootNode] = cmp.Or(v.Provenance, unverified)
		root = append(root, named{name: v.Name, node: v.RootNode, folder: r})
		if v.Platform == index.HostPlatform() && !(s.launcher != "" && v.Name == "fmt") {
			bin = append(bin, named{name: "go" + v.Name, link: newLink("../"+v.Name+"/bin/go", v.Time)})
		}
	}
	if s.launcher != "" {
		for _, name := range []string{"go", "gofmt"} {
			bin = append(bin, named{name: name, link: newLink(s.launcher, s.started.Unix())})
		}
	}
	for _, a := range index.Aliases(snap.Versions) {
		if v, ok := snap.Find(a.Version); ok {
			root = append(root, named{name: a.Name, link: newLink(a.Version, v.Time)})
		}
	}
	root = append(root, named{name: "bin", node: binNode})
	e.root = s.newListing(e, rootNode, root)
	e.bin = s.newListing(e, binNode, bin)
	e.keepRemoved(old, known)
	slices.SortFunc(e.releases, func(a, b *release) int { return cmp.Compare(a.version.RootNode, b.version.RootNode) })
	e.inheritTimes(old)
	return e
}

// removedFor is how long the files of a removed version stay readable to
// those who use them.
const removedFor = 10 * time.Minute

// keepRemoved keeps releases of the epoch before that are in no version now.
func (e *epoch) keepRemoved(old *epoch, known map[uint64]*release) {
	now := time.Now()
	for _, r := range known {
		until, removedBefore := old.removed[r]
		if !removedBefore {
			until = now.Add(removedFor)
		}
		if now.Before(until) {
			e.releases = append(e.releases, r)
			e.removed[r] = until
		}
	}
}

func (s *Server) newListing(e *epoch, node uint64, entries []named) *listing {
	l := &listing{node: node, mtime: time.Now(), entries: entries, byName: make(map[string]*named, len(entries))}
	for i := range entries {
		n := &entries[i]
		if n.link != nil {
			n.node = n.link.node
			e.links[n.node] = n.link
		}
		key := fmt.Sprintf("%d/%s", node, n.name)
		if s.cookies[key] == 0 {
			s.cookies[key] = uint64(len(s.cookies)) + firstCookie
		}
		n.cookie = s.cookies[key]
	}
	slices.SortFunc(entries, func(a, b named) int { return cmp.Compare(a.cookie, b.cookie) })
	for i := range entries {
		l.byName[entries[i].name] = &entries[i]
	}
	return l
}

// firstCookie follows those of "." and "..".
const firstCookie = 3

// inheritTimes leaves the mtime as it was where no name changed.
func (e *epoch) inheritTimes(old *epoch) {
	if old == nil {
		return
	}
	for _, p := range [][2]*listing{{e.root, old.root}, {e.bin, old.bin}} {
		switch now, before := p[0], p[1]; {
		case len(now.changed(before)) == 0:
			now.mtime = before.mtime
		case !now.mtime.After(before.mtime):
			now.mtime = before.mtime.Add(1)
		}
	}
}

// changed lists the names that mean something else than in the listing
// before.
func (l *listing) changed(before *listing) []string {
	var names []string
	for name, n := range l.byName {
		if b := before.byName[name]; b == nil || b.node != n.node {
			names = append(names, name)
		}
	}
	for name := range before.byName {
		if l.byName[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// after returns the entries behind a cookie.
func (l *listing) after(cookie uint64) []named {
	return l.entries[sort.Search(len(l.entries), func(i int) bool { return l.entries[i].cookie > cookie }):]
}

func (n *named) mode() uint32 {
	if n.link != nil {
		return unix.S_IFLNK
	}
	return unix.S_IFDIR
}

// release returns the release in whose range of node ids a folder would lie;
// nil where there is none.
func (e *epoch) release(node uint64) *release {
	i := sort.Search(len(e.releases), func(i int) bool { return e.releases[i].version.RootNode > node })
	if i == 0 {
		return nil
	}
	return e.releases[i-1]
}

// listing returns the root or bin; nil for other node ids.
func (e *epoch) listing(node uint64) *listing {
	switch node {
	case rootNode:
		return e.root
	case binNode:
		return e.bin
	}
	return nil
}
