package source

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// Bounds on names: what Linux can hold, and what a hostile archive can make
// this process remember.
const (
	maxElement = 255      // bytes of one path element (NAME_MAX)
	maxPath    = 4096     // bytes of a path or a link's target (PATH_MAX)
	maxNames   = 16 << 20 // bytes of all names of a tree together; a release has 700 KB
	maxWork    = 1 << 30  // bytes of names looked at to resolve a tree's links, about a second
	maxHops    = 40       // links followed one after another, as the kernel does
)

// checkPath says what is wrong with name as a slash-separated path below the
// root of a tree, "" if nothing is.
func checkPath(name string) string {
	switch {
	case name == "":
		return "empty name"
	case len(name) > maxPath:
		return fmt.Sprintf("name longer than %d bytes", maxPath)
	case strings.IndexByte(name, 0) >= 0:
		return "name with a NUL byte"
	case !utf8.ValidString(name):
		return "name that is not UTF-8"
	case strings.IndexByte(name, '\\') >= 0:
		return "name with a backslash"
	case name[0] == '/':
		return "absolute name"
	}
	for elem := range strings.SplitSeq(name, "/") {
		switch {
		case elem == "":
			return "name with an empty element"
		case elem == ".":
			return `name with a "." element`
		case elem == "..":
			return `name with a ".." element`
		case len(elem) > maxElement:
			return fmt.Sprintf("name with an element longer than %d bytes", maxElement)
		}
	}
	return ""
}

// short cuts a hostile name to a length that suits a message.
func short(name string) string {
	const most = 120
	if len(name) > most {
		return fmt.Sprintf("%q...", name[:most])
	}
	return fmt.Sprintf("%q", name)
}

// seen is what a tree knows of a path.
type seen struct {
	kind    Kind
	implied bool // a folder known from the names below it only
}

// tree checks that entries make one sane tree. It remembers every path.
type tree struct {
	label      string
	maxSize    int64
	maxEntries int

	paths map[string]seen
	links map[string]string // target of each symbolic link
	size  int64             // unpacked bytes
	names int64             // bytes in paths and links
	work  int64             // bytes looked at to resolve links
}

func newTree(label string, o Options) *tree {
	return &tree{
		label:      label,
		maxSize:    o.MaxSize,
		maxEntries: o.MaxEntries,
		paths:      make(map[string]seen),
		links:      make(map[string]string),
	}
}

// add checks e against everything added before it.
func (t *tree) add(e Entry) error {
	if msg := checkPath(e.Path); msg != "" {
		return fail(t.label, ErrUnsafe, "%s: %s", msg, short(e.Path))
	}
	if err := t.parents(e.Path); err != nil {
		return err
	}
	if old, ok := t.paths[e.Path]; ok {
		switch {
		case old.kind == Dir && e.Kind != Dir:
			return fail(t.label, ErrUnsafe, "%s %s where a folder is", e.Kind, short(e.Path))
		case old.kind != Dir && e.Kind == Dir:
			return fail(t.label, ErrUnsafe, "folder %s where a %s is", short(e.Path), old.kind)
		case !old.implied:
			return fail(t.label, ErrUnsafe, "duplicate name %s", short(e.Path))
		}
	}
	if err := t.remember(e.Path, seen{kind: e.Kind}); err != nil {
		return err
	}
	switch e.Kind {
	case File:
		if e.Size < 0 || e.Size > t.maxSize-t.size {
			return tooLarge(t.label, t.maxSize)
		}
		t.size += e.Size
	case Symlink:
		return t.link(e.Path, e.Target)
	}
	return nil
}

// parents adds the folders above p.
func (t *tree) parents(p string) error {
	for i := len(p) - 1; i > 0; i-- {
		if p[i] != '/' {
			continue
		}
		dir := p[:i]
		if old, ok := t.paths[dir]; ok {
			if old.kind != Dir {
				return fail(t.label, ErrUnsafe, "%s lies below %s, which is a %s", short(p), short(dir), old.kind)
			}
			return nil // and so are the folders above it
		}
		if err := t.remember(dir, seen{Dir, true}); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) remember(p string, s seen) error {
	t.paths[p] = s
	t.names += int64(len(p))
	if len(t.paths) > t.maxEntries {
		return fail(t.label, ErrTooLarge, "more than %d names", t.maxEntries)
	}
	if t.names > maxNames {
		return fail(t.label, ErrTooLarge, "names of more than %d MiB", maxNames>>20)
	}
	return nil
}

// link checks the target of the link at p as far as one entry can tell.
func (t *tree) link(p, target string) error {
	switch {
	case target == "" || len(target) > maxPath || strings.IndexByte(target, 0) >= 0 || !utf8.ValidString(target):
		return fail(t.label, ErrUnsafe, "symbolic link %s with a bad target %s", short(p), short(target))
	case target[0] == '/':
		return fail(t.label, ErrUnsafe, "symbolic link %s leads to the absolute %s", short(p), short(target))
	}
	if to := path.Join(path.Dir(p), target); to == ".." || strings.HasPrefix(to, "../") {
		return t.escapes(p)
	}
	t.links[p] = target
	t.names += int64(len(target))
	return nil
}

func (t *tree) escapes(p string) error {
	return fail(t.label, ErrUnsafe, "symbolic link %s leads out of the tree", short(p))
}

// finish checks what can be known only when all entries are there: that this
// is a Go release, and where links lead once other links are followed (one to
// ".." makes "link/.." lead out although its letters do not).
func (t *tree) finish() error {
	for p := range t.links {
		if err := t.follow(p); err != nil {
			return err
		}
	}
	for _, p := range []string{"VERSION", "bin/go", "bin/go.exe"} {
		if s, ok := t.paths[p]; ok && s.kind != Dir {
			return nil
		}
	}
	return fail(t.label, ErrNotRelease, "it has neither VERSION nor bin/go")
}

// follow resolves the link at p the way the kernel would.
func (t *tree) follow(p string) error {
	var at []string // where we are, as elements
	if dir := path.Dir(p); dir != "." {
		at = strings.Split(dir, "/")
	}
	todo := strings.Split(t.links[p], "/")
	for hops := 1; len(todo) > 0; {
		elem := todo[0]
		todo = todo[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return t.escapes(p)
			}
			at = at[:len(at)-1]
			continue
		}
		at = append(at, elem)
		here := strings.Join(at, "/")
		if t.work += int64(len(here)); len(here) > maxPath || t.work > maxWork {
			return fail(t.label, ErrUnsafe, "symbolic link %s leads too far", short(p))
		}
		target, ok := t.links[here]
		if !ok {
			continue
		}
		if hops++; hops > maxHops {
			return fail(t.label, ErrUnsafe, "symbolic link %s goes in a circle", short(p))
		}
		at = at[:len(at)-1]
		todo = append(strings.Split(target, "/"), todo...)
	}
	return nil
}

func tooLarge(label string, limit int64) error {
	if limit >= 1<<30 && limit%(1<<30) == 0 {
		return fail(label, ErrTooLarge, "it unpacks to more than %d GiB", limit>>30)
	}
	return fail(label, ErrTooLarge, "it unpacks to more than %d bytes", limit)
}
