package fs

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hotFolder is the folder of a hot layer. All names are looked up from its
// descriptor and no link is followed.
type hotFolder struct {
	place  string // for messages
	dir    *os.File
	lock   *os.File // nil where nobody else can find the folder
	remove func(hotKey)
	wipe   string // to be removed at the end
}

const (
	hotLock = "lock"
	hotTemp = "new-" // begins the names of files under way
	shmName = "gofs-hot-"
)

// openHotFolder opens a folder on disk, or one in memory where dir is "".
func openHotFolder(dir string, size int64) (*hotFolder, error) {
	if dir != "" {
		return openHotDisk(dir)
	}
	f, err := openHotTmpfs(size)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		f, err = openHotShm("/dev/shm")
	}
	if err != nil {
		return nil, fmt.Errorf("%w on tmpfs: %w", ErrHot, err)
	}
	return f, nil
}

// openHotTmpfs makes a tmpfs that is attached nowhere: only this process has
// it, and it goes with the process however that ends.
func openHotTmpfs(size int64) (*hotFolder, error) {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for _, o := range [][2]string{{"size", strconv.FormatInt(size, 10)}, {"mode", "0700"}, {"source", "gofs"}} {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return nil, fmt.Errorf("%s=%s: %w", o[0], o[1], err)
		}
	}
	// With large folios, which ext4 has too, 10 GB/s are read through passthrough
	// out of the page cache, and 4 without. A kernel that has no huge pages does not
	// know the option.
	_ = unix.FsconfigSetString(fd, "huge", "within_size")
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, err
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mnt)
	// The mount itself is an O_PATH descriptor, which does not list.
	d, err := unix.Openat(mnt, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return newHotFolder("tmpfs", os.NewFile(uintptr(d), "tmpfs")), nil
}

// openHotShm makes a folder on the machine's own tmpfs, for those who may not
// mount. Folders that a killed mount left there are removed.
func openHotShm(shm string) (*hotFolder, error) {
	left, _ := filepath.Glob(filepath.Join(shm, fmt.Sprintf("%s%d-*", shmName, os.Geteuid())))
	for _, dir := range left {
		if f, err := openHotDisk(dir); err == nil { // nobody has it locked
			f.wipe = dir
			f.close()
		}
	}
	dir, err := os.MkdirTemp(shm, fmt.Sprintf("%s%d-", shmName, os.Geteuid()))
	if err != nil {
		return nil, err
	}
	f, err := openHotDisk(dir)
	if err != nil {
		return nil, err
	}
	f.place, f.wipe = "tmpfs ("+dir+")", dir
	return f, nil
}

// openHotDisk opens a folder that outlives the mount and locks it.
func openHotDisk(dir string) (_ *hotFolder, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w %s: %w", ErrHot, dir, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	f := newHotFolder(dir, d)
	if err := f.prepare(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func newHotFolder(place string, dir *os.File) *hotFolder {
	f := &hotFolder{place: place, dir: dir}
	f.remove = func(k hotKey) { _ = unix.Unlinkat(f.fd(), k.String(), 0) } // what is gone is gone
	return f
}

func (f *hotFolder) fd() int { return int(f.dir.Fd()) }

// prepare refuses a folder that others can change, that has other things in
// it, or that another mount uses.
func (f *hotFolder) prepare() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd(), &st); err != nil {
		return err
	}
	switch {
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d", st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("others may write to it (chmod 700 mends that)")
	}
	names, err := f.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := parseHotKey(name); !ok && name != hotLock && name != "lost+found" && !strings.HasPrefix(name, hotTemp) {
			return fmt.Errorf("it has other files in it (%s)", name)
		}
	}
	fd, err := unix.Openat(f.fd(), hotLock, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f.lock = os.NewFile(uintptr(fd), hotLock)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.wipe = ""
		return ErrHotInUse
	}
	return err
}

func (f *hotFolder) names() ([]string, error) {
	if _, err := f.dir.Seek(0, 0); err != nil {
		return nil, err
	}
	return f.dir.Readdirnames(-1)
}

func parseHotKey(name string) (k hotKey, ok bool) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(k) || name != strings.ToLower(name) {
		return k, false
	}
	return hotKey(b), true
}

type foundHot struct {
	key  hotKey
	size int64
	time int64
}

// list returns the files that are there, the least recently used first, and
// removes those that were under way.
func (f *hotFolder) list() ([]foundHot, error) {
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	var found []foundHot
	for _, name := range names {
		if strings.HasPrefix(name, hotTemp) {
			_ = unix.Unlinkat(f.fd(), name, 0) // a failure shows in what follows
			continue
		}
		key, ok := parseHotKey(name)
		if !ok {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(f.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil, fmt.Errorf("%s is no file", name)
		}
		found = append(found, foundHot{key, st.Size, st.Mtim.Nano()})
	}
	slices.SortFunc(found, func(a, b foundHot) int { return cmp.Compare(a.time, b.time) })
	return found, nil
}

// try makes a file and removes it.
func (f *hotFolder) try() error {
	name := tempName()
	file, err := f.openat(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, blockSize))
	return errors.Join(err, file.Close(), unix.Unlinkat(f.fd(), name, 0))
}

func tempName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hotTemp + hex.EncodeToString(b[:])
}

func (f *hotFolder) openat(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(f.fd(), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (f *hotFolder) open(k hotKey) (*os.File, error) { return f.openat(k.String(), unix.O_RDONLY) }

// create makes a file under another name, gives it its own once it is whole,
// and returns it open for reading. It is not synced: a crash can leave a torn
// file, and the next mount checks before it uses one.
func (f *hotFolder) create(k hotKey, write func(*os.File) error) (_ *os.File, err error) {
	name := tempName()
	w, err := f.openat(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	err = write(w)
	if closed := w.Close(); err == nil {
		err = closed
	}
	// Opened before it has its name: a file there that nobody has would take
	// room that nobody counts.
	var r *os.File
	if err == nil {
		r, err = f.openat(name, unix.O_RDONLY)
	}
	if err == nil {
		if err = unix.Renameat(f.fd(), name, f.fd(), k.String()); err == nil {
			return r, nil
		}
		r.Close()
	}
	_ = unix.Unlinkat(f.fd(), name, 0) // the error is what counts
	return nil, err
}

// touch sets a file's time of use.
func (f *hotFolder) touch(k hotKey) error {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	return unix.UtimesNanoAt(f.fd(), k.String(), []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
}

func (f *hotFolder) close() {
	if f.wipe != "" {
		_ = os.RemoveAll(f.wipe)
	}
	f.dir.Close()
	if f.lock != nil {
		f.lock.Close()
	}
}
