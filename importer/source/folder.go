package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

// folder is an unpacked GOROOT. All of it is read through an os.Root, so
// nothing that changes below can lead out of it.
type folder struct {
	name
	o    Options
	root *os.Root
	n    atomic.Int64
}

var _ Source = (*folder)(nil)

func openFolder(dir string, n name, o Options) (Source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.label, bare(err))
	}
	for _, name := range []string{"VERSION", "bin/go", "bin/go.exe"} {
		if fi, err := root.Stat(name); err == nil && fi.Mode().IsRegular() {
			return &folder{name: n, o: o, root: root}, nil
		}
	}
	defer root.Close()
	if _, err := root.Stat("go/VERSION"); err == nil {
		return nil, fail(n.label, ErrNotRelease, "the folder has neither VERSION nor bin/go (is %s meant?)", path.Join(n.label, "go"))
	}
	return nil, fail(n.label, ErrNotRelease, "the folder has neither VERSION nor bin/go")
}

func (d *folder) Size() int64      { return -1 }
func (d *folder) Read() int64      { return d.n.Load() }
func (d *folder) Sequential() bool { return false }
func (d *folder) Close() error     { return d.root.Close() }

func (d *folder) Walk(ctx context.Context, yield func(Entry, Opener) error) error {
	t := newTree(d.label, d.o)
	if err := d.walk(ctx, ".", t, yield); err != nil {
		return err
	}
	return t.finish()
}

// walk yields what is below dir, sorted by name, each folder before what it
// holds.
func (d *folder) walk(ctx context.Context, dir string, t *tree, yield func(Entry, Opener) error) error {
	names, err := d.list(dir, d.o.MaxEntries)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", d.label, err)
		}
		p := path.Join(dir, name)
		fi, err := d.root.Lstat(p)
		if err != nil {
			return d.fix(p)(err)
		}
		e, err := d.entry(p, fi)
		if err != nil {
			return err
		}
		if err := t.add(e); err != nil {
			return err
		}
		var open Opener
		if e.Kind == File {
			open = func() (io.ReadCloser, error) { return d.open(p, fi) }
		}
		if err := yield(e, open); err != nil {
			return err
		}
		if e.Kind == Dir {
			if err := d.walk(ctx, p, t, yield); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *folder) list(dir string, most int) ([]string, error) {
	f, err := d.root.Open(dir)
	if err != nil {
		return nil, d.fix(dir)(err)
	}
	defer f.Close()
	var names []string
	for {
		some, err := f.Readdirnames(4096)
		names = append(names, some...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, d.fix(dir)(err)
		}
		if len(names) > most {
			return nil, fail(d.label, ErrTooLarge, "more than %d names", most)
		}
	}
	slices.SortFunc(names, strings.Compare)
	return names, nil
}

func (d *folder) entry(p string, fi fs.FileInfo) (Entry, error) {
	e := Entry{Path: p, Mode: uint32(fi.Mode().Perm()), ModTime: fi.ModTime()}
	switch fi.Mode().Type() {
	case 0:
		e.Size = fi.Size()
	case fs.ModeDir:
		e.Kind = Dir
	case fs.ModeSymlink:
		e.Kind = Symlink
		target, err := d.root.Readlink(p)
		if err != nil {
			return e, d.fix(p)(err)
		}
		e.Target = target
	default:
		return e, fail(d.label, ErrUnsafe, "%s is neither file, folder nor symbolic link", short(p))
	}
	return e, nil
}

// folderFile is a file of which exactly the bytes seen by Walk are read.
type folderFile struct {
	exactReader
	f *os.File
}

func (f *folderFile) Close() error { return f.f.Close() }

func (d *folder) open(p string, seen fs.FileInfo) (io.ReadCloser, error) {
	// O_NONBLOCK: should a named pipe have taken the file's place, the open
	// must not wait for a writer.
	f, err := d.root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, d.fix(p)(err)
	}
	same := func() error {
		now, err := f.Stat()
		if err != nil {
			return err
		}
		if !os.SameFile(now, seen) || now.Size() != seen.Size() || !now.ModTime().Equal(seen.ModTime()) {
			return ErrChanged
		}
		return nil
	}
	if err := same(); err != nil {
		f.Close()
		return nil, d.fix(p)(err)
	}
	return &folderFile{exactReader{
		r: readerFunc(func(b []byte) (int, error) {
			n, err := f.Read(b)
			d.n.Add(int64(n))
			return n, err
		}),
		left:  seen.Size(),
		check: same,
		fix:   d.fix(p),
	}, f}, nil
}

// fix names the folder and the file in an error.
func (d *folder) fix(p string) func(error) error {
	return func(err error) error {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errLonger) || errors.Is(err, ErrChanged) ||
			errors.Is(err, fs.ErrNotExist) {
			return fail(d.label, ErrChanged, "%s", short(p))
		}
		return fmt.Errorf("%s: %s: %w", d.label, p, bare(err))
	}
}
