package index

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"gofs/blobstore"
)

// Bounds of a tree. The largest release so far has 16,000 entries and 700 KB.
const (
	MaxEntries = 1 << 17
	maxTree    = 32 << 20 // bytes
	maxBlobs   = 1 << 18
	MaxName    = 255
	MaxTarget  = 4095
	maxDepth   = 1024
	maxPath    = 4096 // bytes of a path, as Linux has it
)

// ErrTree is returned for a tree that breaks the format's rules.
var ErrTree = errors.New("not a valid tree")

// Kind is what an entry of a tree is.
type Kind uint8

const (
	File Kind = iota
	Folder
	Symlink
)

// Ref is a blob of a file.
type Ref struct {
	ID     blobstore.ID
	Length uint32
}

// Item is an entry of a tree that is being made.
type Item struct {
	Path   string // slash-separated, clean, relative to the root
	Kind   Kind
	Mode   uint16 // permission bits
	Size   int64  // of a file: the sum of its blobs
	Blobs  []Ref
	Target string // of a symbolic link
}

const treeMagic = "gofstree\x01"

// EncodeTree makes the tree of the items, which may come in any order.
// Folders that items are in need not be given; they get mode 0755.
func EncodeTree(items []Item) ([]byte, error) {
	root, err := grow(items)
	if err != nil {
		return nil, err
	}
	var body, ids []byte
	var folders, entries, blobs uint64
	var walk func(f *folder)
	walk = func(f *folder) {
		folders++
		names := make([]string, 0, len(f.entries))
		for name := range f.entries {
			names = append(names, name)
		}
		slices.Sort(names)
		entries += uint64(len(names))
		body = binary.AppendUvarint(body, uint64(len(names)))
		for _, name := range names {
			e := f.entries[name]
			body = e.append(body, name)
			for _, b := range e.item.Blobs {
				blobs++
				ids = append(ids, b.ID[:]...)
			}
		}
		for _, name := range names {
			if e := f.entries[name]; e.folder != nil {
				walk(e.folder)
			}
		}
	}
	walk(root.folder)
	out := []byte(treeMagic)
	for _, n := range []uint64{uint64(root.item.Mode), folders, entries, blobs} {
		out = binary.AppendUvarint(out, n)
	}
	return append(append(out, body...), ids...), nil
}

// folder and node are the tree while it is grown from items.
type folder struct{ entries map[string]*node }

type node struct {
	item   Item
	given  bool // by an item, not only as the parent of one
	folder *folder
}

func newFolder() *node {
	return &node{item: Item{Kind: Folder, Mode: 0o755}, folder: &folder{map[string]*node{}}}
}

func grow(items []Item) (*node, error) {
	root := newFolder()
	total := 0
	for _, it := range items {
		at := root
		parts := strings.Split(it.Path, "/")
		if it.Path == "" || path.Clean("/"+it.Path) != "/"+it.Path || len(parts) > maxDepth || len(it.Path) > maxPath {
			return nil, fmt.Errorf("path %q: %w", it.Path, ErrTree)
		}
		for i, name := range parts {
			if len(name) > MaxName || strings.ContainsRune(name, 0) {
				return nil, fmt.Errorf("path %q: %w", it.Path, ErrTree)
			}
			next := at.folder.entries[name]
			last := i == len(parts)-1
			switch {
			case next == nil && last && it.Kind != Folder:
				next = &node{item: it, given: true}
			case next == nil:
				next = newFolder()
			case next.folder == nil || last && (next.given || it.Kind != Folder):
				return nil, fmt.Errorf("%s is there twice: %w", it.Path, ErrTree)
			}
			if last && it.Kind == Folder {
				next.item.Mode, next.given = it.Mode, true
			}
			if at.folder.entries[name] == nil {
				if total++; total > MaxEntries {
					return nil, fmt.Errorf("more than %d entries: %w", MaxEntries, ErrTree)
				}
				at.folder.entries[name] = next
			}
			at = next
		}
	}
	return root, nil
}

func (n *node) append(b []byte, name string) []byte {
	it := &n.item
	b = append(b, byte(it.Kind))
	b = binary.AppendUvarint(b, uint64(it.Mode))
	b = appendString(b, name)
	switch it.Kind {
	case File:
		b = binary.AppendUvarint(b, uint64(it.Size))
		b = binary.AppendUvarint(b, uint64(len(it.Blobs)))
		if len(it.Blobs) > 1 {
			for _, r := range it.Blobs {
				b = binary.AppendUvarint(b, uint64(r.Length))
			}
		}
	case Symlink:
		b = appendString(b, it.Target)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Tree is a decoded tree. Nobody may change it.
type Tree struct {
	Folders []FolderEntry // the root first
	Entries []Entry       // those of Folders[0], then of Folders[1], ...
	refs    []Ref
}

// FolderEntry is a folder of a tree.
type FolderEntry struct {
	First, N int32 // its entries in Tree.Entries
	Parent   int32 // index of the folder it is in; its own for the root
	Mode     uint16
	Name     string
}

// Entry is an entry of a folder.
type Entry struct {
	Name   string
	Target string // of a symbolic link
	Size   int64  // of a file
	Folder int32  // of a folder: its index in Tree.Folders
	first  int32  // of its blobs in refs
	blobs  int32
	Mode   uint16
	Kind   Kind
}

// Blobs lists the blobs of a file in the order of its bytes.
func (t *Tree) Blobs(e *Entry) []Ref { return t.refs[e.first : e.first+e.blobs : e.first+e.blobs] }

// AllBlobs lists the blobs of all files, with repetitions.
func (t *Tree) AllBlobs() []Ref { return t.refs }

// List returns the entries of a folder, sorted by name.
func (t *Tree) List(folder int32) []Entry {
	f := &t.Folders[folder]
	return t.Entries[f.First : f.First+f.N]
}

// Lookup finds the entry with a name in a folder.
func (t *Tree) Lookup(folder int32, name string) (*Entry, bool) {
	list := t.List(folder)
	i, ok := slices.BinarySearchFunc(list, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return nil, false
	}
	return &list[i], true
}

// Find finds the entry at a path below the root.
func (t *Tree) Find(name string) (*Entry, bool) {
	at := int32(0)
	for {
		first, rest, more := strings.Cut(name, "/")
		e, ok := t.Lookup(at, first)
		if !ok || !more {
			return e, ok
		}
		if e.Kind != Folder {
			return nil, false
		}
		at, name = e.Folder, rest
	}
}

// Path is the slash-separated path of a folder, "" for the root.
func (t *Tree) Path(folder int32) string {
	var names []string
	for folder != 0 {
		f := &t.Folders[folder]
		names = append(names, f.Name)
		folder = f.Parent
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// Walk calls fn for every entry with its path, folders before what is in them.
func (t *Tree) Walk(fn func(path string, e *Entry) error) error {
	for i := range t.Folders {
		dir := t.Path(int32(i))
		list := t.List(int32(i))
		for j := range list {
			if err := fn(path.Join(dir, list[j].Name), &list[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// DecodeTree reads and checks a tree. It keeps no reference to b.
func DecodeTree(b []byte) (*Tree, error) {
	t, err := decodeTree(b)
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	return t, nil
}

func decodeTree(b []byte) (*Tree, error) {
	if len(b) > maxTree || !strings.HasPrefix(string(b[:min(len(b), len(treeMagic))]), treeMagic) {
		return nil, ErrTree
	}
	d := &treeDecoder{numbers: numbers{b: b[len(treeMagic):]}}
	rootMode := d.mode()
	folders, entries, blobs := d.upTo(MaxEntries+1), d.upTo(MaxEntries), d.upTo(maxBlobs)
	// Each folder takes a byte at least, each entry four and each blob 32.
	if d.err != nil || folders == 0 || folders > entries+1 || folders+4*entries+32*blobs > uint64(len(d.b)) {
		return nil, ErrTree
	}
	// Names and targets become parts of this one string.
	body := len(d.b) - int(32*blobs)
	d.text, d.ids = string(d.b[:body]), d.b[body:]
	d.b = d.b[:body]
	d.t = Tree{
		Folders: make([]FolderEntry, 0, folders),
		Entries: make([]Entry, 0, entries),
		refs:    make([]Ref, 0, blobs),
	}
	d.folder(FolderEntry{Mode: rootMode}, 0, 0)
	if d.err == nil && (len(d.b) != 0 || len(d.t.Folders) != int(folders) || len(d.t.Entries) != int(entries) || len(d.t.refs) != int(blobs)) {
		d.err = ErrTree
	}
	if d.err != nil {
		return nil, d.err
	}
	t := d.t // not a pointer into what refers to b
	return &t, nil
}

type treeDecoder struct {
	numbers
	t    Tree
	text string // what the bytes were before anything was read
	ids  []byte
}

// folder reads a folder that lies so deep and has a path of so many bytes, and
// all in it.
func (d *treeDecoder) folder(f FolderEntry, depth, above int) {
	at := int32(len(d.t.Folders))
	n := d.upTo(MaxEntries)
	if d.err != nil || depth > maxDepth || len(d.t.Folders) == cap(d.t.Folders) || int(n) > cap(d.t.Entries)-len(d.t.Entries) {
		d.err = ErrTree
		return
	}
	f.First, f.N = int32(len(d.t.Entries)), int32(n)
	d.t.Folders = append(d.t.Folders, f)
	last := ""
	for range n {
		e := d.entry()
		if d.err != nil {
			return
		}
		if e.Name <= last || above+len(e.Name) > maxPath {
			d.err = ErrTree
			return
		}
		last = e.Name
		d.t.Entries = append(d.t.Entries, e)
	}
	for i := f.First; i < f.First+f.N; i++ {
		e := &d.t.Entries[i]
		if e.Kind != Folder {
			continue
		}
		e.Folder = int32(len(d.t.Folders))
		if d.folder(FolderEntry{Parent: at, Mode: e.Mode, Name: e.Name}, depth+1, above+len(e.Name)+1); d.err != nil {
			return
		}
	}
}

func (d *treeDecoder) entry() (e Entry) {
	e.Kind = Kind(d.byte())
	e.Mode = d.mode()
	e.Name = d.string(MaxName)
	if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
		d.err = ErrTree
		return e
	}
	switch e.Kind {
	case File:
		d.blobs(&e)
	case Folder:
	case Symlink:
		if e.Target = d.string(MaxTarget); e.Target == "" || strings.ContainsRune(e.Target, 0) {
			d.err = ErrTree
		}
	default:
		d.err = ErrTree
	}
	return e
}

func (d *treeDecoder) blobs(e *Entry) {
	size := d.upTo(math.MaxInt64)
	n := d.upTo(uint64(cap(d.t.refs) - len(d.t.refs)))
	if d.err != nil {
		return
	}
	e.Size, e.first, e.blobs = int64(size), int32(len(d.t.refs)), int32(n)
	rest := size
	for i := range n {
		length := rest
		if n > 1 {
			length = d.upTo(rest)
		}
		if length == 0 || length > blobstore.MaxRecord {
			d.err = ErrTree
		}
		if d.err != nil {
			return
		}
		rest -= length
		id := blobstore.ID(d.ids[32*(int(e.first)+int(i)):][:32])
		d.t.refs = append(d.t.refs, Ref{id, uint32(length)})
	}
	if rest != 0 {
		d.err = ErrTree
	}
}

func (d *treeDecoder) mode() uint16 { return uint16(d.upTo(0o777)) }

func (d *treeDecoder) string(limit uint64) string {
	n := d.upTo(limit)
	if d.err != nil || n > uint64(len(d.b)) {
		d.err = ErrTree
		return ""
	}
	from := len(d.text) - len(d.b)
	d.b = d.b[n:]
	return d.text[from : from+int(n)]
}

// numbers reads varints in their shortest form, so that nothing has two
// encodings; after the first error it reads zeros.
type numbers struct {
	b   []byte
	err error
}

func (d *numbers) upTo(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit || n > 1 && d.b[n-1] == 0 {
		d.err = ErrTree
	}
	if d.err != nil {
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *numbers) signed() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.err = ErrTree
	}
	if d.err != nil {
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *numbers) byte() byte {
	if len(d.b) == 0 {
		d.err = ErrTree
	}
	if d.err != nil {
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// PartsKey stands for the blobs of a file, or the parts of a program, in their order.
type PartsKey [sha256.Size]byte

// PartsOf is the key of a file of a tree.
func PartsOf(t *Tree, e *Entry) PartsKey {
	return partsKey(t.Blobs(e), func(r Ref) blobstore.ID { return r.ID })
}

// PartsOfRecord is the key of the file that a record holds, if it holds one.
func PartsOfRecord(r *blobstore.Record) PartsKey {
	return partsKey(r.Parts(), func(m blobstore.Member) blobstore.ID { return m.ID })
}

func partsKey[T any](parts []T, id func(T) blobstore.ID) PartsKey {
	b := make([]byte, 0, len(parts)*sha256.Size)
	for _, p := range parts {
		id := id(p)
		b = append(b, id[:]...)
	}
	return sha256.Sum256(b)
}

// FileKey identifies what a file or symbolic link is, whatever its name: files
// with equal keys share an inode. It is the SHA-256 of the kind, the mode and
// the blobs or the target.
func FileKey(t *Tree, e *Entry) [16]byte {
	b := make([]byte, 0, 64)
	b = append(b, byte(e.Kind))
	b = binary.BigEndian.AppendUint16(b, e.Mode)
	b = append(b, e.Target...)
	for _, r := range t.Blobs(e) {
		b = append(b, r.ID[:]...)
	}
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}
