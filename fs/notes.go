package fs

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gofs/blobstore"
)

// A mount notes which files are read, so that warm knows after a start what
// to load, and which releases somebody looked into, whose trees the next mount
// reads by itself. Noting costs a load, and the first time a store, of a field
// of the inode. A file is noted by the first eight bytes of its first blob's ID,
// and a release by those of its tree's, so that notes hold for every store and
// whatever inode numbers it gives; two files with the same beginning are one to
// them.
//
// What prefetch pushes is noted too: the kernel does not say whether it was
// read, and later mounts would push it again.
//
// Format of the file, little-endian:
//
//	8 bytes  "gofsread"
//	4        version, 1
//	4        number of notes n
//	n times  8 bytes key, rising; 4 bytes day of the last use since 1970
//	4        CRC-32C of all before it
//
// It only helps to be quick, so a file that is damaged counts for nothing.

const (
	notesMagic   = "gofsread"
	notesVersion = 1
	notesHead    = 16
	noteSize     = 12
	// maxNotes bounds the file, 3 MiB. A release has 10,000 files, of which a
	// build reads a third.
	maxNotes = 1 << 18
	// notesKept is how many days a file stays in the working set that is not
	// read any more.
	notesKept = 90
	// notesEvery is how often notes are written while mounted.
	notesEvery = 5 * time.Minute
)

var errNotes = errors.New("notes of what was read are damaged")

// notes are the days of the last use by key.
type notes map[uint64]uint32

// Bits of inode.flags.
const (
	flagRead  = 1 << iota // has been read or pushed
	flagQuiet             // is being loaded for its own sake and not to be noted
)

// note notes that an inode is read.
func (n *inode) note() {
	if n.flags.Load() == 0 {
		n.flags.CompareAndSwap(0, flagRead)
	}
}

func noteKey(n *inode) uint64 { return idKey(n.refs[0].ID) }

// treeKey is the key of a note that says that somebody looked into a release.
func treeKey(r *release) uint64 { return idKey(r.version.Tree) }

func idKey(id blobstore.ID) uint64 { return binary.LittleEndian.Uint64(id[:8]) }

func today() uint32 { return uint32(time.Now().Unix() / (24 * 3600)) }

// read returns the notes in a file; none where there is no file.
func readNotes(name string) (notes, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return notes{}, nil
	}
	if err != nil {
		return notes{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > notesHead+maxNotes*noteSize+4 {
		return notes{}, fmt.Errorf("%s: %w", name, errors.Join(err, errNotes))
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return notes{}, fmt.Errorf("%s: %w", name, err)
	}
	n, err := decodeNotes(b)
	if err != nil {
		return notes{}, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

func decodeNotes(b []byte) (notes, error) {
	if len(b) < notesHead+4 || string(b[:8]) != notesMagic || binary.LittleEndian.Uint32(b[8:]) != notesVersion {
		return nil, errNotes
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	count := int(binary.LittleEndian.Uint32(b[12:]))
	if crc32.Checksum(body, castagnoli) != sum || count > maxNotes || len(body) != notesHead+count*noteSize {
		return nil, errNotes
	}
	n := make(notes, count)
	for e := body[notesHead:]; len(e) > 0; e = e[noteSize:] {
		n[binary.LittleEndian.Uint64(e)] = binary.LittleEndian.Uint32(e[8:])
	}
	return n, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (n notes) encode() []byte {
	keys := make([]uint64, 0, len(n))
	for k := range n {
		keys = append(keys, k)
	}
	if len(keys) > maxNotes { // the latest
		slices.SortFunc(keys, func(a, b uint64) int { return cmp.Compare(n[b], n[a]) })
		keys = keys[:maxNotes]
	}
	slices.Sort(keys)
	b := append(make([]byte, 0, notesHead+len(keys)*noteSize+4), notesMagic...)
	b = binary.LittleEndian.AppendUint32(b, notesVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(keys)))
	for _, k := range keys {
		b = binary.LittleEndian.AppendUint64(b, k)
		b = binary.LittleEndian.AppendUint32(b, n[k])
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readNow adds what has been read from this mount.
func (s *Server) readNow(n notes) {
	day := today()
	for _, r := range s.now.Load().releases {
		g := r.tree.Load()
		if g == nil {
			continue
		}
		if r.used.Load() {
			n[treeKey(r)] = day
		}
		for _, i := range g.inodes {
			if i != nil && i.flags.Load()&flagRead != 0 && len(i.refs) > 0 {
				n[noteKey(i)] = day
			}
		}
	}
}

// saveNotes adds what was read to the file of notes. Other mounts of the
// store may have written to it meanwhile, so it is read anew.
func (s *Server) saveNotes() error {
	if s.notes == "" {
		return nil
	}
	fresh := notes{}
	if s.readNow(fresh); len(fresh) == 0 {
		return nil
	}
	dir := filepath.Dir(s.notes)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(s.notes+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	all, err := readNotes(s.notes)
	if err != nil {
		s.log.Warn("written anew", "err", err)
	}
	oldest := today() - notesKept
	for k, day := range all {
		if fresh[k] == 0 && day >= oldest {
			fresh[k] = day
		}
	}
	f, err := os.CreateTemp(dir, filepath.Base(s.notes)+".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(fresh.encode())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.notes)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// keepNotes saves and logs a failure, which costs nothing but a warm-up.
func (s *Server) keepNotes() {
	if err := s.saveNotes(); err != nil {
		s.log.Warn("what was read could not be noted", "err", err)
	}
}

// workingSet is what was read from this mount and, as far as is noted, from
// those before it.
func (s *Server) workingSet() notes {
	n := notes{}
	if s.notes != "" {
		var err error
		if n, err = readNotes(s.notes); err != nil {
			s.log.Warn("what was read before is not known", "err", err)
		}
	}
	s.readNow(n)
	return n
}
