package index

import (
	"os"
	"path/filepath"
	"testing"

	"gofs/blobstore"
)

func blobID(data string) blobstore.ID { return blobstore.Sum([]byte(data)) }

func TestStats(t *testing.T) {
	s := newStore(t)
	a := content{"VERSION": "go1.22.0", "f": "a file", "g": "a file", "only/a": "four", "l": "-> f"}
	b := content{"VERSION": "go1.22.1", "f": "a file", "only/b": "seven.."}
	put(t, s, "1.22.0", a)
	put(t, s, "1.22.1", b)
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Files != 5+3 || st.Plain != (8+6+6+4)+(8+6+7) || st.FileDedup != 8+6+4+8+7 || st.BlobDedup != st.FileDedup {
		t.Errorf("%+v", st)
	}
	if st.Versions[0].Unique != 8+4 || st.Versions[1].Unique != 8+7 || st.Versions[0].Bytes != 24 {
		t.Errorf("%+v", st.Versions)
	}
	// 5 blobs of files, 2 trees, 2 descriptions.
	if st.Blobs != 9 || st.PackFiles != 2 || st.Unused != 0 {
		t.Errorf("%d blobs, %d packs, %d unused", st.Blobs, st.PackFiles, st.Unused)
	}
	checkSizes(t, s, st)

	// What gc would free is what stats call unused.
	put(t, s, "1.22.2", goLike(80, "x"))
	put(t, s, "1.22.3", goLike(80, "y"))
	remove(t, s, "1.22.2")
	if st, err = s.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkSizes(t, s, st)
	if r := collect(t, s, GCOptions{MaxUnused: 1}); r.Unused != st.Unused || st.Unused == 0 {
		t.Errorf("stats say %d unused, gc %d", st.Unused, r.Unused)
	}
	collect(t, s, GCOptions{})
	if st, err = s.Stats(t.Context()); err != nil || st.Unused != 0 {
		t.Errorf("%d unused after gc, %v", st.Unused, err)
	}
	checkSizes(t, s, st)
}

// checkSizes adds up the parts.
func checkSizes(t *testing.T, s *Store, st *Stats) {
	t.Helper()
	var packs, encodings, chains int64
	names, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		packs += fi.Size()
	}
	records := 0
	for _, e := range st.Encodings {
		encodings += e.Stored
		records += e.Records
	}
	for _, c := range st.Chains {
		chains += c.Stored
		records -= c.Records
	}
	const headAndTrailer = 40
	if st.Packs != packs || encodings != packs-headAndTrailer*int64(len(names)) || chains != encodings || records != 0 {
		t.Errorf("packs of %d bytes: stats say %d, encodings %d, chains %d", packs, st.Packs, encodings, chains)
	}
	fi, err := os.Stat(filepath.Join(s.Dir(), databaseFile))
	if err != nil || st.Index != fi.Size() {
		t.Errorf("index of %d bytes: stats say %d", fi.Size(), st.Index)
	}
	if size, err := folderSize(s.Dir()); err != nil || st.Store != size {
		t.Errorf("store of %d bytes: stats say %d", size, st.Store)
	}
}
