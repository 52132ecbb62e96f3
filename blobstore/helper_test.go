package blobstore

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// locator is an index in memory.
type locator map[ID]Location

func (l locator) Locate(id ID) (Location, bool) {
	loc, ok := l[id]
	return loc, ok
}

// number gives packs numbers from first on.
func number(packs []Pack, first uint32) ([]PackRef, locator) {
	var refs []PackRef
	loc := locator{}
	for i, p := range packs {
		n := first + uint32(i)
		refs = append(refs, PackRef{n, p.Name, p.Size})
		for _, b := range p.Blobs {
			b.Location.Pack = n
			loc[b.ID] = b.Location
		}
	}
	return refs, loc
}

// noise is n bytes that nothing compresses.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	r.Read(b)
	return b
}

// text is n bytes that compress well.
func text(seed, n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "func f%d_%d(x int) int { return x + %d }\n", seed, i, i*i)
	}
	return b.Bytes()[:n]
}

func blob(data []byte) Blob { return Blob{Sum(data), data} }

// group is a group of blobs with these bytes.
func group(all ...[]byte) Group {
	var g Group
	for _, data := range all {
		g.Blobs = append(g.Blobs, blob(data))
	}
	return g
}

func newWriter(t testing.TB, dir string, o WriterOptions) *Writer {
	t.Helper()
	w, err := NewWriter(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Abort)
	return w
}

func add(t testing.TB, w *Writer, groups ...Group) {
	t.Helper()
	for _, g := range groups {
		if err := w.Add(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
}

func finish(t testing.TB, w *Writer) []Pack {
	t.Helper()
	packs, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return packs
}

// store writes groups to packs of dir.
func store(t testing.TB, dir string, groups ...Group) []Pack {
	t.Helper()
	w := newWriter(t, dir, WriterOptions{})
	add(t, w, groups...)
	return finish(t, w)
}

func openView(t testing.TB, dir string, refs []PackRef, loc Locator) *View {
	t.Helper()
	v, err := OpenView(dir, refs, loc, NewCache(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.Close()
		checkReleased(t, v.cache)
	})
	return v
}

// checkReleased looks for memory of records that nobody has let go of.
func checkReleased(t testing.TB, c *Cache) {
	t.Helper()
	c.Clear()
	if n := c.Used(); n != 0 {
		t.Errorf("%d bytes of decoded records are never released", n)
	}
}

// rawRecord is a record as an attacker would write it: what is zero of its
// lengths and sums is made right.
type rawRecord struct {
	header
	stored []byte
}

// dictRecord is a record of one blob with bases.
func dictRecord(t testing.TB, depth uint16, plain []byte, bases ...Blob) rawRecord {
	t.Helper()
	enc, err := newEncoders(LevelImport, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	stored, err := enc.encodeDict(plain, join(bases))
	if err != nil {
		t.Fatal(err)
	}
	r := rawRecord{header{enc: encDict, depth: depth, plain: uint32(len(plain)), blobs: []member{{Sum(plain), uint32(len(plain))}}}, stored}
	for _, b := range bases {
		r.bases = append(r.bases, b.ID)
	}
	return r
}

// rawBlob is a record of one blob without bases.
func rawBlob(b []byte) rawRecord {
	return rawRecord{header{plain: uint32(len(b)), blobs: []member{{Sum(b), uint32(len(b))}}}, b}
}

// craft writes a pack of records that no Writer would write.
func craft(t testing.TB, dir string, records ...rawRecord) Pack {
	t.Helper()
	p, err := createPack(dir, openat)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		h := r.header
		h.stored = uint32(len(r.stored))
		if h.crc == 0 {
			h.crc = crc32.Checksum(r.stored, castagnoli)
		}
		if err := p.add(&job{head: h.append(nil), header: h, stored: r.stored}); err != nil {
			t.Fatal(err)
		}
	}
	pack, err := p.finish()
	if err != nil {
		t.Fatal(err)
	}
	return pack
}

func checkBlob(t testing.TB, v *View, want []byte) {
	t.Helper()
	got, err := v.Blob(t.Context(), Sum(want))
	if err != nil {
		t.Fatalf("blob of %d bytes: %v", len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("blob of %d bytes: got %d other bytes", len(want), len(got))
	}
}

// files lists the names in dir.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func readPack(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(packPath(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// records reads the headers of a pack.
func records(t testing.TB, dir, name string) []*Record {
	t.Helper()
	p, err := OpenPack(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var list []*Record
	for r, err := range p.Records(true) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// verify returns what VerifyPack finds.
func verify(t testing.TB, v *View, name string) []Damage {
	t.Helper()
	var found []Damage
	var ref PackRef
	for _, p := range v.packs {
		if p.ref.Name == name {
			ref = p.ref
		}
	}
	err := v.VerifyPack(context.Background(), ref, func(d Damage) { found = append(found, d) }, func(int64, []Placed) {})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// smallDisk is a file system of its own with few bytes.
func smallDisk(t testing.TB, bytes int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatalf("mount a tmpfs, as root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("a file is still open: %v", err)
		}
	})
	return dir
}
