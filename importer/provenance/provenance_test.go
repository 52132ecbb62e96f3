package provenance

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb"

	"gofs/internal/testsumdb"
)

const (
	version  = "1.23.3"
	platform = "linux-amd64"
	signed   = "h1:3z236NEVvQYeOLSuZ/t0Y612gjFZPep9Q38UVYhO67E="
)

// env is an environment with nothing in it but these.
func env(pairs ...string) func(string) string {
	return func(key string) string {
		if i := slices.Index(pairs, key); i >= 0 {
			return pairs[i+1]
		}
		return map[string]string{"GOENV": "off"}[key]
	}
}

// listing is a database that lists the release.
func listing(t *testing.T) *testsumdb.Database {
	t.Helper()
	db := testsumdb.New(t)
	db.List(version, platform, signed)
	return db
}

func open(t *testing.T, o Options) *Database {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// client is a client of db that keeps its cache in store.
func clientOf(t *testing.T, db *testsumdb.Database, store string) *Database {
	t.Helper()
	return open(t, Options{Store: store, Getenv: env("GOSUMDB", db.Setting())})
}

func TestCheck(t *testing.T) {
	db := listing(t)
	d := clientOf(t, db, t.TempDir())
	foreign := errors.New("a link")
	for _, test := range []struct {
		version, platform, h1 string
		foreign               error
		want                  error
	}{
		{version, platform, signed, nil, nil},
		{version, platform, "h1:AAAA", nil, ErrMismatch},
		{version, platform, "", foreign, foreign},
		{version, platform, signed, foreign, ErrMismatch},
		{version, "linux-arm64", signed, nil, ErrUnknown},
		{"1.23.4", platform, signed, nil, ErrUnknown},
	} {
		err := d.Check(t.Context(), test.version, test.platform, test.h1, test.foreign)
		if !errors.Is(err, test.want) {
			t.Errorf("%+v: %v", test, err)
		}
		checkLine(t, err)
	}
	if d.Name() != testsumdb.Name || d.Proof() != "sumdb "+testsumdb.Name {
		t.Errorf("%s, %s", d.Name(), d.Proof())
	}
}

// checkLine checks that an error is one line for a person.
func checkLine(t *testing.T, err error) {
	t.Helper()
	if err != nil && (strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 500) {
		t.Errorf("not a line: %q", err)
	}
}

// What is proved once is proved again without the network, also by another
// process.
func TestCache(t *testing.T) {
	db, store := listing(t), t.TempDir()
	if h1, err := clientOf(t, db, store).Lookup(t.Context(), version, platform); h1 != signed || err != nil {
		t.Fatal(h1, err)
	}
	if len(db.Requests()) == 0 {
		t.Error("nothing was asked")
	}
	if h1, err := clientOf(t, db, store).Lookup(t.Context(), version, platform); h1 != signed || err != nil {
		t.Error(h1, err)
	}
	if r := db.Requests(); len(r) > 0 {
		t.Errorf("asked again: %v", r)
	}
}

// cached lists the files of the cache but the lock.
func cached(t *testing.T, store string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(filepath.Join(store, cacheFolder), func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && e.Name() != cacheLock {
			list = append(list, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A damaged cache never proves anything; all but the tree head is fetched anew.
func TestDamagedCache(t *testing.T) {
	db, whole := listing(t), t.TempDir()
	if _, err := clientOf(t, db, whole).Lookup(t.Context(), version, platform); err != nil {
		t.Fatal(err)
	}
	files := cached(t, whole)
	if len(files) < 4 {
		t.Fatalf("cache: %v", files)
	}
	for _, file := range files {
		plain, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head := filepath.Base(file) == "latest"
		flipped := bytes.Clone(plain)
		flipped[len(flipped)/2] ^= 1
		for what, data := range map[string][]byte{
			"flipped": flipped, "cut": plain[:len(plain)/2], "empty": {}, "long": bytes.Repeat(plain, 1+maxCached/len(plain)),
		} {
			store := t.TempDir()
			if err := os.CopyFS(store, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(whole, file)
			if err := os.WriteFile(filepath.Join(store, rel), data, 0o644); err != nil {
				t.Fatal(err)
			}
			h1, err := clientOf(t, db, store).Lookup(t.Context(), version, platform)
			checkLine(t, err)
			if head && what != "empty" {
				if !errors.Is(err, ErrDatabase) || !strings.Contains(err.Error(), rel+": ") {
					t.Errorf("%s %s: %q, %v", what, rel, h1, err)
				}
				continue
			}
			if h1 != signed || err != nil {
				t.Errorf("%s %s: %q, %v", what, rel, h1, err)
			}
			if head {
				continue
			}
			if again, err := os.ReadFile(filepath.Join(store, rel)); err != nil || !bytes.Equal(again, plain) {
				t.Errorf("%s %s was not mended: %v", what, rel, err)
			}
		}
	}
}

// A store that cannot be written to serves for looking up.
func TestNoCache(t *testing.T) {
	store := t.TempDir()
	if err := os.WriteFile(filepath.Join(store, cacheFolder), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h1, err := clientOf(t, listing(t), store).Lookup(t.Context(), version, platform)
	if !errors.Is(err, ErrDatabase) || h1 != "" { // what it knows of the past is lost
		t.Errorf("%s, %v", h1, err)
	}
	if err := os.Remove(filepath.Join(store, cacheFolder)); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(store, "gone")
	if h1, err := clientOf(t, listing(t), gone).Lookup(t.Context(), version, platform); h1 != signed || err != nil {
		t.Errorf("%s, %v", h1, err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store was made: %v", err)
	}
}

// lying has answers to some paths changed.
func lying(prefix string, change func([]byte) []byte) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			if strings.HasPrefix(r.URL.Path, prefix) {
				body = change(body)
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(body) // the client may have gone
		})
	}
}

// Nothing that the database's key has not signed proves anything.
func TestLies(t *testing.T) {
	other := testsumdb.New(t)
	other.List(version, platform, "h1:AAAA")
	for what, test := range map[string]struct {
		prefix string
		change func([]byte) []byte
	}{
		"record": {"/lookup/", func(b []byte) []byte { return bytes.Replace(b, []byte(signed), []byte("h1:AAAA"), 1) }},
		"number of the record": {"/lookup/", func(b []byte) []byte {
			return append([]byte("7"), b[bytes.IndexByte(b, '\n'):]...)
		}},
		"tree head": {"/lookup/", func(b []byte) []byte {
			return bytes.Replace(b, []byte("go.sum database tree\n301\n"), []byte("go.sum database tree\n299\n"), 1)
		}},
		"signature of another key": {"/lookup/", func([]byte) []byte {
			r := httptest.NewRecorder()
			other.ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/lookup/golang.org/toolchain@v0.0.1-go"+version+"."+platform, nil))
			return r.Body.Bytes()
		}},
		"no signature":   {"/lookup/", func(b []byte) []byte { return b[:bytes.Index(b, []byte("\n\n—"))+2] }},
		"tile":           {"/tile/", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		"tile of zeros":  {"/tile/", func(b []byte) []byte { return make([]byte, len(b)) }},
		"cut record":     {"/lookup/", func(b []byte) []byte { return b[:len(b)/3] }},
		"cut tree head":  {"/lookup/", func(b []byte) []byte { return b[:len(b)-20] }},
		"cut tile":       {"/tile/", func(b []byte) []byte { return b[:len(b)-1] }},
		"empty record":   {"/lookup/", func([]byte) []byte { return nil }},
		"empty tile":     {"/tile/", func([]byte) []byte { return nil }},
		"page of a wall": {"/", func([]byte) []byte { return []byte("<html>\x1b[31msign in\n</html>") }},
	} {
		t.Run(what, func(t *testing.T) {
			db, store := listing(t), t.TempDir()
			db.Around(lying(test.prefix, test.change))
			h1, err := clientOf(t, db, store).Lookup(t.Context(), version, platform)
			if !errors.Is(err, ErrDatabase) || h1 != "" {
				t.Errorf("%q, %v", h1, err)
			}
			checkLine(t, err)
			// Nor does it leave anything behind that stands in the way of the truth.
			db.Around(nil)
			if h1, err := clientOf(t, db, store).Lookup(t.Context(), version, platform); h1 != signed || err != nil {
				t.Errorf("afterwards: %q, %v", h1, err)
			}
		})
	}
}

// A database that has signed two histories is found out, and not forgiven.
func TestTwoHistories(t *testing.T) {
	for what, test := range map[string]struct {
		before      []string // releases that were looked up
		first, last []string
		proved      bool // by the two heads; else it no longer serves the first history
	}{
		"last record": {[]string{version, "1.22.0", "1.22.1"}, nil, []string{"another.example/last"}, true},
		"all records": {[]string{version, "1.22.0", "1.22.1"}, []string{"another.example/first"}, nil, true},
		"fewer":       {[]string{version, "1.22.0", "1.22.1"}, nil, nil, true},
		"not served":  {[]string{version}, []string{"another.example/first"}, nil, false},
	} {
		t.Run(what, func(t *testing.T) {
			db, store := listing(t), t.TempDir()
			for _, v := range test.before {
				db.List(v, platform, signed)
				if _, err := clientOf(t, db, store).Lookup(t.Context(), v, platform); err != nil {
					t.Fatal(err)
				}
			}
			folder := filepath.Join(store, cacheFolder, testsumdb.Name)
			head, err := os.ReadFile(filepath.Join(folder, "latest"))
			if err != nil {
				t.Fatal(err)
			}
			db.Restart(t, test.first, test.last)
			db.List("1.24.0", platform, "h1:AAAA")
			h1, err := clientOf(t, db, store).Lookup(t.Context(), "1.24.0", platform)
			if !errors.Is(err, ErrDatabase) || h1 != "" || strings.Contains(err.Error(), "two histories") != test.proved {
				t.Errorf("%q, %v", h1, err)
			}
			checkLine(t, err)
			proof, err := os.ReadFile(filepath.Join(folder, "contradiction"))
			if (err == nil) != test.proved || test.proved && !bytes.Contains(proof, []byte("go.sum database tree")) {
				t.Errorf("proof %q, %v", proof, err)
			}
			if after, err := os.ReadFile(filepath.Join(folder, "latest")); err != nil || !bytes.Equal(after, head) {
				t.Errorf("the tree head is %q, %v", after, err)
			}
		})
	}
}

// A mirror that lags behind has the same history.
func TestOldTree(t *testing.T) {
	db, store := listing(t), t.TempDir()
	db.List("1.24.0", platform, "h1:AAAA")
	var old []byte
	db.Around(lying("/lookup/", func(b []byte) []byte { old = b; return b }))
	if _, err := clientOf(t, db, t.TempDir()).Lookup(t.Context(), version, platform); err != nil {
		t.Fatal(err)
	}
	db.Around(nil)
	if _, err := clientOf(t, db, store).Lookup(t.Context(), "1.24.0", platform); err != nil {
		t.Fatal(err)
	}
	db.Around(lying("/lookup/", func([]byte) []byte { return old }))
	if h1, err := clientOf(t, db, store).Lookup(t.Context(), version, platform); h1 != signed || err != nil {
		t.Errorf("%q, %v", h1, err)
	}
}

// huge answers far more than any database has.
func huge(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b := bytes.Repeat([]byte("12345678\n"), 8<<10)
		for range 1000 {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
}

// mute never answers.
func mute(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// stalled answers a few bytes and no more.
func stalled(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("7\ngolang.org"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

func failing(status int) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no\nanswer", status) })
	}
}

func TestUnreachable(t *testing.T) {
	for what, around := range map[string]func(http.Handler) http.Handler{
		"huge": huge, "mute": mute, "stalled": stalled,
		"500": failing(500), "403": failing(403), "429": failing(429),
		"hangs up": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		},
	} {
		t.Run(what, func(t *testing.T) {
			db := listing(t)
			db.Around(around)
			// The timeout is what those need that never answer.
			timeout := 200 * time.Millisecond
			if what != "mute" && what != "stalled" {
				timeout = time.Minute
			}
			d := open(t, Options{Store: t.TempDir(), Timeout: timeout, Getenv: env("GOSUMDB", db.Setting())})
			h1, err := d.Lookup(t.Context(), version, platform)
			if !errors.Is(err, ErrUnreachable) || h1 != "" {
				t.Errorf("%q, %v", h1, err)
			}
			checkLine(t, err)
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := httptest.NewServer(nil)
		s.Close()
		d := open(t, Options{Store: t.TempDir(), Getenv: env("GOSUMDB", testsumdb.New(t).Key+" "+s.URL)})
		if _, err := d.Lookup(t.Context(), version, platform); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	})
	for _, code := range []int{404, 410} {
		db := listing(t)
		db.Around(failing(code))
		if _, err := clientOf(t, db, t.TempDir()).Lookup(t.Context(), version, platform); !errors.Is(err, ErrUnknown) {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// After one lookup without an answer there is only the cache.
func TestSilent(t *testing.T) {
	db, store := listing(t), t.TempDir()
	if _, err := clientOf(t, db, store).Lookup(t.Context(), version, platform); err != nil {
		t.Fatal(err)
	}
	db.Around(mute)
	d := open(t, Options{Store: store, Timeout: 100 * time.Millisecond, Getenv: env("GOSUMDB", db.Setting())})
	if _, err := d.Lookup(t.Context(), "1.24.0", platform); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	db.Requests()
	if _, err := d.Lookup(t.Context(), "1.24.1", platform); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	if h1, err := d.Lookup(t.Context(), version, platform); h1 != signed || err != nil {
		t.Error(h1, err)
	}
	if r := db.Requests(); len(r) > 0 {
		t.Errorf("asked for %v", r)
	}
}

// A lookup that is given up returns at once, with the reason.
func TestCancelled(t *testing.T) {
	db := listing(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("interrupted")
	db.Around(func(h http.Handler) http.Handler { cancel(reason); return mute(h) })
	if _, err := clientOf(t, db, t.TempDir()).Lookup(ctx, version, platform); err != reason {
		t.Error(err)
	}
}

// web is an internet of one database and one proxy.
type web struct {
	db    *testsumdb.Database
	asked []string // hosts
	mu    sync.Mutex
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.asked = append(w.asked, r.URL.Host)
	w.mu.Unlock()
	rec := httptest.NewRecorder()
	host, path := r.URL.Host, r.URL.Path
	below, found := strings.CutPrefix(path, "/sumdb/"+testsumdb.Name)
	switch {
	case host == "down.example":
		return nil, errors.New("no route")
	case host == "plain.example": // a proxy without databases
		http.NotFound(rec, r)
	case host == "proxy.example" && found && below == "/supported":
	case host == "proxy.example" && found, host == "sumdb.example" && strings.HasPrefix(path, "/db/"), host == "mirror.example":
		if !found {
			below = strings.TrimPrefix(path, "/db")
		}
		r = r.Clone(r.Context())
		r.URL.Path = below
		w.db.ServeHTTP(rec, r)
	default:
		http.NotFound(rec, r)
	}
	return rec.Result(), nil
}

// Which database is asked and how to get there, as the go command decides.
func TestSettings(t *testing.T) {
	db := listing(t)
	for _, test := range []struct {
		env   []string
		asked string // last host
		want  error
	}{
		{[]string{"GOSUMDB", db.Key}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "direct"}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "https://proxy.example"}, "proxy.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "https://plain.example,https://proxy.example,direct"}, "proxy.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "https://plain.example,direct"}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "https://plain.example"}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "https://down.example,https://proxy.example"}, "down.example", ErrUnreachable},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "https://down.example|https://proxy.example"}, "proxy.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "direct,https://proxy.example"}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "off"}, "", ErrSwitchedOff},
		{[]string{"GOSUMDB", db.Key, "GOPROXY", "https://plain.example,off"}, "plain.example", ErrSwitchedOff},
		{[]string{"GOSUMDB", db.Key + " https://mirror.example/db", "GOPROXY", "off"}, "mirror.example", nil},
		{[]string{"GOSUMDB", "off", "GOPROXY", "https://proxy.example"}, "", ErrSwitchedOff},
		{[]string{"GOSUMDB", db.Key, "GONOSUMDB", "golang.org/toolchain"}, "", ErrSwitchedOff},
		{[]string{"GOSUMDB", db.Key, "GONOSUMDB", "corp.example,*.org"}, "", ErrSwitchedOff},
		{[]string{"GOSUMDB", db.Key, "GOPRIVATE", "*"}, "", ErrSwitchedOff},
		{[]string{"GOSUMDB", db.Key, "GOPRIVATE", "*", "GONOSUMDB", "corp.example"}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOPRIVATE", "corp.example"}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GONOPROXY", "*"}, "sumdb.example", nil},
		{[]string{"GOSUMDB", db.Key, "GOFLAGS", "-mod=vendor"}, "sumdb.example", nil},
		// The default database, whose key nobody here has.
		{nil, "sum.golang.org", ErrUnknown},
		{[]string{"GOSUMDB", "sum.golang.org"}, "sum.golang.org", ErrUnknown},
		{[]string{"GOSUMDB", "mirror.example"}, "mirror.example", ErrDatabase},
	} {
		w := &web{db: db}
		d := open(t, Options{Store: t.TempDir(), Getenv: env(test.env...), Client: &http.Client{Transport: w}})
		h1, err := d.Lookup(t.Context(), version, platform)
		if !errors.Is(err, test.want) || (h1 == signed) != (err == nil) {
			t.Errorf("%v: %q, %v", test.env, h1, err)
		}
		checkLine(t, err)
		if last := append([]string{""}, w.asked...); last[len(last)-1] != test.asked {
			t.Errorf("%v: asked %v", test.env, w.asked)
		}
	}
	for _, bad := range []string{
		"a b c", "sumdb.example+1234+AAAA", "+", db.Key + " not-a-url", db.Key + " ftp://sumdb.example", "../../etc", "sumdb.example/../x",
		"user:secret@sumdb.example", db.Key + " https://user:secret@\x7f/",
	} {
		_, err := Open(Options{Store: t.TempDir(), Getenv: env("GOSUMDB", bad)})
		if err == nil || !strings.Contains(err.Error(), "GOSUMDB") || strings.Contains(err.Error(), "secret") {
			t.Errorf("GOSUMDB=%q: %v", bad, err)
		}
		checkLine(t, err)
	}
}

// Many processes share the cache of a store.
func TestManyClients(t *testing.T) {
	db, store := listing(t), t.TempDir()
	var names []string
	for i := range 8 {
		names = append(names, "1.24."+string(rune('0'+i)))
		db.List(names[i], platform, "h1:"+names[i])
	}
	var wg sync.WaitGroup
	for i := range 16 {
		d := clientOf(t, db, store)
		wg.Go(func() {
			for j := range names {
				v := names[(i+j)%len(names)]
				if h1, err := d.Lookup(t.Context(), v, platform); h1 != "h1:"+v || err != nil {
					t.Errorf("%s: %q, %v", v, h1, err)
				}
			}
		})
	}
	wg.Wait()
	for _, name := range cached(t, store) {
		if strings.HasSuffix(name, newSuffix) {
			t.Errorf("left behind: %s", name)
		}
	}
}

// The cache does not follow links out of the store.
func TestCacheLinks(t *testing.T) {
	store, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(store, cacheFolder)); err != nil {
		t.Fatal(err)
	}
	_, err := clientOf(t, listing(t), store).Lookup(t.Context(), version, platform)
	checkLine(t, err)
	if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
		t.Errorf("written outside the store: %v, %v", list, err)
	}
}

// Of two that replace the tree head, one must look again.
func TestReplace(t *testing.T) {
	c := &cache{t.TempDir()}
	if err := c.replace(t.Context(), "db/latest", nil, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := c.replace(t.Context(), "db/latest", nil, []byte("two")); !errors.Is(err, sumdb.ErrWriteConflict) {
		t.Error(err)
	}
	if b, err := c.read("db/latest"); err != nil || string(b) != "one" {
		t.Errorf("%q, %v", b, err)
	}
	if err := c.replace(t.Context(), "db/latest", []byte("one"), []byte("two")); err != nil {
		t.Error(err)
	}
}
