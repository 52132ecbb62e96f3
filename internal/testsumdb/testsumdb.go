// Package testsumdb serves a Go checksum database to tests, on the loopback
// interface and signed with a key of its own.
package testsumdb

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"

	"gofs/importer/source"
)

// Name is the database's.
const Name = "sumdb.example/db"

// Database is a checksum database. It lists as many other modules as fill
// more than a tile.
//
// Safe for concurrent use.
type Database struct {
	URL    string
	Key    string // that verifies
	signer string

	mu       sync.Mutex
	listed   map[module.Version]string // h1
	handler  http.Handler
	around   func(http.Handler) http.Handler
	requests []string
}

// New starts a database that lasts as long as the test.
func New(t testing.TB) *Database {
	t.Helper()
	signer, key, err := note.GenerateKey(nil, Name)
	if err != nil {
		t.Fatal(err)
	}
	d := &Database{Key: key, signer: signer}
	d.Restart(t, nil, nil)
	s := httptest.NewServer(http.HandlerFunc(d.serve))
	// Handlers that wait for their client to go must not be waited for.
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	d.URL = s.URL
	return d
}

// others is how many modules the database lists that no test asks for.
const others = 300

// Restart forgets all records and begins a second history with the same key:
// what a database never does. The modules first and last are around those
// that every history has.
func (d *Database) Restart(t testing.TB, first, last []string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listed = map[module.Version]string{}
	ops := sumdb.NewTestServer(d.signer, d.record)
	d.handler = sumdb.NewServer(ops)
	for i, path := range slices.Concat(first, slices.Repeat([]string{"other.example/module"}, others), last) {
		m := module.Version{Path: path, Version: fmt.Sprintf("v1.0.%d", i)}
		d.listed[m] = "h1:other"
		d.mu.Unlock() // record takes it
		_, err := ops.Lookup(t.Context(), m)
		d.mu.Lock()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// List lists a release.
func (d *Database) List(version, platform, h1 string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listed[source.Toolchain(version, platform)] = h1
}

// record is what the database has of a module when it is first asked for.
func (d *Database) record(path, version string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h1, ok := d.listed[module.Version{Path: path, Version: version}]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return fmt.Appendf(nil, "%[1]s %[2]s %[3]s\n%[1]s %[2]s/go.mod h1:mod\n", path, version, h1), nil
}

// Setting is the GOSUMDB that leads to the database.
func (d *Database) Setting() string { return d.Key + " " + d.URL }

// Around has what the database answers pass through another handler; nil ends
// that.
func (d *Database) Around(handler func(http.Handler) http.Handler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.around = handler
}

// Requests returns the paths that were asked for since it was last called.
func (d *Database) Requests() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.requests
	d.requests = nil
	return list
}

func (d *Database) serve(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.requests = append(d.requests, r.URL.Path)
	h, around := d.handler, d.around
	d.mu.Unlock()
	if around != nil {
		h = around(h)
	}
	h.ServeHTTP(w, r)
}

// ServeHTTP answers without a connection.
func (d *Database) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.serve(w, r) }
