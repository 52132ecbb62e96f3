package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"gofs/blobstore"
)

// Format is the number of the store's format that this package reads and
// writes.
const Format = 1

var (
	// ErrNoStore is returned where a folder holds no store.
	ErrNoStore = errors.New("no store")
	// ErrNewer is returned for a store of a newer format than Format.
	ErrNewer = errors.New("made by a newer gofs")
	// ErrIndex is returned where the database cannot be read.
	ErrIndex = errors.New("the index is damaged (gofs repair --index makes it anew from the packs)")
	// ErrLocked is returned where another process writes to the store and the
	// caller does not want to wait.
	ErrLocked = errors.New("another process is writing to the store")
)

const (
	formatFile     = "format"
	databaseFile   = "index.db"
	generationFile = "generation"
	lockFile       = "lock"
	packFolder     = "packs"
	formatText     = "gofs store "
	newSuffix      = ".new" // of a file that will be renamed into place
)

var (
	bucketMeta     = []byte("meta")
	bucketPacks    = []byte("packs")
	bucketBlobs    = []byte("blobs")
	bucketFiles    = []byte("files")
	bucketVersions = []byte("versions")
	bucketNodes    = []byte("nodes")
	buckets        = [][]byte{bucketMeta, bucketPacks, bucketBlobs, bucketFiles, bucketVersions, bucketNodes}

	keyFormat     = []byte("format")
	keyGeneration = []byte("generation")
	keyNode       = []byte("node")
	keyPack       = []byte("pack")
)

// firstNode leaves the numbers below it to the mount's own inodes.
const firstNode = 1 << 10

// Store is a store's folder. It holds nothing open.
type Store struct{ dir string }

// Open returns the store in dir, which must be there.
func Open(dir string) (*Store, error) {
	b, err := readSmall(dir, formatFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", dir, ErrNoStore)
	case err != nil:
		return nil, fmt.Errorf("open store: %w", err)
	}
	number, ok := strings.CutPrefix(strings.TrimSpace(b), formatText)
	n, err := strconv.Atoi(number)
	switch {
	case !ok || err != nil || n < 1:
		return nil, fmt.Errorf("%s: its format file says %.40q: %w", dir, b, ErrNoStore)
	case n > Format:
		return nil, fmt.Errorf("store %s has format %d, this gofs knows up to %d: %w", dir, n, Format, ErrNewer)
	}
	return &Store{dir}, nil
}

// Create returns the store in dir and makes it where there is none. A folder
// that has other things in it is refused.
func Create(ctx context.Context, dir string) (*Store, error) {
	s, err := Open(dir)
	if err == nil || !errors.Is(err, ErrNoStore) {
		return s, err
	}
	if err := checkPlace(dir); err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	// Others may read root's store; a user's is the user's own.
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755
	}
	s = &Store{dir}
	if err := makeFolder(s.PackDir(), mode); err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	l, err := s.flock(ctx, LockOptions{Verb: "create"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if s, err := Open(dir); err == nil { // another process was quicker
		return s, nil
	}
	if err := s.initialize(); err != nil {
		return nil, fmt.Errorf("create store %s: %w", dir, err)
	}
	return s, nil
}

// checkPlace refuses a folder with foreign content.
func checkPlace(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch strings.TrimSuffix(e.Name(), newSuffix) {
		case formatFile, databaseFile, generationFile, lockFile, packFolder, "lost+found":
		default:
			return fmt.Errorf("%s has other files in it (%s)", dir, e.Name())
		}
	}
	return nil
}

// makeFolder makes a folder and those it is in, all of them durable.
func makeFolder(dir string, mode fs.FileMode) error {
	parent := filepath.Dir(dir)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeFolder(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Of an earlier attempt, too, the name may not be durable. Where others
	// made it, the folder that it is in may be theirs.
	if err := blobstore.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func (s *Store) initialize() error {
	if err := s.createDatabase(); err != nil {
		return err
	}
	if err := s.reannounce(); err != nil {
		return err
	}
	// The format file comes last: what has none is no store yet. So the names
	// of all others must be durable before it.
	if err := blobstore.SyncDir(s.dir); err != nil {
		return err
	}
	name := filepath.Join(s.dir, formatFile)
	if err := s.write(formatFile+newSuffix, fmt.Appendf(nil, "%s%d\n", formatText, Format), true); err != nil {
		return err
	}
	if err := os.Rename(name+newSuffix, name); err != nil {
		return err
	}
	return blobstore.SyncDir(s.dir)
}

// reannounce announces the commit that the database has.
func (s *Store) reannounce() error {
	var a *announcement
	err := s.view(func(tx *bolt.Tx) (err error) {
		if err = checkFormat(tx); err == nil {
			a, err = announcementOf(tx)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.announce(a)
}

// createDatabase makes the database unless it is there.
func (s *Store) createDatabase() error {
	path := filepath.Join(s.dir, databaseFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.newDatabase(&announcement{generation: 1, node: firstNode, pack: 1}, func(*bolt.Tx) error { return nil })
}

// newDatabase puts a new database in place of the one there is, if any. It
// begins with the numbers of a, and fill has the rest of it.
func (s *Store) newDatabase(a *announcement, fill func(tx *bolt.Tx) error) error {
	path := filepath.Join(s.dir, databaseFile)
	if err := os.Remove(path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(path+newSuffix, 0o644, &bolt.Options{OpenFile: openInStore})
	if err != nil {
		return err
	}
	db.AllocSize = 1 << 20
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		m := tx.Bucket(bucketMeta)
		err := errors.Join(m.Put(keyFormat, encodeNumber(Format)), m.Put(keyGeneration, encodeNumber(a.generation)),
			m.Put(keyNode, encodeNumber(a.node)), m.Put(keyPack, encodeNumber(a.pack)))
		if err == nil {
			err = fill(tx)
		}
		return errors.Join(err, putSums(tx))
	})
	if err = errors.Join(err, db.Close()); err == nil {
		err = os.Rename(path+newSuffix, path)
	}
	if err != nil {
		os.Remove(path + newSuffix)
		return err
	}
	return blobstore.SyncDir(s.dir)
}

// Dir is the store's folder.
func (s *Store) Dir() string { return s.dir }

// PackDir is the folder of the store's packs.
func (s *Store) PackDir() string { return filepath.Join(s.dir, packFolder) }

// Size adds up the store's files, in bytes.
func (s *Store) Size() (int64, error) { return folderSize(s.dir) }

// GenerationFile is the file that changes with every commit.
func (s *Store) GenerationFile() string { return filepath.Join(s.dir, generationFile) }

// readSmall reads a file of a store that must be small.
func readSmall(dir, name string) (string, error) {
	f, err := blobstore.OpenFile(dir, name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b [64]byte
	n, err := f.Read(b[:])
	if n == 0 && err != nil {
		return "", fmt.Errorf("%s is empty", f.Name())
	}
	return string(b[:n]), nil
}

// write writes a file of the store.
func (s *Store) write(name string, b []byte, synced bool) error {
	f, err := blobstore.OpenFile(s.dir, name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil && synced {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// openInStore is how bbolt opens a file in the folder of a store.
func openInStore(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return blobstore.OpenFile(filepath.Dir(name), filepath.Base(name), flag, uint32(perm))
}

// busyTimeout bounds the wait for the database, which others hold for
// milliseconds.
const busyTimeout = 30 * time.Second

func (s *Store) view(fn func(tx *bolt.Tx) error) error {
	return s.withDB(true, func(db *bolt.DB) error { return db.View(fn) })
}

func (s *Store) update(fn func(tx *bolt.Tx) error) error {
	return s.withDB(false, func(db *bolt.DB) error {
		// The file grows by what is needed, not by bbolt's 16 MiB.
		db.AllocSize = 1 << 20
		return db.Update(fn)
	})
}

// withDB runs fn on the open database, whose pages have been checked. Should
// bbolt panic all the same or, past the end of a file that is cut meanwhile,
// fault, that becomes ErrIndex too.
func (s *Store) withDB(readOnly bool, fn func(*bolt.DB) error) (err error) {
	if !readOnly {
		// Opened to be written to, bbolt reads its free list before anybody
		// can check it. Nobody writes between the two: that takes the lock
		// that this process has.
		if err := s.withDB(true, func(*bolt.DB) error { return nil }); err != nil {
			return err
		}
	}
	path := filepath.Join(s.dir, databaseFile)
	var file *os.File // that bbolt opened last
	o := &bolt.Options{ReadOnly: readOnly, Timeout: busyTimeout, OpenFile: func(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
		file, err = openDatabase(name, flag, perm)
		return file, err
	}}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %v: %w", path, r, ErrIndex)
			if file != nil {
				// Where bbolt panicked while it opened the file, nobody else
				// lets go of it, and its mapping would keep the lock.
				_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
				file.Close()
			}
		}
	}()
	db, err := openCurrent(path, o)
	if err != nil {
		return openError(path, err)
	}
	defer func() {
		if cerr := db.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close index: %w", cerr)
		}
	}()
	if readOnly {
		st, err := file.Stat()
		if err != nil {
			return fmt.Errorf("open index: %w", err)
		}
		if err := db.View(func(tx *bolt.Tx) error { return checkPages(tx, file, st.Size()) }); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return fn(db)
}

// errEmpty is that of a database that bbolt would take for a new one.
var errEmpty = errors.New("file is empty")

// openDatabase opens a database that must be there.
func openDatabase(name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := openInStore(name, flag&^os.O_CREATE, perm)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() == 0 {
		err = errEmpty
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openError tells a damaged database from one that cannot be got at now.
func openError(path string, err error) error {
	var errno unix.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s is held by another process for more than %v", path, busyTimeout)
	case errors.As(err, &errno) && errno != unix.ENOENT:
		return fmt.Errorf("open index: %w", err)
	}
	return fmt.Errorf("%s: %w: %w", path, err, ErrIndex)
}

// openCurrent opens the database at path. compactDatabase may put another file
// there while this one waits for its lock; then the wait begins anew.
func openCurrent(path string, o *bolt.Options) (*bolt.DB, error) {
	for try := 0; ; try++ {
		before, _ := os.Stat(path)
		db, err := bolt.Open(path, 0o644, o)
		if err != nil {
			return nil, err
		}
		after, err := os.Stat(path)
		if err != nil {
			db.Close()
			return nil, err
		}
		if before == nil || os.SameFile(before, after) || try == 10 {
			return db, nil
		}
		db.Close()
	}
}

// LockOptions say how to wait for the right to write.
type LockOptions struct {
	Verb    string              // what the lock is for; others are told
	NoWait  bool                // fail with ErrLocked instead of waiting
	Waiting func(holder string) // called once when there is a wait
}

// flock takes the lock file; closing it lets go.
func (s *Store) flock(ctx context.Context, o LockOptions) (*os.File, error) {
	f, err := blobstore.OpenFile(s.dir, lockFile, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	told := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock store: %w", err)
		}
		holder, _ := readSmall(s.dir, lockFile)
		if holder = strings.TrimSpace(holder); holder == "" {
			holder = "another process"
		}
		if o.NoWait {
			f.Close()
			return nil, fmt.Errorf("%s: %w (%s)", s.dir, ErrLocked, holder)
		}
		if !told && o.Waiting != nil {
			o.Waiting(holder)
			told = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	// Only for the message that others print.
	text := fmt.Sprintf("gofs %s, process %d", o.Verb, os.Getpid())
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(text+"\n"), 0)
	}
	return f, nil
}
