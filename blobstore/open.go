package blobstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// errNotFile is what stands where a file of a store should.
var errNotFile = fmt.Errorf("not a regular file (links are not followed): %w", ErrDamaged)

// OpenFile opens a file of a store as os.OpenFile does: dir is the folder of
// the store, through whatever links the user named it, and name a path below
// it. In name no link is followed, so that nobody who could put one there
// decides which file is read, or written by root; and what is no regular file,
// such as a named pipe that would be waited for, is ErrDamaged.
func OpenFile(dir, name string, flags int, perm uint32) (*os.File, error) {
	fd, err := openBelow(dir, name, flags, perm)
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			err = errNotFile
		}
		if err == nil {
			return os.NewFile(uintptr(fd), filepath.Join(dir, name)), nil
		}
		unix.Close(fd)
	}
	return nil, &os.PathError{Op: "open", Path: filepath.Join(dir, name), Err: err}
}

func openBelow(dir, name string, flags int, perm uint32) (int, error) {
	at, base, err := openParent(dir, name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	fd, err := openat(at, base, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, perm)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		err = errNotFile
	}
	return fd, err
}

// openParent opens the folder that a file of a store lies in, for calls like
// unlinkat(2), and returns the file's name in it.
func openParent(dir, name string) (at int, base string, err error) {
	at, err = openat(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	for err == nil {
		first, rest, more := strings.Cut(name, "/")
		if !more {
			return at, name, nil
		}
		var next int
		next, err = openat(at, first, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		unix.Close(at)
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			err = errNotFile
		}
		at, name = next, rest
	}
	return -1, "", err
}

// Remove removes a file of a store, which is named as for OpenFile.
func Remove(dir, name string) error {
	at, base, err := openParent(dir, name)
	if err == nil {
		err = unix.Unlinkat(at, base, 0)
		unix.Close(at)
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: filepath.Join(dir, name), Err: err}
	}
	return nil
}

// openFolder opens a folder of a store, which is no link.
func openFolder(dir string, flags int) (int, error) {
	at, base, err := openParent(filepath.Dir(dir), filepath.Base(dir))
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	fd, err := openat(at, base, flags|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		err = errNotFile
	}
	return fd, err
}

// openat is openat(2), begun anew where a signal interrupts it.
func openat(at int, name string, flags int, perm uint32) (fd int, err error) {
	for {
		fd, err = unix.Openat(at, name, flags|unix.O_CLOEXEC, perm)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openPackAt opens a pack for reading. The folder of the packs must not be a
// link either.
func openPackAt(dir, name string) (*os.File, error) {
	return OpenFile(filepath.Dir(dir), filepath.Join(filepath.Base(dir), name+Suffix), os.O_RDONLY, 0)
}
