package fs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gofs/index"
)

// Warm says what is to be loaded before it is needed.
type Warm struct {
	// Versions are names or aliases; none means all.
	Versions []string `json:"versions,omitempty"`
	// All loads every file instead of those that have been read from this
	// mount or from earlier ones.
	All bool `json:"all,omitempty"`
	// Paths loads these instead, relative to each version; a folder stands
	// for all that is in it.
	Paths []string `json:"paths,omitempty"`
}

// ErrNoVersion is returned for a version that the mount does not show.
var ErrNoVersion = errors.New("no such version")

// warmFile is a file that is to be loaded.
type warmFile struct {
	path  string // relative to the mount
	inode *inode
}

// warmPlan is what a Warm comes to.
type warmPlan struct {
	files   []warmFile // each content once, in the order of the trees
	bytes   int64
	missing []string // paths that are not there, the first maxMissing
	absent  int      // how many there are
}

// maxMissing bounds the list of paths that are not there: each of a profile's
// is looked for in each version.
const maxMissing = 1000

// plan finds the files.
func (s *Server) plan(w Warm) (*warmPlan, error) {
	e := s.now.Load()
	var list []*release
	for _, name := range w.Versions {
		r := e.named(name)
		if r == nil {
			return nil, fmt.Errorf("%s: %w", name, ErrNoVersion)
		}
		list = append(list, r)
	}
	if len(w.Versions) == 0 {
		for _, r := range e.releases {
			if _, gone := e.removed[r]; !gone {
				list = append(list, r)
			}
		}
	}
	var set notes
	if !w.All && len(w.Paths) == 0 {
		if set = s.workingSet(); len(set) == 0 {
			return &warmPlan{}, nil
		}
	}
	p := &warmPlan{}
	seen := map[*inode]bool{}
	for _, r := range list {
		g, err := s.load(r)
		if err != nil {
			return nil, err
		}
		take := func(i int32, path string) {
			n := g.inodes[i]
			if n == nil || n.mode&unix.S_IFMT != unix.S_IFREG || n.size == 0 || seen[n] {
				return
			}
			if _, read := set[noteKey(n)]; set != nil && !read {
				return
			}
			seen[n] = true
			p.files = append(p.files, warmFile{path, n})
			p.bytes += n.size
		}
		if len(w.Paths) == 0 {
			g.each(0, r.version.Name, take)
		}
		for _, name := range w.Paths {
			if !g.under(name, r.version.Name, take) {
				if p.absent++; p.absent <= maxMissing {
					p.missing = append(p.missing, r.version.Name+"/"+name)
				}
			}
		}
	}
	return p, nil
}

// named finds a version by its name or alias.
func (e *epoch) named(name string) *release {
	n := e.root.byName[name]
	if n != nil && n.link != nil {
		n = e.root.byName[n.link.target]
	}
	if n == nil {
		return nil
	}
	return n.folder
}

// each calls fn for every entry below a folder that is no folder.
func (g *grown) each(folder int32, prefix string, fn func(i int32, path string)) {
	f := &g.Folders[folder]
	for i := f.First; i < f.First+f.N; i++ {
		e := &g.Entries[i]
		if e.Kind == index.Folder {
			g.each(e.Folder, prefix+"/"+e.Name, fn)
		} else {
			fn(i, prefix+"/"+e.Name)
		}
	}
}

// under calls fn for what a path means: a file, or all below a folder. It is
// false where there is nothing.
func (g *grown) under(name, prefix string, fn func(i int32, path string)) bool {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		g.each(0, prefix, fn)
		return true
	}
	at, parts := int32(0), strings.Split(name, "/")
	for k, part := range parts {
		i, ok := g.lookup(at, part)
		switch {
		case !ok:
			return false
		case g.Entries[i].Kind == index.Folder:
			at = g.Entries[i].Folder
		case k < len(parts)-1:
			return false
		default:
			fn(i, prefix+"/"+name)
			return true
		}
	}
	g.each(at, prefix+"/"+name, fn)
	return true
}

// hush keeps the files of a plan that nobody has read from being noted while
// they are loaded; the function that it returns ends that.
func (p *warmPlan) hush() (end func()) {
	var hushed []*inode
	for _, f := range p.files {
		if f.inode.flags.CompareAndSwap(0, flagQuiet) {
			hushed = append(hushed, f.inode)
		}
	}
	return func() {
		for _, n := range hushed {
			n.flags.CompareAndSwap(flagQuiet, 0)
		}
	}
}

// heat puts the files of a plan into the hot layer that belong there, and
// passes each to done. It returns the others.
func (s *Server) heat(ctx context.Context, p *warmPlan, done func(warmFile)) (rest []warmFile) {
	if s.hot == nil {
		return p.files
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cap(s.decoders))
	var mu sync.Mutex
	var kept atomic.Int64
	for _, f := range p.files {
		// Above the limit, later files would only push out the earlier ones.
		if !s.hot.takes(f.inode) || kept.Add(room(f.inode.size)) > s.hot.limit {
			mu.Lock()
			rest = append(rest, f)
			mu.Unlock()
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			file, err := s.hot.fetch(f.inode)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				rest = append(rest, f)
				return nil
			}
			file.release()
			done(f)
			return nil
		})
	}
	_ = g.Wait() // who asked is gone
	return rest
}
