package hostile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"gofs/blobstore"
	"gofs/index"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encodings and kinds of records, as package blobstore numbers them.
const (
	raw, zstandard, dictionary, program, programDelta, delta = 0, 1, 2, 3, 4, 5
	data, tree, version                                      = 0, 1, 2
)

// part is a blob of a record.
type part struct {
	id     blobstore.ID
	length uint32
}

func partOf(b []byte) part { return part{blobstore.Sum(b), uint32(len(b))} }

// record is a record of a pack. What is zero of its lengths is made right.
type record struct {
	encoding, kind, depth, effort byte
	plain                         uint32
	parts                         []part
	bases                         []blobstore.ID
	inner                         uint32
	stored                        []byte
	edit                          func(head []byte) // of what comes before the checksums
	badSum                        bool              // of the stored bytes
}

// rawOf is a sound record of blobs.
func rawOf(blobs ...[]byte) record {
	r := record{stored: bytes.Join(blobs, nil)}
	for _, b := range blobs {
		r.parts = append(r.parts, partOf(b))
	}
	return r
}

// head encodes the header and the tables.
func (r *record) head() []byte {
	plain := r.plain
	if plain == 0 {
		for _, p := range r.parts {
			plain += p.length
		}
	}
	b := []byte("GOFR")
	b = append(b, r.encoding, r.kind, r.depth, r.effort)
	for _, n := range []uint32{plain, uint32(len(r.stored)), uint32(len(r.parts)), uint32(len(r.bases)), crc32.Checksum(r.stored, castagnoli), 0} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	if r.badSum {
		b[24]++
	}
	for _, p := range r.parts {
		b = append(b, p.id[:]...)
		b = binary.LittleEndian.AppendUint32(b, p.length)
	}
	for _, id := range r.bases {
		b = append(b, id[:]...)
	}
	if r.encoding == program || r.encoding == programDelta {
		b = binary.LittleEndian.AppendUint32(b, r.inner)
	}
	if r.edit != nil {
		r.edit(b)
	}
	sum := crc32.Update(crc32.Checksum(b[:28], castagnoli), castagnoli, b[32:])
	binary.LittleEndian.PutUint32(b[28:], sum)
	return b
}

// packOf is a pack and its name.
func packOf(records []record, place func(r record, at int64)) (name string, b []byte) {
	b = append([]byte("gofspack"), 1, 0, 0, 0, 0, 0, 0, 0)
	var heads []byte
	for _, r := range records {
		place(r, int64(len(b)))
		head := r.head()
		heads = append(heads, head...)
		b = append(append(b, head...), r.stored...)
	}
	b = append(b, "gofsend."...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(records)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(b)+8))
	return blobstore.Sum(heads).String(), b
}

// victim is the file that the lies are about.
var victim = []byte(strings.Repeat("package victim // what is read\n", 40))

// maker makes a store with one version. The zero value makes a sound one.
type maker struct {
	records []record // of which one holds the victim
	victim  part     // by default the first part of the last record
	more    []part   // of other files
	tree    []byte   // instead of the tree that has the victim
	version func(*index.Version)
	text    []byte // of the version in the index, instead of its JSON
	nodes   []byte // of the version, instead of right ones
	place   func(blobs map[blobstore.ID]*blobstore.Location)
	index   func(tx *bolt.Tx)             // before its sums are made
	summed  func(tx *bolt.Tx)             // after that
	bytes   func(db []byte) []byte        // of the database
	pack    func(pack []byte) []byte      // bytes of the pack
	files   func(files map[string][]byte) // all
	holes   map[string]int64              // lengths of sparse files
}

func seal(b []byte) []byte { return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)) }

func number(n uint64) []byte { return seal(binary.BigEndian.AppendUint64(nil, n)) }

var buckets = []string{"meta", "packs", "blobs", "files", "versions", "nodes"}

const (
	name       = "1.22.8"
	rootNode   = 1 << 10
	generation = 2
)

// store is a zip of the store.
func (m maker) store() []byte {
	small := [][]byte{[]byte("go1.22.8\ntime 2024-10-01T16:22:24Z\n"), []byte("the go command\n"), []byte("the compiler\n")}
	if m.records == nil {
		m.records = []record{rawOf(victim)}
	}
	if m.victim == (part{}) {
		m.victim = m.records[len(m.records)-1].parts[0]
	}
	if m.tree == nil {
		items := []index.Item{{Path: "src/victim.go", Mode: 0o644, Size: int64(m.victim.length), Blobs: []index.Ref{{ID: m.victim.id, Length: m.victim.length}}}}
		for i, path := range []string{"VERSION", "bin/go", "pkg/tool/linux_amd64/compile"} {
			p := partOf(small[i])
			items = append(items, index.Item{Path: path, Mode: 0o755, Size: int64(p.length), Blobs: []index.Ref{{ID: p.id, Length: p.length}}})
		}
		for i, p := range m.more {
			items = append(items, index.Item{Path: fmt.Sprintf("src/more%d", i), Mode: 0o644, Size: int64(p.length), Blobs: []index.Ref{{ID: p.id, Length: p.length}}})
		}
		m.tree = value(index.EncodeTree(items))
	}
	v := index.Version{
		Name: name, Release: name, Platform: "linux-amd64", Tree: blobstore.Sum(m.tree), Time: 1727799744,
		Source: "test", Imported: time.Unix(1_800_000_000, 0).UTC(), Files: 4, Folders: 6, Bytes: 2000, RootNode: rootNode,
	}
	if m.version != nil {
		m.version(&v)
	}
	description := value(index.VersionRecord(&v))
	treeRecord, versionRecord := rawOf(m.tree), rawOf(description)
	treeRecord.kind, versionRecord.kind = tree, version
	records := slices.Concat([]record{rawOf(small...)}, m.records, []record{treeRecord, versionRecord})
	blobs := map[blobstore.ID]*blobstore.Location{}
	packName, pack := packOf(records, func(r record, at int64) {
		offset := uint32(0)
		for i, p := range r.parts {
			blobs[p.id] = &blobstore.Location{Pack: 1, Record: at, Offset: offset, Length: p.length}
			if r.encoding != program && r.encoding != programDelta || len(r.parts) == 1 || i > 0 {
				offset += p.length
			}
		}
	})
	if m.place != nil {
		m.place(blobs)
	}
	size := len(pack)
	if m.pack != nil {
		pack = m.pack(pack)
	}
	if m.nodes == nil {
		m.nodes = m.rightNodes()
	}
	if m.text == nil {
		m.text = value(json.Marshal(v))
	}
	files := map[string][]byte{
		"format": []byte("gofs store 1\n"), "generation": fmt.Appendln(nil, generation), "packs/" + packName + ".pack": pack,
		"index.db": m.database(v.Name, packName, size, blobs),
	}
	if m.files != nil {
		m.files(files)
	}
	return zipOf(files, m.holes)
}

// rightNodes gives each file a number of its own.
func (m *maker) rightNodes() []byte {
	n := 1
	if t, err := index.DecodeTree(m.tree); err == nil {
		n = len(t.Entries) - len(t.Folders) + 1
	}
	b := binary.AppendVarint([]byte{1}, 1727799744)
	for i := range n {
		step := int64(1)
		if i == 0 {
			step = rootNode + 1000
		}
		b = append(binary.AppendVarint(b, step), 0)
	}
	return b
}

// database is the index as bytes.
func (m *maker) database(version, packName string, packSize int, blobs map[blobstore.ID]*blobstore.Location) []byte {
	dir := value(os.MkdirTemp("", "hostile-"))
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "index.db")
	db := value(bolt.Open(file, 0o600, &bolt.Options{PageSize: 4096, NoSync: true}))
	must(db.Update(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			value(tx.CreateBucket([]byte(b)))
		}
		set(tx, "meta", "format", number(1))
		set(tx, "meta", "generation", number(generation))
		set(tx, "meta", "node", number(1<<20))
		set(tx, "meta", "pack", number(2))
		set(tx, "packs", "\x00\x00\x00\x01", seal(append(binary.AppendUvarint(nil, uint64(packSize)), packName...)))
		for id, loc := range blobs {
			set(tx, "blobs", string(id[:]), location(loc))
		}
		set(tx, "versions", version, seal(m.text))
		set(tx, "nodes", version, seal(m.nodes))
		if m.index != nil {
			m.index(tx)
		}
		for _, name := range buckets[1:] {
			if b := tx.Bucket([]byte(name)); b != nil {
				set(tx, "meta", "sum of "+name, number(sum(b)))
			}
		}
		if m.summed != nil {
			m.summed(tx)
		}
		return nil
	}))
	must(db.Close())
	b := value(os.ReadFile(file))
	if m.bytes != nil {
		b = m.bytes(b)
	}
	return b
}

func set(tx *bolt.Tx, bucket, key string, b []byte) {
	must(tx.Bucket([]byte(bucket)).Put([]byte(key), b))
}

func location(l *blobstore.Location) []byte {
	b := binary.AppendUvarint(nil, uint64(l.Pack))
	b = binary.AppendUvarint(b, uint64(l.Record))
	b = binary.AppendUvarint(b, uint64(l.Offset))
	return binary.AppendUvarint(b, uint64(l.Length))
}

func sum(b *bolt.Bucket) uint64 {
	n, crc := uint64(0), uint32(0)
	must(b.ForEach(func(k, v []byte) error {
		crc = crc32.Update(crc32.Update(crc, castagnoli, k), castagnoli, v)
		n++
		return nil
	}))
	return n<<32 | uint64(crc)
}

// Offsets in a page of bbolt, see index/pages.go.
const (
	pageSize   = 4096
	pageFlags  = 8
	pageCount  = 10
	pageMore   = 12
	metaRoot   = 32
	metaFree   = 48
	metaPages  = 56
	metaTx     = 64
	metaSum    = 72
	branchPage = 1
	leafPage   = 2
	freePage   = 16
)

// setMeta changes a field of both meta pages and makes their sums right.
func setMeta(db []byte, at int, v uint64) {
	for page := range 2 {
		b := db[page*pageSize:]
		binary.LittleEndian.PutUint64(b[at:], v)
		h := fnv.New64a()
		h.Write(b[16:metaSum])
		binary.LittleEndian.PutUint64(b[metaSum:], h.Sum64())
	}
}

func getMeta(db []byte, at int) uint64 {
	// The newer of the two.
	newest := db[:pageSize]
	if other := db[pageSize:]; binary.LittleEndian.Uint64(other[metaTx:]) > binary.LittleEndian.Uint64(newest[metaTx:]) {
		newest = other
	}
	return binary.LittleEndian.Uint64(newest[at:])
}

// pagesOf lists the pages in use of a kind.
func pagesOf(db []byte, kind uint16) (list []int) {
	for i := 2; i < len(db)/pageSize; i++ {
		b := db[i*pageSize:]
		if binary.LittleEndian.Uint64(b) == uint64(i) && binary.LittleEndian.Uint16(b[pageFlags:]) == kind {
			list = append(list, i)
		}
	}
	return list
}
