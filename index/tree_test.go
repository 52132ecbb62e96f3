package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gofs/blobstore"
)

func id(n byte) blobstore.ID { return blobstore.ID{n} }

// oddTree has one of everything.
func oddTree() []Item {
	return []Item{
		{Path: "a", Kind: File, Mode: 0o644, Size: 3, Blobs: []Ref{{id(1), 3}}},
		{Path: "a-b", Kind: File, Mode: 0o600, Size: 1<<20 + 5, Blobs: []Ref{{id(2), 1 << 20}, {id(3), 5}}},
		{Path: "ax/deep/er/file", Kind: File, Mode: 0o755},
		{Path: "d", Kind: Folder, Mode: 0o700},
		{Path: "d/link", Kind: Symlink, Mode: 0o777, Target: "../a"},
		{Path: "d/sub", Kind: Folder, Mode: 0o555},
		{Path: "empty", Kind: Folder, Mode: 0o755},
		{Path: "\xff not UTF-8 \n", Kind: File, Mode: 0, Size: 3, Blobs: []Ref{{id(1), 3}}},
		{Path: strings.Repeat("n", MaxName), Kind: Symlink, Mode: 0o777, Target: strings.Repeat("t", MaxTarget)},
	}
}

// itemsOf makes items of a tree again.
func itemsOf(t *Tree) []Item {
	var items []Item
	_ = t.Walk(func(path string, e *Entry) error {
		items = append(items, Item{Path: path, Kind: e.Kind, Mode: e.Mode, Size: e.Size, Blobs: slices.Clone(t.Blobs(e)), Target: e.Target})
		return nil
	})
	return items
}

func TestTreeRoundTrip(t *testing.T) {
	items := oddTree()
	b, err := EncodeTree(items)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := DecodeTree(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		e, ok := tree.Find(it.Path)
		if !ok {
			t.Errorf("%q is not there", it.Path)
			continue
		}
		if e.Kind != it.Kind || e.Mode != it.Mode || e.Size != it.Size || e.Target != it.Target || !slices.Equal(tree.Blobs(e), it.Blobs) {
			t.Errorf("%q is %+v", it.Path, e)
		}
		if e.Kind == Folder && tree.Path(e.Folder) != it.Path {
			t.Errorf("folder %q calls itself %q", it.Path, tree.Path(e.Folder))
		}
	}
	if e, ok := tree.Find("ax/deep/er"); !ok || e.Mode != 0o755 || e.Kind != Folder {
		t.Errorf("a folder that was not given: %+v", e)
	}
	for _, none := range []string{"", "a/b", "d/nothing", "ax/deep/er/file/more", "zzz", "/a", "a/"} {
		if e, ok := tree.Find(none); ok {
			t.Errorf("found %q: %+v", none, e)
		}
	}
	if n := len(tree.AllBlobs()); n != 4 {
		t.Errorf("%d blobs", n)
	}
	again, err := EncodeTree(itemsOf(tree))
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("encodes to other bytes: %v", err)
	}
}

func TestTreeIsCanonical(t *testing.T) {
	items := oddTree()
	want, err := EncodeTree(items)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		if b, err := EncodeTree(items); err != nil || !bytes.Equal(b, want) {
			t.Fatalf("in another order: %v", err)
		}
	}
	empty, err := EncodeTree(nil)
	if err != nil {
		t.Fatal(err)
	}
	if tree, err := DecodeTree(empty); err != nil || len(tree.Folders) != 1 || len(tree.Entries) != 0 {
		t.Errorf("empty tree: %+v, %v", tree, err)
	}
}

func TestEncodeTreeRefuses(t *testing.T) {
	file := func(paths ...string) (items []Item) {
		for _, p := range paths {
			items = append(items, Item{Path: p, Mode: 0o644})
		}
		return items
	}
	folder := Item{Path: "a", Kind: Folder, Mode: 0o755}
	for name, items := range map[string][]Item{
		"no path":           file(""),
		"absolute":          file("/a"),
		"slash at the end":  file("a/"),
		"two slashes":       file("a//b"),
		"dot":               file("."),
		"dot inside":        file("a/./b"),
		"dot dot":           file("../a"),
		"dot dot inside":    file("a/../b"),
		"NUL":               file("a\x00b"),
		"long name":         file(strings.Repeat("n", MaxName+1)),
		"deep":              file(strings.Repeat("d/", maxDepth) + "f"),
		"twice":             file("a", "a"),
		"below a file":      file("a", "a/b"),
		"file for a folder": file("a/b", "a"),
		"folder twice":      {folder, folder},
		"folder and file":   append(file("a"), folder),
		"below a link":      append(file("l/a"), Item{Path: "l", Kind: Symlink, Target: "/etc"}),
		"many":              make([]Item, 0),
	} {
		if name == "many" {
			for i := range MaxEntries + 1 {
				items = append(items, Item{Path: strconv.Itoa(i)})
			}
		}
		if _, err := EncodeTree(items); !errors.Is(err, ErrTree) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// rawTree is the bytes of a tree from numbers and strings.
func rawTree(parts ...any) []byte {
	b := []byte(treeMagic)
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(p))
		case string:
			b = appendString(b, p)
		case blobstore.ID:
			b = append(b, p[:]...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

func TestDecodeTreeRefuses(t *testing.T) {
	const mode = 0o755
	good := rawTree(mode, 1, 1, 2, 1, 0, 0o644, "f", 5, 2, 3, 2, id(1), id(2))
	if _, err := DecodeTree(good); err != nil {
		t.Fatal(err)
	}
	nested := func(depth int) []byte {
		parts := []any{mode, depth + 1, depth, 0}
		for range depth {
			parts = append(parts, 1, 1, mode, "d")
		}
		return rawTree(append(parts, 0)...)
	}
	if _, err := DecodeTree(nested(maxDepth)); err != nil {
		t.Errorf("as deep as it may be: %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing":             nil,
		"another format":      append([]byte("gofstree\x02"), good[9:]...),
		"no folder":           rawTree(mode, 0, 0, 0),
		"mode of root":        rawTree(0o1000, 1, 0, 0, 0),
		"mode":                rawTree(mode, 1, 1, 0, 1, 0, 0o4755, "f", 0, 0),
		"more behind":         append(slices.Clone(good), 0),
		"kind":                rawTree(mode, 1, 1, 0, 1, 3, mode, "f", 0, 0),
		"no name":             rawTree(mode, 1, 1, 0, 1, 0, mode, "", 0, 0),
		"dot":                 rawTree(mode, 1, 1, 0, 1, 0, mode, ".", 0, 0),
		"dot dot":             rawTree(mode, 1, 1, 0, 1, 0, mode, "..", 0, 0),
		"slash":               rawTree(mode, 1, 1, 0, 1, 0, mode, "a/b", 0, 0),
		"NUL":                 rawTree(mode, 1, 1, 0, 1, 0, mode, "a\x00", 0, 0),
		"long name":           rawTree(mode, 1, 1, 0, 1, 0, mode, strings.Repeat("n", MaxName+1), 0, 0),
		"name twice":          rawTree(mode, 1, 2, 0, 2, 0, mode, "a", 0, 0, 0, mode, "a", 0, 0),
		"not sorted":          rawTree(mode, 1, 2, 0, 2, 0, mode, "b", 0, 0, 0, mode, "a", 0, 0),
		"link to nowhere":     rawTree(mode, 1, 1, 0, 1, 2, mode, "l", ""),
		"NUL in a target":     rawTree(mode, 1, 1, 0, 1, 2, mode, "l", "a\x00b"),
		"long target":         rawTree(mode, 1, 1, 0, 1, 2, mode, "l", strings.Repeat("t", MaxTarget+1)),
		"size without blob":   rawTree(mode, 1, 1, 0, 1, 0, mode, "f", 5, 0),
		"blob without size":   rawTree(mode, 1, 1, 1, 1, 0, mode, "f", 0, 1, id(1)),
		"blob too large":      rawTree(mode, 1, 1, 1, 1, 0, mode, "f", blobstore.MaxRecord+1, 1, id(1)),
		"empty blob":          rawTree(mode, 1, 1, 2, 1, 0, mode, "f", 5, 2, 5, 0, id(1), id(2)),
		"blobs too long":      rawTree(mode, 1, 1, 2, 1, 0, mode, "f", 5, 2, 3, 3, id(1), id(2)),
		"blobs too short":     rawTree(mode, 1, 1, 2, 1, 0, mode, "f", 5, 2, 3, 1, id(1), id(2)),
		"more blobs":          rawTree(mode, 1, 1, 1, 1, 0, mode, "f", 5, 2, 3, 2, id(1)),
		"fewer blobs":         rawTree(mode, 1, 1, 2, 1, 0, mode, "f", 5, 1, id(1), id(2)),
		"more entries":        rawTree(mode, 1, 0, 0, 1, 0, mode, "f", 0, 0),
		"fewer entries":       rawTree(mode, 1, 2, 0, 1, 0, mode, "f", 0, 0),
		"more folders":        rawTree(mode, 1, 1, 0, 1, 1, mode, "d", 0),
		"fewer folders":       rawTree(mode, 2, 1, 0, 1, 0, mode, "ffff", 0, 0),
		"folders from air":    rawTree(mode, 3, 0, 0, 0, 0, 0),
		"too deep":            nested(maxDepth + 1),
		"large counts":        rawTree(mode, MaxEntries, MaxEntries, 1<<30, 0),
		"number in two forms": rawTree(mode, 1, 1, 0, []byte{0x81, 0}, 0, mode, "f", 0, 0),
		"number without end":  rawTree(mode, 1, 1, 0, bytes.Repeat([]byte{0xff}, 11)),
		"folder number twice": rawTree(mode, 1, 1, 0, 2, 0, mode, "f", 0, 0),
	} {
		if tree, err := DecodeTree(b); !errors.Is(err, ErrTree) {
			t.Errorf("%s: %+v, %v", name, tree, err)
		}
	}
	for n := range good {
		if _, err := DecodeTree(good[:n]); !errors.Is(err, ErrTree) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestFileKey(t *testing.T) {
	b, err := EncodeTree([]Item{
		{Path: "a", Mode: 0o644, Size: 3, Blobs: []Ref{{id(1), 3}}},
		{Path: "same", Mode: 0o644, Size: 3, Blobs: []Ref{{id(1), 3}}},
		{Path: "mode", Mode: 0o600, Size: 3, Blobs: []Ref{{id(1), 3}}},
		{Path: "bytes", Mode: 0o644, Size: 3, Blobs: []Ref{{id(2), 3}}},
		{Path: "blobs", Mode: 0o644, Size: 6, Blobs: []Ref{{id(1), 3}, {id(2), 3}}},
		{Path: "order", Mode: 0o644, Size: 6, Blobs: []Ref{{id(2), 3}, {id(1), 3}}},
		{Path: "empty", Mode: 0o644},
		{Path: "link", Kind: Symlink, Mode: 0o644, Target: "x"},
		{Path: "other link", Kind: Symlink, Mode: 0o644, Target: "y"},
		{Path: "target like an ID", Kind: Symlink, Mode: 0o644, Target: strings.Repeat("\x01", 32)},
		{Path: "that ID", Mode: 0o644, Size: 1, Blobs: []Ref{{blobstore.ID([]byte(strings.Repeat("\x01", 32))), 1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := DecodeTree(b)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[16]byte][]string{}
	for i := range tree.Entries {
		key := FileKey(tree, &tree.Entries[i])
		seen[key] = append(seen[key], tree.Entries[i].Name)
	}
	for _, names := range seen {
		if len(names) > 1 && !slices.Equal(names, []string{"a", "same"}) {
			t.Errorf("%q are one file", names)
		}
	}
	if len(seen) != len(tree.Entries)-1 {
		t.Errorf("%d keys of %d entries", len(seen), len(tree.Entries))
	}
}

func FuzzTree(f *testing.F) {
	b, err := EncodeTree(oddTree())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(rawTree(0o755, 1, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := DecodeTree(b)
		if err != nil {
			if !errors.Is(err, ErrTree) {
				t.Error(err)
			}
			return
		}
		again, err := EncodeTree(itemsOf(tree))
		if err != nil {
			t.Fatal(err)
		}
		// The root's mode is no item's.
		if tree.Folders[0].Mode == 0o755 && !bytes.Equal(again, b) {
			t.Error("encodes to other bytes")
		}
		if other, err := DecodeTree(again); err != nil || !reflect.DeepEqual(other.Entries, tree.Entries) || !slices.Equal(other.refs, tree.refs) {
			t.Errorf("decodes to another tree: %v", err)
		}
		for i := range tree.Entries {
			FileKey(tree, &tree.Entries[i])
		}
	})
}

func nodesOf(numbers ...uint64) (nodes []Node) {
	for i, n := range numbers {
		nodes = append(nodes, Node{firstNode + n, int64(i % 3)})
	}
	return nodes
}

func TestNodes(t *testing.T) {
	for _, nodes := range [][]Node{nil, nodesOf(5), nodesOf(1, 2, 3, 3, 2, 1), nodesOf(MaxNode-firstNode-1, 0, 1<<30), {{firstNode, -62135596800}}} {
		b := encodeNodes(nodes)
		got, err := decodeNodes(b, len(nodes))
		if err != nil || !slices.Equal(got, nodes) {
			t.Errorf("%v: %v, %v", nodes, got, err)
		}
		for _, n := range []int{len(nodes) + 1, len(nodes) - 1} {
			if _, err := decodeNodes(b, max(n, 0)); n >= 0 && !errors.Is(err, ErrIndex) {
				t.Errorf("%v as %d nodes: %v", nodes, n, err)
			}
		}
		for i := range b {
			bad := slices.Clone(b)
			bad[i] ^= 0x10
			if _, err := decodeNodes(bad, len(nodes)); !errors.Is(err, ErrIndex) {
				t.Errorf("%v with byte %d flipped: %v", nodes, i, err)
			}
		}
	}
	for name, nodes := range map[string][]Node{"a mount's own number": {{1, 0}}, "too large": {{MaxNode, 0}}} {
		if _, err := decodeNodes(encodeNodes(nodes), 1); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzNodes(f *testing.F) {
	for _, nodes := range [][]Node{nil, nodesOf(5), nodesOf(1, 2, 3, 3, 2, 1)} {
		b := encodeNodes(nodes)
		f.Add(b[:len(b)-4], uint8(len(nodes)))
	}
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		nodes, err := decodeNodes(seal(slices.Clone(b)), int(n))
		if err != nil {
			if !errors.Is(err, ErrIndex) {
				t.Error(err)
			}
			return
		}
		if again, err := decodeNodes(encodeNodes(nodes), int(n)); err != nil || !slices.Equal(again, nodes) {
			t.Errorf("decodes to others: %v", err)
		}
	})
}
