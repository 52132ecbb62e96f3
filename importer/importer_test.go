package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"gofs/blobstore"
	"gofs/importer/source"
	"gofs/index"
)

func TestImport(t *testing.T) {
	for _, sequential := range []bool{true, false} {
		s := newStore(t)
		f := full("1.23.3")
		f.sequential = sequential
		r := imported(t, s, f, Options{})
		v := r.Version
		if v.Name != "1.23.3" || v.Release != "1.23.3" || v.Platform != index.HostPlatform() || v.Source != f.Origin() || v.Time != released.Unix() {
			t.Errorf("%+v", v)
		}
		if v.Files != 308 || v.Folders != 18 || r.Bytes != v.Bytes || r.New != v.New || r.New >= r.Bytes || r.Stored < 3<<20 || r.Existed {
			t.Errorf("%+v", r)
		}
		checkContents(t, s, "1.23.3", f)
		verified(t, s)

		again := full("1.23.3")
		err := error(nil)
		list := files(t, s)
		if r, err = Import(t.Context(), s, again, Options{}); err != nil || !r.Existed || r.New != 0 || r.Stored != 0 {
			t.Errorf("again: %+v, %v", r, err)
		}
		if now := files(t, s); !slices.Equal(now, list) {
			t.Errorf("importing again changed %v to %v", list, now)
		}
		same := imported(t, s, full("1.23.3"), Options{As: "mine"})
		if same.New != 0 || same.Version.Tree != v.Tree || same.Version.Name != "mine" || same.Version.Release != "1.23.3" || same.Stored > 2000 {
			t.Errorf("as another name: %+v", same)
		}
		next := full("1.23.4")
		r = imported(t, s, next, Options{})
		if r.New > 1<<20 || r.Stored > 1<<20 {
			t.Errorf("the next release: %+v", r)
		}
		checkContents(t, s, "1.23.4", next)
		checkContents(t, s, "mine", f)
		verified(t, s)
	}
}

// A tar stream and a source that is read at random make the same tree.
func TestTarStream(t *testing.T) {
	s := newStore(t)
	f := full("1.23.3")
	r := imported(t, s, stream(t, tarball(t, f)), Options{})
	checkContents(t, s, "1.23.3", f)
	other := newStore(t)
	slices.Reverse(f.entries)
	if q := imported(t, other, f, Options{}); q.Version.Tree != r.Version.Tree {
		t.Error("another tree")
	}
}

func TestExists(t *testing.T) {
	s := newStore(t)
	imported(t, s, full("1.23.3"), Options{})
	changed := full("1.23.3").add("src/extra.go", "package extra")
	err := unchanged(t, s, func() error {
		_, err := Import(t.Context(), s, changed, Options{})
		return err
	})
	if !errors.Is(err, index.ErrExists) || !strings.Contains(err.Error(), "--as") {
		t.Errorf("error %v", err)
	}
	imported(t, s, changed, Options{As: "1.23.3-x"})
	checkContents(t, s, "1.23.3-x", changed)
}

func TestIdentify(t *testing.T) {
	host := index.HostPlatform()
	bare := func(version string) *fake { return (&fake{label: "src"}).add("VERSION", version).add("bin/go", "x") }
	claims := func(f *fake, c string) *fake {
		f.claims = c
		return f
	}
	two := release("1.23.3", "plan9-mips").add("pkg/tool/"+strings.Replace(host, "-", "_", 1)+"/compile", "x")
	for name, test := range map[string]struct {
		src  *fake
		as   string
		want string // name, release, platform
		err  error
	}{
		"host":                  {release("1.23.3", host), "", "1.23.3 1.23.3 " + host, nil},
		"other platform":        {release("1.23.3", "plan9-mips"), "", "1.23.3.plan9-mips 1.23.3 plan9-mips", nil},
		"windows":               {release("1.23.3", "windows-386").add("pkg/tool/windows_386/compile.exe", "x"), "", "1.23.3.windows-386 1.23.3 windows-386", nil},
		"go.exe":                {(&fake{}).add("VERSION", "go1.23.3").add("bin/go.exe", "x").add("pkg/tool/windows_386/compile.exe", "x"), "", "1.23.3.windows-386 1.23.3 windows-386", nil},
		"two, one is the host":  {two, "", "1.23.3 1.23.3 " + host, nil},
		"two, one is claimed":   {claims(release("1.23.3", "plan9-mips").add("pkg/tool/aix_ppc/compile", "x"), "1.23.3 aix-ppc"), "", "1.23.3.aix-ppc 1.23.3 aix-ppc", nil},
		"no tools, claimed":     {claims(bare("go1.23.3"), "1.23.3 plan9-mips"), "", "1.23.3.plan9-mips 1.23.3 plan9-mips", nil},
		"no tools":              {bare("go1.23.3"), "", "", source.ErrNotRelease},
		"candidate":             {release("1.24rc1", host), "", "1.24rc1 1.24rc1 " + host, nil},
		"as":                    {release("1.23.3", host), "mine", "mine 1.23.3 " + host, nil},
		"as, bad":               {release("1.23.3", host), "../mine", "", index.ErrName},
		"as, mount's own":       {release("1.23.3", host), "latest", "", index.ErrName},
		"development":           {release("x", host).add("VERSION2", ""), "", "", nil},
		"development as":        {claims(release("1.23.3", host), ""), "tip", "tip 1.23.3 " + host, nil},
		"claims another one":    {claims(release("1.23.3", host), "1.23.4 "+host), "", "", source.ErrNotRelease},
		"claims other platform": {claims(release("1.23.3", host), "1.23.3 plan9-mips"), "", "", source.ErrNotRelease},
		"no VERSION":            {(&fake{}).add("bin/go", "x").add("pkg/tool/plan9_mips/compile", "x"), "", "", source.ErrNotRelease},
		"VERSION is a folder":   {release("1.23.3", host).without("VERSION").add("VERSION/", ""), "", "", source.ErrNotRelease},
		"VERSION is long":       {release("1.23.3"+strings.Repeat(" ", maxVersion), host), "", "", source.ErrNotRelease},
		"no go":                 {release("1.23.3", host).without("bin/go"), "", "", source.ErrNotRelease},
		"go is a link":          {release("1.23.3", host).without("bin/go").add("bin/go", "-> ../VERSION"), "", "", source.ErrNotRelease},
		"odd platform":          {bare("go1.23.3").add("pkg/tool/\x1b[31m_x/compile", "x"), "", "", source.ErrNotRelease},
		"nothing":               {&fake{}, "", "", source.ErrNotRelease},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			test.src.label = "src"
			if test.want == "" {
				err := unchanged(t, s, func() error {
					_, err := Import(t.Context(), s, test.src, Options{As: test.as})
					return err
				})
				if test.err != nil && !errors.Is(err, test.err) || strings.Count(err.Error(), "src: ") != 1 {
					t.Errorf("error %v", err)
				}
				return
			}
			v := imported(t, s, test.src, Options{As: test.as}).Version
			if got := v.Name + " " + v.Release + " " + v.Platform; got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
			checkContents(t, s, v.Name, test.src)
		})
	}
}

// without drops an entry.
func (f *fake) without(path string) *fake {
	f.entries = slices.DeleteFunc(f.entries, func(e fakeEntry) bool { return e.Path == path })
	return f
}

func TestVersionTime(t *testing.T) {
	s := newStore(t)
	f := release("1.23.3", index.HostPlatform()).without("VERSION").add("VERSION", "go1.23.3\ntime 2024-11-06T18:46:45Z\n")
	if v := imported(t, s, f, Options{}).Version; v.Time != 1730918805 {
		t.Errorf("time %d", v.Time)
	}
}

// Whatever goes wrong, the store is as it was and the error is one line.
func TestBrokenSources(t *testing.T) {
	s := newStore(t)
	imported(t, s, full("1.22.8"), Options{})
	bad := errors.New("src: it is broken")
	whole := tarball(t, full("1.23.3"))
	broken := func(f *fake) *fake {
		f.label = "src"
		return f
	}
	failing := func(n int64) func() io.Reader {
		return func() io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, n)), &brokenReader{bad}) }
	}
	sequential := broken(full("1.23.3").addStream("large", 5<<20, failing(3<<20)))
	sequential.sequential = true
	for name, test := range map[string]struct {
		src  source.Source
		want error
	}{
		"fails at its end":      {&fake{label: "src", entries: full("1.23.3").entries, end: bad}, bad},
		"a small file fails":    {broken(full("1.23.3").addStream("small", 1000, failing(500))), bad},
		"a large file fails":    {broken(full("1.23.3").addStream("large", 5<<20, failing(3<<20))), bad},
		"a large file, in turn": {sequential, bad},
		"twice":                 {broken(full("1.23.3").add("src/twice", "1").add("src/twice", "2")), index.ErrTree},
		"below a file":          {broken(full("1.23.3").add("VERSION/x", "1")), index.ErrTree},
		"cut":                   {stream(t, whole[:len(whole)/2]), source.ErrTruncated},
		"cut at the end":        {stream(t, whole[:len(whole)-1024]), source.ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			err := unchanged(t, s, func() error {
				_, err := Import(t.Context(), s, test.src, Options{})
				return err
			})
			if !errors.Is(err, test.want) || strings.Count(err.Error(), test.src.Label()+": ") != 1 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
		})
	}
	checkContents(t, s, "1.22.8", full("1.22.8"))
}

type brokenReader struct{ err error }

func (b *brokenReader) Read([]byte) (int, error) { return 0, b.err }

func TestCancelled(t *testing.T) {
	s := newStore(t)
	why := errors.New("the user pressed a key")
	for name, when := range map[string]func(f *fake, cancel func()){
		"before": func(_ *fake, cancel func()) { cancel() },
		"in a file": func(f *fake, cancel func()) {
			f.addStream("large", 4<<20, func() io.Reader {
				return io.MultiReader(gibberish(7, 2<<20, false), readerFunc(cancel), gibberish(8, 2<<20, false))
			})
		},
		"at the end": func(f *fake, cancel func()) {
			f.addStream("last", 1000, func() io.Reader { return io.MultiReader(readerFunc(cancel), gibberish(9, 1000, false)) })
		},
	} {
		for range 5 {
			f := full("1.23.3")
			f.sequential = true
			ctx, cancel := context.WithCancelCause(t.Context())
			when(f, func() { cancel(why) })
			err := unchanged(t, s, func() error {
				_, err := Import(ctx, s, f, Options{})
				return err
			})
			if !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// readerFunc is an empty reader that does something when it is read.
type readerFunc func()

func (f readerFunc) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func TestChunks(t *testing.T) {
	s := newStore(t)
	a := noise(1, 6<<20)
	b := slices.Concat(a[:3<<20], []byte("an insertion"), a[3<<20:])
	exact := noise(3, MaxSmall)
	f := full("1.23.3").add("a", string(a)).add("b", string(b)).add("exact", string(exact)).add("more", string(exact)+"x").add("zeros", string(make([]byte, 9<<20)))
	r := imported(t, s, f, Options{})
	checkContents(t, s, "1.23.3", f)
	if most := int64(3<<20 + 700<<10 + 8<<20 + 2*MaxSmall + 2*maxChunk); r.New > most {
		t.Errorf("%d new bytes: the insertion was not found", r.New)
	}
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	tree, err := snap.Tree(t.Context(), view, &snap.Versions[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range tree.Entries {
		e := &tree.Entries[i]
		blobs := tree.Blobs(e)
		if e.Size > 0 && e.Size <= MaxSmall != (len(blobs) == 1) {
			t.Errorf("%s has %d bytes and %d blobs", e.Name, e.Size, len(blobs))
		}
		for j, b := range blobs {
			if len(blobs) > 1 && (b.Length > maxChunk || b.Length < minChunk && j < len(blobs)-1) {
				t.Errorf("%s has a chunk of %d bytes", e.Name, b.Length)
			}
		}
	}
}

// Blobs of a pack that was lost are stored again by an import that needs them.
func TestLostPack(t *testing.T) {
	s := newStore(t)
	imported(t, s, full("1.22.8"), Options{})
	packs, _, err := blobstore.ListPacks(s.PackDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := blobstore.RemovePack(s.PackDir(), packs[0]); err != nil {
		t.Fatal(err)
	}
	imported(t, s, full("1.23.3"), Options{})
	checkContents(t, s, "1.23.3", full("1.23.3"))
	r, err := s.Verify(t.Context(), index.VerifyOptions{Versions: []string{"1.23.3"}})
	if err != nil || !r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTwoAtOnce(t *testing.T) {
	s := newStore(t)
	inside, waits := make(chan struct{}), make(chan struct{})
	first := full("1.22.8").addStream("last", 1, func() io.Reader {
		close(inside)
		<-waits
		return strings.NewReader("x")
	})
	first.sequential = true
	done := make(chan error)
	go func() {
		_, err := Import(context.Background(), s, first, Options{})
		done <- err
	}()
	<-inside
	if _, err := Import(t.Context(), s, full("1.23.3"), Options{NoWait: true}); !errors.Is(err, index.ErrLocked) {
		t.Errorf("without waiting: %v", err)
	}
	r := imported(t, s, full("1.23.3"), Options{Waiting: func(holder string) {
		if !strings.Contains(holder, fmt.Sprint("gofs import, process ", os.Getpid())) {
			t.Errorf("held by %q", holder)
		}
		close(waits)
	}})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if r.New > 1<<20 {
		t.Errorf("the second import did not see the first: %d new bytes", r.New)
	}
	checkContents(t, s, "1.23.3", full("1.23.3"))
	verified(t, s)
}

// The trees of releases are stored as what has changed, but not in a chain
// without end.
func TestTreeChain(t *testing.T) {
	s := newStore(t)
	want := map[string]*fake{}
	for i := range blobstore.MaxDepth + 3 {
		name := fmt.Sprint("1.22.", i)
		want[name] = release(name, index.HostPlatform())
		for j := range 100 {
			want[name].add(fmt.Sprintf("src/p/f%d.go", j), fmt.Sprint("package p", j))
		}
		imported(t, s, want[name], Options{})
	}
	st, err := s.Stats(t.Context())
	if err != nil || len(st.Chains) != blobstore.MaxDepth+1 || st.Unused != 0 {
		t.Errorf("%d chains, %d unused, %v", len(st.Chains), st.Unused, err)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		checkContents(t, s, name, want[name])
	}
}
