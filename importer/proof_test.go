package importer

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/dirhash"

	"gofs/blobstore"
	"gofs/importer/provenance"
	"gofs/importer/source"
	"gofs/index"
	"gofs/internal/testrelease"
	"gofs/internal/testsumdb"
)

// checksums is a client of db for imports into s.
func checksums(t *testing.T, s *index.Store, db *testsumdb.Database) *provenance.Database {
	t.Helper()
	d, err := provenance.Open(provenance.Options{Store: s.Dir(), Getenv: func(key string) string {
		return map[string]string{"GOENV": "off", "GOSUMDB": db.Setting()}[key]
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestProof(t *testing.T) {
	f := full("1.23.3")
	plain := &fake{label: f.label}
	for _, e := range f.entries {
		if e.Kind != source.Symlink {
			plain.entries = append(plain.entries, e)
		}
	}
	h1 := fingerprintOf(t, plain).H1
	vendor := release("1.23.3", index.HostPlatform())
	vendor.entries[0] = (&fake{}).add("VERSION", "go1.23.3 X:corp\n").entries[0]
	const proved = "sumdb " + testsumdb.Name
	for what, test := range map[string]struct {
		src        *fake
		listed     string // h1
		require    bool
		provenance string // "" where it must not be imported
		warning    string
		err        error
	}{
		"match":              {plain, h1, false, proved, "", nil},
		"match, required":    {plain, h1, true, proved, "", nil},
		"mismatch":           {plain, "h1:AAAA", false, "", "", provenance.ErrMismatch},
		"mismatch, required": {plain, "h1:AAAA", true, "", "", provenance.ErrMismatch},
		"link":               {f, h1, false, "", "", provenance.ErrMismatch},
		"unknown":            {plain, "", false, provenance.Unverified, "1.23.3 is unverified: go1.23.3 for " + index.HostPlatform() + " is not in the checksum database", nil},
		"unknown, required":  {plain, "", true, "", "", provenance.ErrUnknown},
		"vendor":             {vendor, h1, false, provenance.Unverified, "is unverified: its VERSION is none of the Go project's", nil},
		"vendor, required":   {vendor, h1, true, "", "", provenance.ErrForeign},
	} {
		t.Run(what, func(t *testing.T) {
			s, db := newStore(t), testsumdb.New(t)
			if test.listed != "" {
				db.List("1.23.3", index.HostPlatform(), test.listed)
			}
			o := Options{Checksums: checksums(t, s, db), Require: test.require}
			if test.provenance == "" {
				_, err := Import(t.Context(), s, test.src, o)
				if !errors.Is(err, test.err) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v", err)
				}
				if list, err := s.Versions(); err != nil || len(list) > 0 {
					t.Errorf("imported all the same: %v, %v", list, err)
				}
				if packs, err := os.ReadDir(s.PackDir()); err != nil || len(packs) > 0 {
					t.Errorf("packs %v, %v", packs, err)
				}
				verified(t, s)
				return
			}
			r := imported(t, s, test.src, o)
			if r.Version.Provenance != test.provenance || !strings.Contains(r.Warning, test.warning) || (r.Warning == "") != (test.warning == "") {
				t.Errorf("%+v", r)
			}
			if list, err := s.Versions(); err != nil || list[0].Provenance != test.provenance || test.src == plain && list[0].H1 != h1 {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
	t.Run("nobody asked", func(t *testing.T) {
		s := newStore(t)
		r := imported(t, s, plain, Options{})
		if r.Version.Provenance != provenance.Unverified || r.Version.H1 != h1 || r.Warning != "" {
			t.Errorf("%+v", r)
		}
	})
}

func fingerprintOf(t *testing.T, src source.Source) *Fingerprint {
	t.Helper()
	f, err := FingerprintOf(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The database is asked while the release is read: an import whose last file
// waits for the question comes to an end.
func TestProofMeanwhile(t *testing.T) {
	s, db := newStore(t), testsumdb.New(t)
	plain := release("1.23.3", index.HostPlatform()).add("zzz", "last")
	db.List("1.23.3", index.HostPlatform(), fingerprintOf(t, plain).H1)
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	db.Around(func(h http.Handler) http.Handler { once(); return h })
	f := release("1.23.3", index.HostPlatform())
	f.sequential = true
	f.addStream("zzz", 4, func() io.Reader { waitFor(t, asked); return strings.NewReader("last") })
	r := imported(t, s, f, Options{Checksums: checksums(t, s, db), Require: true})
	if !provenance.Proved(&r.Version) {
		t.Errorf("%+v", r)
	}
}

// An import that fails or is given up does not wait for a database that is
// mute, and leaves nobody waiting.
func TestProofGivenUp(t *testing.T) {
	s, db := newStore(t), testsumdb.New(t)
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	gone := make(chan struct{})
	db.Around(func(http.Handler) http.Handler {
		once()
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(gone) })
	})
	f := release("1.23.3", index.HostPlatform())
	f.sequential = true
	broken := errors.New("broken")
	f.addStream("zzz", 4, func() io.Reader { waitFor(t, asked); return failingReader{broken} })
	d, err := provenance.Open(provenance.Options{Store: s.Dir(), Timeout: time.Hour, Getenv: func(key string) string {
		return map[string]string{"GOENV": "off", "GOSUMDB": db.Setting()}[key]
	}})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := Import(t.Context(), s, f, Options{Checksums: d}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if took := time.Since(begin); took > 30*time.Second { // a download is given up after a minute
		t.Errorf("it took %v", took)
	}
	waitFor(t, gone)
}

// waitFor waits for what happens at once in a sound program.
func waitFor(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Error("it does not happen")
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// What was imported unproved can be proved from the store alone, and a store
// that was tampered with cannot.
func TestProve(t *testing.T) {
	s, db := newStore(t), testsumdb.New(t)
	plain := release("1.23.3", index.HostPlatform()).add("src/go.mod", "module std\n").add("doc/x", "text").
		add("pkg/tool/large", string(noise(1, 3<<20))).add("empty", "")
	r := imported(t, s, plain, Options{})
	db.List("1.23.3", index.HostPlatform(), r.Version.H1)
	d := checksums(t, s, db)
	prove := func(v index.Version) error {
		snap, view, err := s.OpenView(blobstore.NewCache(1 << 20))
		if err != nil {
			t.Fatal(err)
		}
		defer view.Close()
		tree, err := snap.Tree(t.Context(), view, &v)
		if err != nil {
			return err
		}
		_, err = d.Prove(t.Context(), tree, view, &v)
		return err
	}
	if err := prove(r.Version); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*index.Version){
		"release":  func(v *index.Version) { v.Release = "1.23.4" },
		"h1":       func(v *index.Version) { v.H1 = "h1:AAAA" },
		"platform": func(v *index.Version) { v.Platform, v.H1 = "plan9-386", "" },
	} {
		v := r.Version
		change(&v)
		if err := prove(v); !errors.Is(err, provenance.ErrMismatch) && !errors.Is(err, provenance.ErrUnknown) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	packs, err := filepath.Glob(filepath.Join(s.PackDir(), "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	b, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1 // in the large file
	if err := os.WriteFile(packs[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := prove(r.Version); !errors.Is(err, blobstore.ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
}

// A release has one fingerprint, whatever it comes as and wherever it lies.
func TestFingerprint(t *testing.T) {
	f := full("1.23.3")
	f.add("bin/tool.exe", "tool")
	want := fingerprintOf(t, f)
	if want.Version != "1.23.3" || want.Platform != index.HostPlatform() || want.H1 != "" || !strings.HasSuffix(want.String(), " -") {
		t.Errorf("%s", want)
	}
	s := newStore(t)
	imported(t, s, full("1.22.8"), Options{})
	r := imported(t, s, f, Options{As: "mine"})
	if got := fingerprintStored(t, s, "mine"); *got != *want || r.Version.H1 != "" {
		t.Errorf("stored: %s, want %s", got, want)
	}
	if got := fingerprintOf(t, stream(t, tarball(t, f))); *got != *want {
		t.Errorf("tarball: %s, want %s", got, want)
	}
	for what, change := range map[string]func(*fake){
		"content": func(f *fake) { f.add("more", "1") },
		"name":    func(f *fake) { f.add("more2", "0") },
		"mode":    func(f *fake) { f.add("more", "0"); f.entries[len(f.entries)-1].Mode = 0o755 },
		"nothing": func(f *fake) { f.add("more", "0") },
		"umask":   func(f *fake) { f.add("more", "0"); f.entries[len(f.entries)-1].Mode = 0o600 },
	} {
		base, g := full("1.23.3"), full("1.23.3")
		base.add("more", "0")
		change(g)
		equal := *fingerprintOf(t, base) == *fingerprintOf(t, g)
		if equal != (what == "nothing" || what == "umask") {
			t.Errorf("another %s: equal is %v", what, equal)
		}
	}
}

func fingerprintStored(t *testing.T, s *index.Store, name string) *Fingerprint {
	t.Helper()
	snap, view, err := s.OpenView(blobstore.NewCache(1 << 20))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	v, ok := snap.Find(name)
	if !ok {
		t.Fatalf("no version %s", name)
	}
	f, err := FingerprintStored(t.Context(), snap, view, v)
	if err != nil {
		t.Fatal(err)
	}
	// As it is for versions of a gofs that knew no h1.
	w := *v
	w.H1 = ""
	g, err := FingerprintStored(t.Context(), snap, view, &w)
	if err != nil || *g != *f {
		t.Errorf("computed anew %s, want %s, %v", g, f, err)
	}
	return f
}

// The h1 of a real release is the one that the Go checksum database has
// signed, from the tarball as from the module.
func TestRealH1(t *testing.T) {
	const version, signed = "1.22.8", "h1:sJePZPqqnwpRH8RGjomeVBwFJW3QuQ8i85HCBzxanXE="
	file := testrelease.Zip(t, version)
	if h1, err := dirhash.HashZip(file, dirhash.Hash1); err != nil || h1 != signed {
		t.Fatalf("the module has %s, %v", h1, err)
	}
	for _, name := range []string{file, testrelease.Tarball(t, version)} {
		src, err := source.Open(t.Context(), name, source.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f := fingerprintOf(t, src)
		src.Close()
		if f.H1 != signed || f.Version != version || f.Platform != testrelease.Platform {
			t.Errorf("%s: %s", name, f)
		}
	}
}

// A release that was imported unproved is proved when it is imported again,
// and nothing else changes.
func TestProvedLater(t *testing.T) {
	s, db := newStore(t), testsumdb.New(t)
	plain := release("1.23.3", index.HostPlatform()).add("src/go.mod", "module std\n")
	before := imported(t, s, plain, Options{}).Version
	generation, _ := s.Generation()
	again := Options{Checksums: checksums(t, s, db)}
	if r := imported(t, s, plain, again); !r.Existed || r.Proved || r.Warning == "" || provenance.Proved(&r.Version) {
		t.Errorf("unknown: %+v", r)
	}
	if n, _ := s.Generation(); n != generation {
		t.Errorf("generation %d, before %d", n, generation)
	}
	db.List("1.23.3", index.HostPlatform(), before.H1)
	if r := imported(t, s, plain, again); !r.Existed || !r.Proved || r.Warning != "" || !provenance.Proved(&r.Version) {
		t.Errorf("listed: %+v", r)
	}
	if r := imported(t, s, plain, again); !r.Existed || r.Proved || !provenance.Proved(&r.Version) {
		t.Errorf("once more: %+v", r)
	}
	// Later words do not unprove it, nor does nobody's.
	if r := imported(t, s, plain, Options{}); !r.Existed || r.Proved || !provenance.Proved(&r.Version) {
		t.Errorf("nobody asked: %+v", r)
	}
	collect(t, s)
	list, err := s.Versions()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	after := list[0]
	if after.Imported != before.Imported || after.Tree != before.Tree || after.Source != before.Source {
		t.Errorf("%+v, before %+v", after, before)
	}
	checkContents(t, s, "1.23.3", plain)
	verified(t, s)
}
