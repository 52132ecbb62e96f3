package provenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb"
	"golang.org/x/sys/unix"
)

const (
	cacheFolder = "sumdb"
	cacheLock   = "lock"
	newSuffix   = ".new" // of a file that will be renamed into place
	maxCached   = 1 << 20
)

// cache keeps in the store what a database has proved: records, tiles, and
// the newest tree head, against which every later one is checked. A file is
// whole or not there. Nothing is opened through a link that leads out of the
// store.
type cache struct{ store string }

// path is where a file lies, for messages.
func (c *cache) path(file string) string { return filepath.Join(c.store, cacheFolder, file) }

func (c *cache) read(file string) ([]byte, error) {
	root, err := os.OpenRoot(c.store)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readFile(root, path.Join(cacheFolder, file))
}

func readFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCached+1))
	if err == nil && len(b) > maxCached {
		err = fmt.Errorf("%s is longer than %d MiB", name, maxCached>>20)
	}
	return b, err
}

// write puts a file in place.
func (c *cache) write(ctx context.Context, file string, data []byte) error {
	return c.locked(ctx, func(root *os.Root) error { return put(root, file, data, false) })
}

// replace puts a file in place of one that must be as old says; else it fails
// with sumdb.ErrWriteConflict. It lasts: what was signed is not forgotten in a
// crash.
func (c *cache) replace(ctx context.Context, file string, old, data []byte) error {
	return c.locked(ctx, func(root *os.Root) error {
		now, err := readFile(root, path.Join(cacheFolder, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !bytes.Equal(now, old) {
			return sumdb.ErrWriteConflict
		}
		return put(root, file, data, true)
	})
}

// put writes beside the file and renames. Under the lock there is one writer.
func put(root *os.Root, file string, data []byte, durable bool) error {
	name := path.Join(cacheFolder, file)
	if err := root.MkdirAll(path.Dir(name), folderMode(root)); err != nil {
		return err
	}
	f, err := root.OpenFile(name+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if durable && err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(name+newSuffix, name)
	}
	if err != nil {
		_ = root.Remove(name + newSuffix) // best effort; the next writer takes the name again
	}
	return err
}

// folderMode is that of the store's own folder, without what lets others write.
func folderMode(root *os.Root) fs.FileMode {
	fi, err := root.Stat(".")
	if err != nil {
		return 0o700
	}
	return fi.Mode().Perm()&0o755 | 0o700
}

// locked runs fn while no other process and no other goroutine writes to the
// cache.
func (c *cache) locked(ctx context.Context, fn func(*os.Root) error) error {
	root, err := os.OpenRoot(c.store)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(cacheFolder, folderMode(root)); err != nil {
		return err
	}
	f, err := root.OpenFile(path.Join(cacheFolder, cacheLock), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return fn(root)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
