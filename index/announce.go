package index

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	bolt "go.etcd.io/bbolt"

	"gofs/blobstore"
)

// announcement is what the generation file says about a commit. Mounts read
// the first line. The rest is for the day on which the database is lost: it is
// what the packs do not say.
type announcement struct {
	generation uint64
	node       uint64                  // the next inode number
	pack       uint64                  // the next pack number
	versions   map[string]blobstore.ID // name -> version record
}

// maxAnnouncement bounds the generation file, in bytes: 5,000 versions.
const maxAnnouncement = 1 << 20

func announcementOf(tx *bolt.Tx) (*announcement, error) {
	a := &announcement{versions: map[string]blobstore.ID{}}
	for key, to := range map[string]*uint64{string(keyGeneration): &a.generation, string(keyNode): &a.node, string(keyPack): &a.pack} {
		var err error
		if *to, err = getNumber(tx, []byte(key)); err != nil {
			return nil, err
		}
	}
	list, err := readVersions(tx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		record, err := VersionRecord(&list[i])
		if err != nil {
			return nil, err
		}
		a.versions[list[i].Name] = blobstore.Sum(record)
	}
	return a, nil
}

// text is the content of the generation file.
func (a *announcement) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d\nnode %d\npack %d\n", a.generation, a.node, a.pack)
	for _, name := range slices.Sorted(maps.Keys(a.versions)) {
		fmt.Fprintf(&b, "version %s %s\n", name, a.versions[name])
	}
	return fmt.Sprintf("%ssum %08x\n", b.String(), crc32.Checksum([]byte(b.String()), castagnoli))
}

// parseAnnouncement reads what text wrote; ok is false for anything else, of
// which only the first line can be believed.
func parseAnnouncement(text string) (a *announcement, ok bool) {
	a = &announcement{versions: map[string]blobstore.ID{}}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var err error
		switch word {
		case "node":
			a.node, err = strconv.ParseUint(rest, 10, 64)
		case "pack":
			a.pack, err = strconv.ParseUint(rest, 10, 64)
		case "version":
			var id blobstore.ID
			name, hex, _ := strings.Cut(rest, " ")
			err = errors.Join(CheckName(name), id.UnmarshalText([]byte(hex)))
			a.versions[name] = id
		case "sum":
		default:
			a.generation, err = strconv.ParseUint(word, 10, 64)
		}
		if err != nil {
			return nil, false
		}
	}
	// One text has one meaning.
	return a, a.text() == text && a.node < MaxNode && a.pack < 1<<32
}

// readAnnouncement reads the generation file.
func (s *Store) readAnnouncement() (string, error) {
	f, err := blobstore.OpenFile(s.dir, generationFile, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAnnouncement+1))
	if err == nil && len(b) > maxAnnouncement {
		err = fmt.Errorf("%s is too long", s.GenerationFile())
	}
	return string(b), err
}

// Generation is the generation of the last commit that was announced. It
// costs one small read.
func (s *Store) Generation() (uint64, error) {
	b, err := readSmall(s.dir, generationFile)
	if err != nil {
		return 0, err
	}
	n, err := announcedGeneration(b)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.GenerationFile(), err)
	}
	return n, nil
}

// announcedGeneration is what the first line of an announcement says.
func announcedGeneration(text string) (uint64, error) {
	first, _, _ := strings.Cut(text, "\n")
	return strconv.ParseUint(first, 10, 64)
}

// announce tells of a commit. It is not synced: a mount that missed it because
// the machine crashed is gone too, and the next writer makes up for it.
func (s *Store) announce(a *announcement) error {
	if err := s.prepare(a); err != nil {
		return err
	}
	return s.publish()
}

// prepare takes the room that publish needs.
func (s *Store) prepare(a *announcement) error {
	return s.write(generationFile+newSuffix, []byte(a.text()), false)
}

// publish puts in place what was prepared.
func (s *Store) publish() error {
	return os.Rename(s.GenerationFile()+newSuffix, s.GenerationFile())
}
