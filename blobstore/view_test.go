package blobstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// smallStore is a pack with a record of each encoding.
func smallStore(t *testing.T, dir string) (Pack, [][]byte) {
	t.Helper()
	base := noise(1, 90)
	based := group(slices.Concat(base, noise(1, 90), base))
	based.Bases = []Blob{blob(base)}
	large := noise(3, 400)
	changed := slices.Clone(large)
	for i := 0; i < len(changed); i += 9 {
		changed[i]++
	}
	w := newWriter(t, dir, WriterOptions{})
	add(t, w, group(base), group(text(1, 150), text(2, 150), nil), based, group(large))
	one, oneProgram := program(t, tiny(1), 1)
	two, _ := program(t, tiny(2), 2, oneProgram)
	for _, r := range []*Record{dense(t, group(changed), large), one, two} {
		if err := w.Copy(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	p := finish(t, w)[0]
	var encs []encoding
	for _, r := range records(t, dir, p.Name) {
		encs = append(encs, r.header.enc)
	}
	if !slices.Equal(encs, []encoding{encRaw, encZstd, encDict, encRaw, encDelta, encProgram, encProgramDelta}) {
		t.Fatalf("encodings %v", encs)
	}
	half := len(tiny(2)) / 2
	return p, [][]byte{base, text(1, 150), text(2, 150), {}, based.Blobs[0].Data, changed, tiny(1), tiny(2), tiny(2)[:half], tiny(2)[half:]}
}

// expectRight reads blobs of a damaged store: right bytes or a clean error.
func expectRight(t *testing.T, v *View, blobs [][]byte, what string) {
	t.Helper()
	for i, want := range blobs {
		got, err := v.Blob(t.Context(), Sum(want))
		switch {
		case err == nil && !bytes.Equal(got, want):
			t.Fatalf("%s: blob %d has wrong bytes", what, i)
		case err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat):
			t.Fatalf("%s: blob %d: %v", what, i, err)
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Fatalf("%s: blob %d: error of several lines %q", what, i, err)
		}
	}
}

func TestEveryByteFlipped(t *testing.T) {
	good := t.TempDir()
	p, blobs := smallStore(t, good)
	refs, loc := number([]Pack{p}, 1)
	pack := readPack(t, good, p.Name)
	dir := t.TempDir()
	for i := range pack {
		for _, mask := range []byte{0x01, 0xff} {
			what := fmt.Sprintf("byte %d with %#x", i, mask)
			bad := slices.Clone(pack)
			bad[i] ^= mask
			if err := os.WriteFile(packPath(dir, p.Name), bad, 0o644); err != nil {
				t.Fatal(err)
			}
			v := openView(t, dir, refs, loc)
			expectRight(t, v, blobs, what)
			found := verify(t, v, p.Name)
			if found == nil {
				t.Errorf("%s: not found", what)
			}
			for _, d := range found {
				if d.Pack != p.Name || d.Err == nil || !errors.Is(d.Err, ErrDamaged) && !errors.Is(d.Err, ErrFormat) {
					t.Errorf("%s: %+v", what, d)
				}
			}
			v.Close()
		}
	}
}

func TestEveryLength(t *testing.T) {
	good := t.TempDir()
	p, blobs := smallStore(t, good)
	pack := readPack(t, good, p.Name)
	dir := t.TempDir()
	for n := range pack {
		if err := os.WriteFile(packPath(dir, p.Name), pack[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		// An index that knows the length, and one that believes the file.
		for _, size := range []int64{p.Size, int64(n)} {
			refs, loc := number([]Pack{p}, 1)
			refs[0].Size = size
			v := openView(t, dir, refs, loc)
			expectRight(t, v, blobs, fmt.Sprintf("%d bytes", n))
			if broken := v.Broken(); size == p.Size && !errors.Is(broken[p.Name], ErrDamaged) {
				t.Errorf("%d bytes: broken is %v", n, broken)
			}
			if found := verify(t, v, p.Name); found == nil {
				t.Errorf("%d bytes: not found", n)
			}
			v.Close()
		}
	}
}

func TestMissingPack(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{MaxPack: 5000})
	add(t, w, group(noise(1, 4000)), group(noise(2, 4000)))
	packs := finish(t, w)
	refs, loc := number(packs, 1)
	if err := RemovePack(dir, packs[0].Name); err != nil {
		t.Fatal(err)
	}
	v := openView(t, dir, refs, loc)
	checkBlob(t, v, noise(2, 4000))
	_, err := v.Blob(t.Context(), Sum(noise(1, 4000)))
	if !errors.Is(err, ErrDamaged) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), packs[0].Name) {
		t.Errorf("error %v", err)
	}
	if broken := v.Broken(); len(broken) != 1 || broken[packs[0].Name] == nil {
		t.Errorf("broken: %v", broken)
	}
	if v.Has(Sum(noise(1, 4000))) || !v.Has(Sum(noise(2, 4000))) || v.Has(Sum(nil)) {
		t.Error("Has is wrong")
	}
	if found := verify(t, v, packs[0].Name); len(found) != 1 {
		t.Errorf("found %v", found)
	}
}

func TestNotFound(t *testing.T) {
	v := openView(t, t.TempDir(), nil, locator{Sum([]byte("x")): {Pack: 7, Record: 16, Length: 1}})
	for _, data := range []string{"x", "y"} {
		if _, err := v.Blob(t.Context(), Sum([]byte(data))); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", data, err)
		}
	}
}

// An index that lies about where a blob lies.
func TestWrongLocation(t *testing.T) {
	dir := t.TempDir()
	p, blobs := smallStore(t, dir)
	refs, loc := number([]Pack{p}, 1)
	right := loc[Sum(blobs[1])]
	for name, wrong := range map[string]Location{
		"no record":      {1, right.Length, right.Offset, right.Record + 1},
		"before":         {1, right.Length, right.Offset, -1},
		"in the header":  {1, right.Length, right.Offset, 3},
		"behind the end": {1, right.Length, right.Offset, 1 << 62},
		"at the end":     {1, right.Length, right.Offset, p.Size},
		"another record": {1, right.Length, right.Offset, packHeader},
		"another blob":   {1, right.Length, 150, right.Record},
		"another length": {1, right.Length + 1, right.Offset, right.Record},
	} {
		if name == "another blob" && right.Offset == 150 {
			t.Fatal("not another")
		}
		loc[Sum(blobs[1])] = wrong
		if _, err := openView(t, dir, refs, loc).Blob(t.Context(), Sum(blobs[1])); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongBlobInRecord(t *testing.T) {
	dir := t.TempDir()
	good, bad := []byte("these are the bytes"), []byte("but not these here")
	r := rawRecord{stored: slices.Concat(good, bad)}
	r.plain = uint32(len(good) + len(bad))
	r.blobs = []member{{Sum(good), uint32(len(good))}, {Sum([]byte("others")), uint32(len(bad))}}
	p := craft(t, dir, r)
	refs, loc := number([]Pack{p}, 1)
	v := openView(t, dir, refs, loc)
	checkBlob(t, v, good)
	if _, err := v.Blob(t.Context(), Sum([]byte("others"))); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
	found := verify(t, v, p.Name)
	if len(found) != 1 || !slices.Equal(found[0].Blobs, []ID{Sum([]byte("others"))}) || found[0].Offset != packHeader {
		t.Errorf("found %+v", found)
	}
}

// Stored bytes that are not what was written, though they decode.
func TestStoredChecksum(t *testing.T) {
	dir := t.TempDir()
	r := rawBlob([]byte("right bytes"))
	r.crc = 1
	p := craft(t, dir, r)
	refs, loc := number([]Pack{p}, 1)
	found := verify(t, openView(t, dir, refs, loc), p.Name)
	if len(found) != 1 || !errors.Is(found[0].Err, ErrDamaged) || found[0].Offset != packHeader {
		t.Errorf("found %+v", found)
	}
}

func TestHostileChains(t *testing.T) {
	a, b, c := text(1, 200), text(2, 200), text(3, 200)
	lie := func(r rawRecord, id ID) rawRecord {
		r.bases[0] = id
		return r
	}
	// The blob of the last record is read.
	tests := map[string]struct {
		records []rawRecord
		why     string
	}{
		"its own base":       {[]rawRecord{lie(dictRecord(t, 1, a, blob(b)), Sum(a))}, "its depth is 1"},
		"loop of two":        {[]rawRecord{dictRecord(t, 1, a, blob(b)), dictRecord(t, 2, b, blob(a))}, "its depth is 2"},
		"loop, same depth":   {[]rawRecord{dictRecord(t, 1, a, blob(b)), dictRecord(t, 1, b, blob(a))}, "its depth is 1"},
		"depth not more":     {[]rawRecord{rawBlob(c), dictRecord(t, 1, b, blob(c)), dictRecord(t, 1, a, blob(b))}, "its depth is 1"},
		"too deep":           {[]rawRecord{rawBlob(b), dictRecord(t, MaxDepth+1, a, blob(b))}, "record bases"},
		"bases, but depth 0": {[]rawRecord{rawBlob(b), dictRecord(t, 0, a, blob(b))}, "record bases"},
		"base is missing":    {[]rawRecord{dictRecord(t, 1, a, blob(b))}, "not found"},
		"base is another":    {[]rawRecord{rawBlob(c), lie(dictRecord(t, 1, slices.Concat(b, []byte("!")), blob(b)), Sum(c))}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := craft(t, dir, test.records...)
			refs, loc := number([]Pack{p}, 1)
			v := openView(t, dir, refs, loc)
			last := test.records[len(test.records)-1].blobs[0].id
			if _, err := v.Blob(t.Context(), last); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.why) {
				t.Errorf("error %v, want one with %q", err, test.why)
			}
			if found := verify(t, v, p.Name); found == nil {
				t.Error("not found by VerifyPack")
			}
		})
	}
}

func TestBasesTooLarge(t *testing.T) {
	dir := t.TempDir()
	half := make([]byte, MaxBases/2+1)
	other := slices.Clone(half)
	other[0] = 1
	r := dictRecord(t, 1, text(1, 300), blob(text(1, 200)))
	r.bases = []ID{Sum(half), Sum(other)}
	enc, err := newEncoders(LevelImport, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	record := func(b []byte) rawRecord {
		e, stored := enc.encode(b, false)
		return rawRecord{header{enc: e, plain: uint32(len(b)), blobs: []member{{Sum(b), uint32(len(b))}}}, stored}
	}
	p := craft(t, dir, record(half), record(other), r)
	refs, loc := number([]Pack{p}, 1)
	_, err = openView(t, dir, refs, loc).Blob(t.Context(), r.blobs[0].id)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "bases of") {
		t.Errorf("error %v", err)
	}
}

// The longest chain that the format allows is read.
func TestDeepestChain(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{})
	add(t, w, group(chainLink(0)))
	for i := range MaxDepth {
		g := group(chainLink(i + 1))
		g.Bases, g.Depth = []Blob{blob(chainLink(i))}, i
		add(t, w, g)
	}
	packs := finish(t, w)
	refs, loc := number(packs, 1)
	v, err := OpenView(dir, refs, loc, NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	checkBlob(t, v, chainLink(MaxDepth))
	if d, err := v.Depth(t.Context(), Sum(chainLink(MaxDepth))); err != nil || d != MaxDepth {
		t.Errorf("depth %d, %v", d, err)
	}
	if found := verify(t, v, packs[0].Name); found != nil {
		t.Errorf("found %v", found)
	}
	checkReleased(t, v.cache)
}

func chainLink(i int) []byte { return append(noise(0, 500), byte(i)) }

func TestConcurrentReaders(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, WriterOptions{MaxPack: 40 << 10})
	var blobs [][]byte
	for i := range 20 {
		g := group(text(i, 2000), noise(byte(i), 3000), text(100+i, 10))
		if i > 0 {
			g.Bases, g.Depth = []Blob{blob(noise(byte(i-1), 3000))}, (i-1)%MaxDepth
		}
		add(t, w, g)
		for _, b := range g.Blobs {
			blobs = append(blobs, b.Data)
		}
	}
	refs, loc := number(finish(t, w), 1)
	for _, limit := range []int64{0, 20 << 10, 1 << 20} {
		cache := NewCache(limit)
		var wg sync.WaitGroup
		for range 2 { // views that share the cache
			v, err := OpenView(dir, refs, loc, cache)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			for i := range 4 {
				wg.Go(func() {
					for j := range blobs {
						want := blobs[(j*(2*i+1)+i)%len(blobs)]
						if got, err := v.Blob(t.Context(), Sum(want)); err != nil || !bytes.Equal(got, want) {
							t.Errorf("blob of %d bytes: %v", len(want), err)
						}
					}
				})
			}
		}
		wg.Wait()
		if st := cache.Stats(); st.Bytes > limit {
			t.Errorf("the cache holds %d of %d bytes", st.Bytes, limit)
		}
		checkReleased(t, cache)
	}
}

// An asker that joins a decoding gets the bytes though the one that began it
// gives up.
func TestLoaderGivesUp(t *testing.T) {
	dir := t.TempDir()
	want := text(1, 5000)
	refs, loc := number(store(t, dir, group(want)), 1)
	for name, giveUp := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancel":   context.WithCancel,
		"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) { return newDeadline(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			v := openView(t, dir, refs, loc)
			for range cap(v.slots) {
				v.slots <- struct{}{} // so that the first asker has to wait
			}
			ctx, cancel := giveUp(t.Context())
			first, second := make(chan error), make(chan error)
			go func() {
				_, err := v.Blob(ctx, Sum(want))
				first <- err
			}()
			until(func() bool { return v.cache.Stats().Decodes == 1 })
			go func() {
				got, err := v.Blob(t.Context(), Sum(want))
				if err == nil && !bytes.Equal(got, want) {
					err = errors.New("wrong bytes")
				}
				second <- err
			}()
			until(func() bool { return v.cache.Stats().Shared == 1 })
			cancel()
			if err := <-first; err == nil {
				t.Error("the first asker got an answer")
			}
			for range cap(v.slots) {
				<-v.slots
			}
			if err := <-second; err != nil {
				t.Errorf("the second asker: %v", err)
			}
		})
	}
}

// deadline is a context that is over when it is told so.
type deadline struct {
	context.Context
	done chan struct{}
}

func newDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	d := &deadline{ctx, make(chan struct{})}
	return d, func() { close(d.done) }
}

func (d *deadline) Done() <-chan struct{}       { return d.done }
func (d *deadline) Deadline() (time.Time, bool) { return time.Time{}, true }

func (d *deadline) Err() error {
	select {
	case <-d.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestClosedView(t *testing.T) {
	dir := t.TempDir()
	refs, loc := number(store(t, dir, group(text(1, 50))), 1)
	v := openView(t, dir, refs, loc)
	v.Close()
	if _, err := v.Blob(t.Context(), Sum(text(1, 50))); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

func TestOpenPackRefuses(t *testing.T) {
	dir := t.TempDir()
	newer := appendPackHeader(nil)
	newer[8] = 2
	for name, test := range map[string]struct {
		bytes []byte
		want  error
	}{
		"empty":  {nil, ErrDamaged},
		"short":  {appendPackHeader(nil)[:15], ErrDamaged},
		"text":   {[]byte("this is no pack, is it?"), ErrDamaged},
		"newer":  {newer, ErrFormat},
		"a hole": {make([]byte, 1<<20), ErrDamaged},
	} {
		if err := os.WriteFile(filepath.Join(dir, name+Suffix), test.bytes, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenPack(dir, name); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenPack(dir, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}

func TestVerifyCancelled(t *testing.T) {
	dir := t.TempDir()
	var groups []Group
	for i := range 50 {
		groups = append(groups, group(text(i, 5000)))
	}
	packs := store(t, dir, groups...)
	refs, loc := number(packs, 1)
	v := openView(t, dir, refs, loc)
	ctx, cancel := context.WithCancel(t.Context())
	err := v.VerifyPack(ctx, refs[0], func(d Damage) { t.Errorf("found %v", d) }, func(int64, []Placed) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A record that nothing is read from any more, with a base that lies deeper by now, is no
// damage: gc removes it. One whose bytes have changed is.
func TestVerifyReplaced(t *testing.T) {
	dir := t.TempDir()
	base, data, other := text(1, 50_000), append(text(1, 40_000), "and more"...), append(text(1, 50_000), "of another"...)
	delta := group(data)
	delta.Bases = []Blob{blob(base)}
	old := store(t, dir, group(base), delta)
	deeper := group(base)
	deeper.Bases, deeper.Depth = []Blob{blob(other)}, 0
	now := store(t, dir, group(other), deeper, group(data))
	refs, loc := number(append(old, now...), 1)
	v := openView(t, dir, refs, loc)
	if r, err := v.Stored(Sum(base)); err != nil || r.Depth() != 1 {
		t.Fatalf("the base is not a delta itself: %v, %v", r, err)
	}
	for _, p := range []Pack{old[0], now[0]} {
		if found := verify(t, v, p.Name); len(found) > 0 {
			t.Errorf("damage %+v", found)
		}
	}
	b := readPack(t, dir, old[0].Name)
	b[len(b)-packTrailer-3] ^= 1
	if err := os.WriteFile(packPath(dir, old[0].Name), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if found := verify(t, openView(t, dir, refs, loc), old[0].Name); len(found) != 1 {
		t.Errorf("damage of what is replaced: %+v", found)
	}
}
