package blobstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRoundTrip(t *testing.T) {
	old, changed := noise(1, 40<<10), noise(1, 40<<10)
	copy(changed[20<<10:], "a small change")
	withBase := group(changed)
	withBase.Bases = []Blob{blob(old)}
	useless := group(noise(9, 10<<10))
	useless.Bases = []Blob{blob(old)}
	joined := group(text(3, 3000), text(4, 5000))
	joined.Plain = join(joined.Blobs)
	deep := group(slices.Concat(changed, text(8, 10)))
	deep.Bases, deep.Depth = []Blob{blob(changed)}, MaxDepth
	tree := group(text(5, 2000))
	tree.Kind = Tree

	groups := []Group{
		group(old), withBase, useless, joined, deep, tree,
		group(text(1, 100), nil, text(2, 70000), []byte{7}),
		group([]byte{}, []byte("x")),
		group(text(6, 200<<10)),
	}
	encodings := []encoding{encRaw, encDict, encRaw, encZstd, encRaw, encZstd, encZstd, encRaw, encZstd}
	for _, level := range []Level{LevelImport, LevelBetter, LevelBest} {
		dir := t.TempDir()
		w := newWriter(t, dir, WriterOptions{Level: level})
		add(t, w, groups...)
		packs := finish(t, w)
		if len(packs) != 1 {
			t.Fatalf("%d packs", len(packs))
		}
		refs, loc := number(packs, 1)
		v := openView(t, dir, refs, loc)
		rs := records(t, dir, packs[0].Name)
		if len(rs) != len(groups) {
			t.Fatalf("%d records of %d groups", len(rs), len(groups))
		}
		var plain int64
		for i, g := range groups {
			if rs[i].header.enc != encodings[i] || rs[i].Kind() != g.Kind {
				t.Errorf("level %d, record %d is %s of kind %v, want %v of kind %v", level, i, rs[i].Encoding(), rs[i].Kind(), encodings[i], g.Kind)
			}
			for j, b := range g.Blobs {
				checkBlob(t, v, b.Data)
				if rs[i].Blobs()[j].ID != b.ID {
					t.Errorf("record %d, blob %d is another", i, j)
				}
				plain += int64(len(b.Data))
			}
		}
		if packs[0].Plain != plain {
			t.Errorf("%d plain bytes, want %d", packs[0].Plain, plain)
		}
		if d, err := v.Depth(t.Context(), Sum(changed)); err != nil || d != 1 {
			t.Errorf("depth %d, %v", d, err)
		}
		if found := verify(t, v, packs[0].Name); found != nil {
			t.Errorf("damage: %v", found)
		}
		checkPlaced(t, packs[0], rs)
	}
}

// checkPlaced compares what the writer says about its blobs with the pack.
func checkPlaced(t *testing.T, p Pack, rs []*Record) {
	t.Helper()
	var placed []Placed
	size := int64(packHeader + packTrailer)
	for _, r := range rs {
		placed = append(placed, r.Placed()...)
		size += r.Size()
		shares := int64(0)
		for _, b := range r.Placed() {
			shares += int64(b.Stored)
		}
		if shares > r.Size() || shares < r.Size()-int64(len(r.Blobs())) {
			t.Errorf("the blobs' shares are %d of %d bytes", shares, r.Size())
		}
	}
	if !slices.Equal(placed, p.Blobs) {
		t.Error("the writer placed its blobs elsewhere than its pack says")
	}
	if size != p.Size {
		t.Errorf("pack of %d bytes, its records make %d", p.Size, size)
	}
}

func TestDeterministic(t *testing.T) {
	var groups []Group
	for i := range 40 {
		groups = append(groups, group(text(i, 100*i+1), noise(byte(i), 5000)), group(text(i, 30000)))
	}
	var first []byte
	for _, workers := range []int{1, 2, 16} {
		dir := t.TempDir()
		w := newWriter(t, dir, WriterOptions{Workers: workers})
		add(t, w, groups...)
		packs := finish(t, w)
		b := readPack(t, dir, packs[0].Name)
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("with %d workers the pack differs", workers)
		}
	}
}

func TestMaxPack(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{MaxPack: 100 << 10})
	for i := range 20 {
		add(t, w, group(noise(byte(i), 30<<10)))
	}
	packs := finish(t, w)
	if len(packs) != 7 {
		t.Errorf("%d packs, want 7 with 3 blobs in each", len(packs))
	}
	for _, p := range packs {
		if p.Size > 100<<10 {
			t.Errorf("pack of %d bytes", p.Size)
		}
	}
	refs, loc := number(packs, 5)
	v := openView(t, dir, refs, loc)
	for i := range 20 {
		checkBlob(t, v, noise(byte(i), 30<<10))
	}
	w.Abort()
	if n := len(files(t, dir)); n != 7 {
		t.Errorf("%d files are left by an Abort after Finish", n)
	}
}

// One record may be larger than MaxPack.
func TestMaxPackOneRecord(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{MaxPack: 1})
	add(t, w, group(noise(1, 9000)), group(noise(2, 9000)))
	refs, loc := number(finish(t, w), 1)
	v := openView(t, dir, refs, loc)
	checkBlob(t, v, noise(1, 9000))
	checkBlob(t, v, noise(2, 9000))
}

func TestCopy(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	based := group(slices.Concat(noise(1, 9000), text(2, 20)))
	based.Bases = []Blob{blob(noise(1, 9000))}
	p := store(t, from, group(noise(1, 9000)), group(text(1, 500), text(3, 900)), based)[0]
	rs := records(t, from, p.Name)
	w := newWriter(t, to, WriterOptions{})
	for _, r := range rs {
		if err := w.Copy(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	packs := finish(t, w)
	if !bytes.Equal(readPack(t, to, packs[0].Name), readPack(t, from, p.Name)) {
		t.Error("the copy differs")
	}
	refs, loc := number(packs, 1)
	checkBlob(t, openView(t, to, refs, loc), based.Blobs[0].Data)

	pr, err := OpenPack(from, p.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	for r := range pr.Records(false) {
		if err := newWriter(t, to, WriterOptions{}).Copy(t.Context(), r, nil); err == nil {
			t.Error("a record without its content was copied")
		}
	}
}

// A quick group is read as any other, and its record says that it is one.
func TestQuick(t *testing.T) {
	dir := t.TempDir()
	quick, plain := group(text(3, 100_000)), group(text(4, 100_000))
	quick.Quick = true
	packs := store(t, dir, quick, plain)
	refs, loc := number(packs, 1)
	v := openView(t, dir, refs, loc)
	for i, g := range []Group{quick, plain} {
		b := g.Blobs[0]
		r, err := v.Whole(t.Context(), b.ID)
		if err != nil {
			t.Fatal(err)
		}
		if r.Quick() != g.Quick || packs[0].Blobs[i].Quick != g.Quick || r.Placed()[0].Quick != g.Quick || strings.HasSuffix(r.Encoding(), ", quick") != g.Quick {
			t.Errorf("group %d: quick %v, %s, placed as %+v", i, r.Quick(), r.Encoding(), packs[0].Blobs[i])
		}
		if r.Size() > r.Plain()/2 {
			t.Errorf("group %d: %d bytes of %d", i, r.Size(), r.Plain())
		}
		back, err := v.decode(t.Context(), r)
		if err != nil || !bytes.Equal(back.Plain, b.Data) {
			t.Errorf("group %d: its record decodes to something else, %v", i, err)
		}
		if err == nil {
			back.Release()
		}
		checkBlob(t, v, b.Data)
	}
	if _, err := v.Whole(t.Context(), blob(text(5, 100)).ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a blob that is not there: %v", err)
	}
}

func TestAddRefuses(t *testing.T) {
	large := make([]byte, MaxRecord/2+1)
	wrong := group([]byte("abc"))
	wrong.Plain = []byte("ab")
	for name, g := range map[string]Group{
		"empty":       {},
		"many blobs":  {Blobs: make([]Blob, MaxGroup+1)},
		"too large":   group(large, large),
		"wrong plain": wrong,
	} {
		dir := t.TempDir()
		w := newWriter(t, dir, WriterOptions{})
		if err := w.Add(t.Context(), g); err == nil {
			t.Errorf("%s: added", name)
		}
		if packs, err := w.Finish(); err != nil || packs != nil {
			t.Errorf("%s: %v, %v", name, packs, err)
		}
	}
}

// namedFiles is a file system without unnamed files.
func namedFiles(int, string, int, uint32) (int, error) { return -1, unix.EOPNOTSUPP }

func openFiles(t *testing.T) int { return len(files(t, "/proc/self/fd")) }

func TestAbort(t *testing.T) {
	for name, unnamed := range map[string]opener{"unnamed": openat, "named": namedFiles} {
		t.Run(name, func(t *testing.T) {
			dir, before := t.TempDir(), openFiles(t)
			w := newWriter(t, dir, WriterOptions{MaxPack: 50 << 10})
			w.unnamed = unnamed
			for i := range 10 {
				add(t, w, group(noise(byte(i), 20<<10)))
			}
			w.Abort()
			if left := files(t, dir); left != nil {
				t.Errorf("left behind: %v", left)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d open files, %d before", after, before)
			}
			if _, err := w.Finish(); err == nil {
				t.Error("Finish after Abort")
			}
		})
	}
}

func TestNamedFiles(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{})
	w.unnamed = namedFiles
	add(t, w, group(text(1, 5000)))
	packs := finish(t, w)
	if got := files(t, dir); !slices.Equal(got, []string{packs[0].Name + Suffix}) {
		t.Errorf("files %v", got)
	}
	if st, err := os.Stat(packPath(dir, packs[0].Name)); err != nil || st.Mode() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	refs, loc := number(packs, 1)
	checkBlob(t, openView(t, dir, refs, loc), text(1, 5000))
}

func TestCancel(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{Workers: 1})
	why := errors.New("the user pressed a key")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = w.Add(ctx, group(noise(byte(i), 100)))
	}
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	w.Abort()
	if left := files(t, dir); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// A pack that an interrupted import left under the same name is replaced, and
// stays when the writer that replaced it gives up.
func TestReplace(t *testing.T) {
	for name, unnamed := range map[string]opener{"unnamed": openat, "named": namedFiles} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := store(t, dir, group(noise(1, 5000)))[0]
			good := readPack(t, dir, p.Name)
			bad := slices.Clone(good)
			bad[200] ^= 1
			if err := os.WriteFile(packPath(dir, p.Name), bad, 0o644); err != nil {
				t.Fatal(err)
			}
			w := newWriter(t, dir, WriterOptions{MaxPack: 6000})
			w.unnamed = unnamed
			add(t, w, group(noise(1, 5000)), group(noise(2, 5000)), group(noise(3, 5000)))
			w.Abort()
			if got := files(t, dir); !slices.Equal(got, []string{p.Name + Suffix}) {
				t.Errorf("files %v", got)
			}
			if !bytes.Equal(readPack(t, dir, p.Name), good) {
				t.Error("the damaged pack is still there")
			}
		})
	}
}

func TestFullDisk(t *testing.T) {
	for name, unnamed := range map[string]opener{"unnamed": openat, "named": namedFiles} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t, 1<<20)
			before := store(t, dir, group(noise(1, 100<<10)))
			w := newWriter(t, dir, WriterOptions{MaxPack: 300 << 10})
			w.unnamed = unnamed
			var err error
			for i := 0; err == nil && i < 100; i++ {
				err = w.Add(t.Context(), group(noise(byte(i+2), 100<<10)))
			}
			packs, ferr := w.Finish()
			if !errors.Is(ferr, unix.ENOSPC) || err != nil && !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("errors %v, %v", err, ferr)
			}
			if !strings.HasPrefix(ferr.Error(), "write pack: ") || strings.Contains(ferr.Error(), "\n") || packs != nil {
				t.Errorf("error %q, packs %v", ferr, packs)
			}
			if got := files(t, dir); !slices.Equal(got, []string{before[0].Name + Suffix}) {
				t.Errorf("files %v", got)
			}
			refs, loc := number(before, 1)
			v := openView(t, dir, refs, loc)
			checkBlob(t, v, noise(1, 100<<10))
			v.Close()
		})
	}
}

func TestListPacks(t *testing.T) {
	dir := t.TempDir()
	p := store(t, dir, group([]byte("x")))[0]
	for _, name := range []string{TempPrefix + "123", TempPrefix + "abc.pack", "README"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	packs, temps, err := ListPacks(dir)
	if err != nil || !slices.Equal(packs, []string{p.Name}) || len(temps) != 2 {
		t.Errorf("%v, %v, %v", packs, temps, err)
	}
	for range 2 {
		if err := RemovePack(dir, p.Name); err != nil {
			t.Error(err)
		}
	}
}

// A gc may remove what is unfinished, if the writer has no right to write: the
// writer says so.
func TestSwept(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{})
	w.unnamed = namedFiles
	add(t, w, group(noise(2, 1000)))
	var temps []string
	for len(temps) == 0 {
		_, temps, _ = ListPacks(dir)
	}
	if err := os.Remove(filepath.Join(dir, temps[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); !errors.Is(err, ErrSwept) {
		t.Errorf("error %v", err)
	}
	if got := files(t, dir); got != nil {
		t.Errorf("files %v", got)
	}
}
