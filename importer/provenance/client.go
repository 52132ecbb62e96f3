package provenance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

// client is what a sumdb.Client has of the world, for one lookup. The sumdb
// package turns errors into text, so what callers tell apart is kept here.
type client struct {
	ctx    context.Context // sumdb's methods take none
	d      *Database
	cached bool // the cache may be read

	mu            sync.Mutex
	hits          int    // files that came from the cache
	latest        []byte // tree head that could not be written
	lookupErr     error  // of the record
	remoteErr     error  // the first of any other
	local         error  // of the tree head in the store
	contradiction error  // the database has signed two histories
}

var _ sumdb.ClientOps = (*client)(nil)

var errSilent = errors.New("it gave no answer in time before")

func (c *client) ReadRemote(path string) ([]byte, error) {
	b, err := []byte(nil), errSilent
	if !c.d.silent.Load() {
		b, err = c.d.remote.Read(c.ctx, path)
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case strings.HasPrefix(path, "/lookup/"):
			c.lookupErr = err
			fallthrough
		case c.remoteErr == nil:
			c.remoteErr = err
		}
	}
	return b, err
}

// ReadConfig returns the key, or the newest tree head that was seen so far.
func (c *client) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(c.d.key), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest != nil {
		return c.latest, nil
	}
	b, err := c.d.cache.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = c.signed(b)
	}
	if err != nil {
		c.local = fmt.Errorf("%s: %w: %w (remove it to begin anew, which forgets what the database has signed so far)",
			c.d.cache.path(file), err, ErrDatabase)
		return nil, c.local
	}
	return b, nil
}

// signed checks a tree head of the cache before sumdb does, to name the file.
func (c *client) signed(head []byte) error {
	if len(head) == 0 {
		return nil
	}
	v, err := note.NewVerifier(c.d.key)
	if err != nil {
		return err
	}
	if _, err := note.Open(head, note.VerifierList(v)); err != nil {
		return errors.New("this tree head is not signed by the database's key")
	}
	return nil
}

// WriteConfig stores a newer tree head. Who may not write to the store keeps
// it for this lookup only.
func (c *client) WriteConfig(file string, old, head []byte) error {
	err := c.d.cache.replace(c.ctx, file, old, head)
	if err == nil || errors.Is(err, sumdb.ErrWriteConflict) || c.ctx.Err() != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = head
	return nil
}

func (c *client) ReadCache(file string) ([]byte, error) {
	if !c.cached {
		return nil, fs.ErrNotExist
	}
	b, err := c.d.cache.read(file)
	if err == nil && len(b) == 0 {
		err = fs.ErrNotExist // a crash came between its name and its bytes
	}
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.hits++
	}
	return b, err
}

// WriteCache stores a record or a tile once it is proved. What cannot be
// stored is fetched again.
func (c *client) WriteCache(file string, data []byte) { _ = c.d.cache.write(c.ctx, file, data) }

func (c *client) Log(string) {}

// SecurityError takes the proof that the database has signed two histories.
func (c *client) SecurityError(proof string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	file := c.d.name + "/contradiction"
	where := ""
	if c.d.cache.write(c.ctx, file, []byte(proof)) == nil {
		where = " (the proof is in " + c.d.cache.path(file) + ")"
	}
	c.contradiction = fmt.Errorf("%w: %s has signed two histories that contradict each other%s", ErrDatabase, c.d.name, where)
}
