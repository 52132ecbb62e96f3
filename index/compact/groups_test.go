package compact

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gofs/blobstore"
	"gofs/index"
)

// A group has no more blobs than a record may have, however small they are.
func TestGroupsOfTiny(t *testing.T) {
	w := &work{}
	var items []index.Item
	for i := range blobstore.MaxGroup + 5000 {
		data := fmt.Sprint(i)
		items = append(items, index.Item{Path: fmt.Sprintf("test/%d/f%d.go", i/1000, i), Mode: 0o644, Size: int64(len(data)),
			Blobs: []index.Ref{{ID: blobstore.Sum([]byte(data)), Length: uint32(len(data))}}})
	}
	_, tree := treeOf(t, items)
	w.release = &release{tree: tree}
	_ = tree.Walk(func(path string, e *index.Entry) error {
		if e.Kind == index.File {
			w.small = append(w.small, file{path, e})
		}
		return nil
	})
	c := &compaction{}
	c.opts.defaults()
	e := &encoder{round: &round{c: c}, work: w}
	n := 0
	for _, g := range e.gather() {
		if len(g.blobs) > blobstore.MaxGroup {
			t.Errorf("a group of %d blobs", len(g.blobs))
		}
		n += len(g.blobs)
	}
	if n != len(items) {
		t.Errorf("%d blobs of %d", n, len(items))
	}
}

// A base that many files of a group have is read and stored once.
func TestGroupsShareBases(t *testing.T) {
	s, want := newStore(t), map[string]content{}
	text := functions(5, "base")
	for _, name := range []string{"1.22.1", "1.22.0"} {
		want[name] = makeRelease(t, name)
		for i := range 40 {
			want[name][fmt.Sprintf("test/f%d.go", i)] = text
			if name == "1.22.0" {
				want[name][fmt.Sprintf("test/f%d.go", i)] += fmt.Sprint("// ", i)
			}
		}
		put(t, s, name, want[name])
	}
	run(t, s, Options{})
	_, _, rec := packOf(t, s, want["1.22.0"]["test/f7.go"])
	bases := rec.Bases()
	slices.SortFunc(bases, func(a, b blobstore.ID) int { return slices.Compare(a[:], b[:]) })
	if len(bases) == 0 || len(slices.Compact(slices.Clone(bases))) != len(bases) {
		t.Errorf("%d bases, of which %d differ", len(bases), len(slices.Compact(slices.Clone(bases))))
	}
	check(t, s, want)
}

// What has changed its path is no base of what is encoded together with it.
func TestRenamed(t *testing.T) {
	s, want := newStore(t), map[string]content{}
	k := "package p\n" + strings.Repeat("// what was in a.go is in b.go now\n", 300)
	for _, name := range []string{"1.22.0", "1.23.0"} {
		want[name] = makeRelease(t, name)
	}
	want["1.22.0"]["src/p/a.go"] = k
	want["1.23.0"]["src/p/a.go"] = k + "// new\n"
	want["1.23.0"]["src/p/b.go"] = k
	for _, name := range []string{"1.22.0", "1.23.0"} {
		put(t, s, name, want[name])
	}
	run(t, s, Options{})
	run(t, s, Options{Quick: []string{"1.22.0", "1.23.0"}})
	run(t, s, Options{Quick: []string{}})
	for name := range want {
		if got, shared := quickly(t, s, name); len(got)+shared > 0 {
			t.Errorf("%s: quick are still %q and %d parts", name, got, shared)
		}
	}
	check(t, s, want)
}

func TestRebaseRenamed(t *testing.T) {
	s, want := newStore(t), map[string]content{}
	add := func(name string, files map[string]string) {
		want[name] = makeRelease(t, name)
		for p, f := range files {
			want[name][p] = f
		}
		put(t, s, name, want[name])
	}
	k := functions(1, "k")
	add("1.22.2", map[string]string{"src/q/a_test.go": functions(1, "gone a"), "src/q/b_test.go": functions(1, "gone b")})
	add("1.22.1", map[string]string{"src/q/a_test.go": functions(1, "m"), "src/q/b_test.go": k})
	add("1.22.0", map[string]string{"src/q/a_test.go": k})
	run(t, s, Options{})
	remove(t, s, "1.22.2")
	delete(want, "1.22.2")
	if r := run(t, s, Options{Rebase: true}); r.Bases > 0 || r.Records == 0 {
		t.Errorf("%d bytes are kept as bases of a release that is gone, %d records were made anew", r.Bases, r.Records)
	}
	check(t, s, want)
}
