package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// unmounted is a file system that only the benchmark asks.
func unmounted(b *testing.B, content files) *rawFS {
	b.Helper()
	store := newStore(b)
	add(b, store, "1.22.8", content)
	s, err := newServer(store, Options{}, past{Started: time.Now()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.closeViews)
	return newRawFS(s)
}

func manyFiles(n int) files {
	content := files{}
	for i := range n {
		content[fmt.Sprintf("src/p%03d/f%02d.go", i/30, i%30)] = file{data: pseudo(i, 4000), mode: 0o644}
	}
	content["bin/go"] = file{data: pseudo(1<<20, 2<<20), mode: 0o755}
	return content
}

func lookup(b *testing.B, r *rawFS, path ...string) (out fuse.EntryOut) {
	b.Helper()
	out.NodeId = rootNode
	for _, name := range path {
		h := fuse.InHeader{NodeId: out.NodeId}
		out = fuse.EntryOut{}
		if st := r.Lookup(nil, &h, name, &out); !st.Ok() || out.NodeId == 0 {
			b.Fatal(name, st)
		}
	}
	return out
}

func BenchmarkLookup(b *testing.B) {
	r := unmounted(b, manyFiles(9000))
	h := fuse.InHeader{NodeId: lookup(b, r, "1.22.8", "src", "p150").NodeId}
	b.ReportAllocs()
	for b.Loop() {
		var out fuse.EntryOut
		if st := r.Lookup(nil, &h, "f15.go", &out); !st.Ok() || out.NodeId == 0 {
			b.Fatal(st)
		}
	}
}

func BenchmarkGetAttr(b *testing.B) {
	r := unmounted(b, manyFiles(9000))
	in := fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: lookup(b, r, "1.22.8", "src", "p150", "f15.go").NodeId}}
	b.ReportAllocs()
	for b.Loop() {
		var out fuse.AttrOut
		if st := r.GetAttr(nil, &in, &out); !st.Ok() {
			b.Fatal(st)
		}
	}
}

func BenchmarkReadDirPlus(b *testing.B) {
	r := unmounted(b, manyFiles(9000))
	in := fuse.ReadIn{InHeader: fuse.InHeader{NodeId: lookup(b, r, "1.22.8", "src", "p150").NodeId}}
	buf := make([]byte, 32<<10)
	b.ReportAllocs()
	for b.Loop() {
		if st := r.ReadDirPlus(nil, &in, fuse.NewDirEntryList(buf, 0)); !st.Ok() {
			b.Fatal(st)
		}
	}
}

// BenchmarkRead reads what is decoded already: 4 KB files and 128 KiB of a
// large one.
func BenchmarkRead(b *testing.B) {
	r := unmounted(b, manyFiles(9000))
	for _, bench := range []struct {
		name string
		in   fuse.ReadIn
	}{
		{"4K", fuse.ReadIn{InHeader: fuse.InHeader{NodeId: lookup(b, r, "1.22.8", "src", "p150", "f15.go").NodeId}, Size: 4096}},
		{"128K", fuse.ReadIn{InHeader: fuse.InHeader{NodeId: lookup(b, r, "1.22.8", "bin", "go").NodeId}, Size: 128 << 10, Offset: 1 << 20}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				res, st := r.Read(nil, &bench.in, nil)
				if !st.Ok() {
					b.Fatal(st)
				}
				n = res.Size()
				res.Done()
			}
			b.SetBytes(int64(n))
		})
	}
}

// BenchmarkLoad reads the tree of a version of 9,000 files, which the first
// lookup below it waits for.
func BenchmarkLoad(b *testing.B) {
	r := unmounted(b, manyFiles(9000))
	rel := r.now.Load().releases[0]
	for b.Loop() {
		fresh := &release{version: rel.version, snap: rel.snap}
		if _, err := r.load(fresh); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMount mounts a store of 200 versions and lists it.
func BenchmarkMount(b *testing.B) {
	store := newStore(b)
	content := manyFiles(3000)
	delete(content, "bin/go")
	for i := range 200 {
		content["VERSION"] = file{data: fmt.Sprint(i), mode: 0o644}
		add(b, store, fmt.Sprintf("1.%d.%d", i/10, i%10), content)
	}
	dir := b.TempDir()
	for b.Loop() {
		start := time.Now()
		s, err := Mount(b.Context(), store, dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) < 200 {
			b.Fatal(len(list), err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "ms/mount+ls")
		if _, err := os.ReadFile(filepath.Join(dir, "latest", "VERSION")); err != nil {
			b.Fatal(err)
		}
		if err := s.Unmount(); err != nil {
			b.Fatal(err)
		}
	}
}
