package fs

import (
	"maps"
	"slices"
	"sync"

	"gofs/blobstore"
	"gofs/index"
)

// A go command lists the folders of all packages that it is to build before it
// reads from any. So when a file of a listed folder is read, those of the other
// folders follow, and a goroutine pushes them. It takes a record at a time, all
// that is wanted of it, whichever folders that lies in: in a store of 12
// releases the files of a folder lie in six records, each with files of 50
// folders, and to take folder after folder decoded each of these again and
// again.
//
// Tests follow, too, once those of several folders have been read: go list reads
// the tests of all packages, a build those of none, and go test those of one.
//
// Every READ permits to push followBytes, so that somebody who reads a file
// after ls -R does not have the whole release pushed.
const (
	followBytes = 2 << 20
	followMost  = 16 << 20
	testsAfter  = 3 // folders
)

// listed is what has been listed of a tree, and of that, once a file of it is
// read, the files that have not been read or pushed.
type listed struct {
	mu      sync.Mutex
	folders []int32 // listed since the last READ
	before  []int32 // listed earlier, while tests were not wanted
	noted   []noted // of all folders: in which of these it is
	tests   int     // folders of which tests were read, up to testsAfter
	last    int32   // of these
	urgent  []*inode
	queue   []*inode // as they were listed
	waiting map[blobstore.ID]*inode
	permit  int64 // bytes
	running bool
}

// noted says in which lists a folder is.
type noted uint8

const (
	inFolders noted = 1 << iota
	inBefore
)

// list notes that a folder has been listed.
func (s *Server) list(g *grown, folder int32) {
	l := &g.listed
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.builds() {
		go s.bringTools(g)
	}
	if l.noted == nil {
		l.noted = make([]noted, len(g.Folders))
	}
	if l.noted[folder]&inFolders == 0 {
		l.noted[folder] |= inFolders
		l.folders = append(l.folders, folder)
	}
}

// await has the files of the folders wait that were listed; l.mu is held.
func (l *listed) await(g *grown) {
	if l.waiting == nil {
		l.waiting = map[blobstore.ID]*inode{}
	}
	for _, folder := range l.folders {
		l.noted[folder] &^= inFolders
		l.awaitClass(g, folder, index.ForBuild)
		if l.noted[folder]&inBefore == 0 {
			l.noted[folder] |= inBefore
			l.before = append(l.before, folder)
		}
	}
	l.folders = l.folders[:0]
	if l.tests < testsAfter {
		return
	}
	for _, folder := range l.before {
		l.noted[folder] &^= inBefore
		l.awaitClass(g, folder, index.ForTest)
	}
	l.before = l.before[:0]
}

func (l *listed) awaitClass(g *grown, folder int32, class index.Class) {
	f := &g.Folders[folder]
	for i := f.First; i < f.First+f.N; i++ {
		e, n := &g.Entries[i], g.inodes[i]
		if n != nil && n.pushable() && index.ClassOf(e.Name) == class && n.cached.Load() == 0 && l.waiting[n.refs[0].ID] == nil {
			l.waiting[n.refs[0].ID] = n
			l.queue = append(l.queue, n)
		}
	}
}

// wants says whether a file of a class that is read now says that others of its
// class are wanted, those of other folders too.
func (l *listed) wants(folder int32, class index.Class) bool {
	if class != index.ForTest {
		return class == index.ForBuild
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tests < testsAfter && (l.tests == 0 || l.last != folder) {
		l.tests++
		l.last = folder
	}
	return l.tests == testsAfter
}

// follow pushes what else is wanted of a record that a file of a folder was
// read from, has the rest of the folder pushed next, and then what was listed
// before.
func (s *Server) follow(g *grown, folder int32, d *blobstore.Decoded) {
	l := &g.listed
	l.mu.Lock()
	l.await(g)
	f := &g.Folders[folder]
	for _, n := range g.inodes[f.First : f.First+f.N] {
		if n != nil && len(n.refs) == 1 && l.waiting[n.refs[0].ID] == n {
			l.urgent = append(l.urgent, n)
		}
	}
	l.mu.Unlock()
	s.giveListed(l, d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.permit = min(l.permit+followBytes, followMost)
	if !l.running && len(l.waiting) > 0 {
		l.running = true
		go s.pushListed(g)
	}
}

// next takes the first file that is still wanted; nil where there is none or
// the permit is used up, and then the goroutine that asks has to end. It says
// whether the file's record will be needed again: a build has listed all folders
// before it reads a file, so all that it wants of a record waits by now. Who reads
// tests lists and reads in turn.
func (s *Server) next(l *listed) (*inode, use) {
	l.mu.Lock()
	defer l.mu.Unlock()
	use := once
	if l.tests > 0 {
		use = again
	}
	for _, queue := range []*[]*inode{&l.urgent, &l.queue} {
		for len(*queue) > 0 && l.permit > 0 && s.kernel.Load() != nil {
			n := (*queue)[0]
			*queue = (*queue)[1:]
			if l.waiting[n.refs[0].ID] != n {
				continue
			}
			if s.wants(n, 1) {
				return n, use
			}
			delete(l.waiting, n.refs[0].ID)
		}
	}
	l.running = false
	return nil, use
}

// take takes those of a record's files that are waiting, by their places in it.
func (l *listed) take(d *blobstore.Decoded) map[int]*inode {
	l.mu.Lock()
	defer l.mu.Unlock()
	var taken map[int]*inode
	for i, m := range d.Blobs {
		if n := l.waiting[m.ID]; n != nil && m.Length == n.refs[0].Length {
			if taken == nil {
				taken = map[int]*inode{}
			}
			taken[i] = n
			delete(l.waiting, m.ID)
			l.permit -= n.size
		}
	}
	return taken
}

// giveListed pushes what is wanted of a record.
func (s *Server) giveListed(l *listed, d *blobstore.Decoded) {
	taken := l.take(d)
	for _, i := range slices.Sorted(maps.Keys(taken)) {
		n, k := taken[i], s.kernel.Load()
		if k != nil && s.wants(n, 1) && d.Sound(i) && n.cached.CompareAndSwap(0, s.clock()) {
			s.give(*k, n, d.Bytes(i))
		}
	}
}

func (s *Server) pushListed(g *grown) {
	l := &g.listed
	for n, use := s.next(l); n != nil; n, use = s.next(l) {
		d, _, err := s.blobRecord(n.refs[0], use)
		if err != nil { // the reader gets it
			l.drop(n)
			continue
		}
		s.giveListed(l, d)
		d.Release()
	}
}

func (l *listed) drop(n *inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, n.refs[0].ID)
}
