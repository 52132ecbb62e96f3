// Package recordfs is a file system in memory that logs what changes it, so
// that tests can make the disks that a crash of the machine may leave, and
// that fails or ends a process at any operation they choose.
//
// It is mounted with FUSE, and knows what a store does: files and folders with
// names, links, renames, unnamed files, mappings that are read, and locks.
//
// # What a crash may leave
//
// An operation on the bytes of a file is durable when the file has been synced
// after it, one on a name when the folder has. Of those that are not, each may
// have come to the disk or not, in any order, and of a write any of its 512-byte
// sectors: this is less than ext4, XFS and Btrfs promise, which keep the names
// of a folder in order. A rename is one operation; names are not bytes of a
// file, and the sync of a file makes no name durable.
package recordfs

import (
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Kind is what an operation does.
type Kind uint8

const (
	Create   Kind = iota // a file with a name
	Unnamed              // a file without one
	Mkdir                // a folder
	Write                // bytes of a file
	Truncate             // the length of a file
	Link                 // another name for a file
	Rename               // a name becomes another, in place of what that meant
	Remove               // a name goes
	Sync                 // bytes of a file become durable
	SyncDir              // names in a folder become durable
)

func (k Kind) String() string {
	return [...]string{"create", "create unnamed", "mkdir", "write", "truncate", "link", "rename", "remove", "sync", "sync folder"}[k]
}

// Op is an operation.
type Op struct {
	Kind   Kind
	Node   uint64 // number of the file or folder that it is about
	Dir    uint64 // of the folder that Name is in
	Name   string
	ToDir  uint64 // of the folder that a rename's To is in
	To     string
	Offset int64 // of a write
	Data   []byte
	Size   int64 // of a truncation
}

func (o *Op) String() string {
	switch o.Kind {
	case Write:
		return fmt.Sprintf("write node %d, %d bytes at %d", o.Node, len(o.Data), o.Offset)
	case Truncate:
		return fmt.Sprintf("truncate node %d to %d", o.Node, o.Size)
	case Rename:
		return fmt.Sprintf("rename %s to %s", o.Name, o.To)
	}
	return fmt.Sprintf("%s %s (node %d)", o.Kind, o.Name, o.Node)
}

// Root is the number of the root folder.
const Root = 1

// Disk is what a file system holds: folders and files by number.
type Disk struct {
	folders map[uint64]map[string]uint64
	files   map[uint64][]byte
	modes   map[uint64]uint32
	mine    map[uint64]bool // files whose bytes no other Disk shares
}

// NewDisk returns an empty one.
func NewDisk() *Disk {
	return &Disk{
		folders: map[uint64]map[string]uint64{Root: {}},
		files:   map[uint64][]byte{}, modes: map[uint64]uint32{}, mine: map[uint64]bool{},
	}
}

// Clone returns a copy; both share the bytes of files until one changes them.
func (d *Disk) Clone() *Disk {
	c := &Disk{folders: map[uint64]map[string]uint64{}, files: maps.Clone(d.files), modes: maps.Clone(d.modes), mine: map[uint64]bool{}}
	for n, names := range d.folders {
		c.folders[n] = maps.Clone(names)
	}
	clear(d.mine)
	return c
}

// Apply does an operation. What it needs may be missing, where an operation
// before it was lost.
func (d *Disk) Apply(o *Op) {
	switch o.Kind {
	case Create, Link:
		d.name(o.Dir, o.Name, o.Node)
	case Mkdir:
		d.name(o.Dir, o.Name, o.Node)
		if d.folders[o.Node] == nil {
			d.folders[o.Node] = map[string]uint64{}
		}
	case Rename:
		if d.folders[o.Dir][o.Name] == o.Node {
			delete(d.folders[o.Dir], o.Name)
		}
		d.name(o.ToDir, o.To, o.Node)
	case Remove:
		delete(d.folders[o.Dir], o.Name)
	case Write:
		d.resize(o.Node, max(int64(len(d.files[o.Node])), o.Offset+int64(len(o.Data))))
		copy(d.files[o.Node][o.Offset:], o.Data)
	case Truncate:
		d.resize(o.Node, o.Size)
	}
}

func (d *Disk) name(dir uint64, name string, node uint64) {
	if d.folders[dir] == nil {
		d.folders[dir] = map[string]uint64{}
	}
	d.folders[dir][name] = node
}

// resize changes the length of a file and makes its bytes the disk's own.
func (d *Disk) resize(node uint64, size int64) {
	old := d.files[node]
	if d.mine[node] && size <= int64(cap(old)) {
		b := old[:size]
		if n := int64(len(old)); n < size {
			clear(b[n:])
		}
		d.files[node] = b
		return
	}
	b := make([]byte, size, size+size/4)
	copy(b, old)
	d.files[node], d.mine[node] = b, true
}

// Sum is a hash of all that can be reached by names.
func (d *Disk) Sum(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	d.walk(Root, "", func(path string, node uint64, folder bool) {
		fmt.Fprintf(&h, "%s %v %d\n", path, folder, len(d.files[node]))
		h.Write(d.files[node])
	})
	return h.Sum64()
}

func (d *Disk) walk(dir uint64, path string, fn func(path string, node uint64, folder bool)) {
	for _, name := range slices.Sorted(maps.Keys(d.folders[dir])) {
		node := d.folders[dir][name]
		_, folder := d.folders[node]
		fn(filepath.Join(path, name), node, folder)
		if folder {
			d.walk(node, filepath.Join(path, name), fn)
		}
	}
}

// Save writes the files below dir, which must be empty.
func (d *Disk) Save(dir string) (err error) {
	d.walk(Root, dir, func(path string, node uint64, folder bool) {
		switch {
		case err != nil:
		case folder:
			err = os.Mkdir(path, 0o755)
		default:
			err = os.WriteFile(path, d.files[node], 0o644)
		}
	})
	return err
}
