// Package provenance proves that a release is what the Go project released,
// by the Go checksum database.
//
// The database lists every version of every public module with a hash of its
// files (h1), in a log that its key signs and that can only grow. Releases
// are modules too: golang.org/toolchain@v0.0.1-goVERSION.GOOS-GOARCH, which
// cmd/distpack makes of the same files as the tarball. It leaves out api,
// doc, misc and test and calls every go.mod _go.mod. So the h1 can be
// computed from a tarball, a folder or the blobs of a store, and looked up.
//
// The h1 covers names and contents of files. What it does not cover: modes,
// empty folders, and the four folders that are left out.
package provenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"

	"gofs/importer/source"
	"gofs/index"
)

// What callers tell apart.
var (
	// ErrMismatch is returned for files that the database has another hash for.
	ErrMismatch = errors.New("not what the Go project released")
	// ErrUnknown is returned for a release that the database does not list.
	ErrUnknown = errors.New("not in the checksum database")
	// ErrUnreachable is returned where the database gives no answer in time.
	ErrUnreachable = errors.New("the checksum database cannot be reached")
	// ErrSwitchedOff is returned where the configuration says not to ask.
	ErrSwitchedOff = errors.New("the checksum database is switched off")
	// ErrDatabase is returned for an answer that the database's signed tree
	// does not prove, and where the database contradicts itself.
	ErrDatabase = errors.New("the checksum database cannot be trusted")
)

// The database that the go command uses where GOSUMDB names none. Where it is
// reached is GOPROXY's business, or follows from the name.
const (
	defaultName = "sum.golang.org"
	defaultKey  = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
)

// DefaultTimeout bounds a lookup, and all lookups together that get no answer.
const DefaultTimeout = 10 * time.Second

// Unverified is what index.Version.Provenance says where nothing was proved.
const Unverified = "unverified"

// Proved tells whether a version was proved when it was imported.
func Proved(v *index.Version) bool { return strings.HasPrefix(v.Provenance, proofPrefix) }

const proofPrefix = "sumdb "

// Options say how to get at the checksum database. Only Store must be given.
type Options struct {
	Store   string              // folder of the store, which keeps the cache
	Timeout time.Duration       // of a lookup, DefaultTimeout if 0
	Client  *http.Client        // used for its transport and jar; if nil, one that honours $HTTPS_PROXY
	Getenv  func(string) string // os.Getenv if nil
}

// Database is the checksum database that this machine is configured for.
//
// Safe for concurrent use.
type Database struct {
	name     string
	key      string
	remote   *source.SumDB
	cache    *cache
	timeout  time.Duration
	off      string // why it is not to be asked at all, "" if it is
	patterns string // of modules that it is not to be asked for

	// silent is set once a lookup ran out of time. From then on there is only
	// the cache: many lookups together wait no longer than one.
	silent atomic.Bool
}

// Open finds the database that the go command would use: GOSUMDB, GONOSUMDB
// and GOPRIVATE from the environment, the go env file or go.env. It asks
// nobody yet.
func Open(o Options) (*Database, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	d := &Database{name: defaultName, key: defaultKey, timeout: o.Timeout, cache: &cache{store: o.Store}}
	if d.timeout <= 0 {
		d.timeout = DefaultTimeout
	}
	d.patterns = source.GoEnv(o.Getenv, "GONOSUMDB")
	if d.patterns == "" {
		d.patterns = source.GoEnv(o.Getenv, "GOPRIVATE")
	}
	address := ""
	switch fields := strings.Fields(source.GoEnv(o.Getenv, "GOSUMDB")); {
	case len(fields) > 2:
		return nil, errors.New("GOSUMDB has more than two fields")
	case len(fields) == 1 && fields[0] == "off":
		d.off = "GOSUMDB=off"
	case len(fields) > 0:
		if strings.Contains(fields[0], "+") {
			v, err := note.NewVerifier(fields[0])
			if err != nil {
				return nil, fmt.Errorf("GOSUMDB: %w", err)
			}
			d.name, d.key = v.Name(), fields[0]
		} else if fields[0] != defaultName {
			// The go command knows other addresses of the same database by
			// their names alone. The key makes any host as good as those.
			if _, err := source.NewSumDB(fields[0], "", source.Options{}); err != nil {
				return nil, err
			}
			address = "https://" + fields[0]
		}
		if len(fields) == 2 {
			address = fields[1]
		}
	}
	var err error
	d.remote, err = source.NewSumDB(d.name, address, source.Options{Client: o.Client, Getenv: o.Getenv})
	return d, err
}

// Name is the database's, as in "sum.golang.org".
func (d *Database) Name() string { return d.name }

// Proof is what index.Version.Provenance says of a release that the database
// has proved.
func (d *Database) Proof() string { return proofPrefix + d.name }

// Lookup returns the h1 of a release that the database has signed. The error
// is ErrUnknown, ErrUnreachable, ErrSwitchedOff, ErrDatabase, or that of ctx.
func (d *Database) Lookup(ctx context.Context, version, platform string) (string, error) {
	m := source.Toolchain(version, platform)
	if d.off != "" {
		return "", fmt.Errorf("%w by %s", ErrSwitchedOff, d.off)
	}
	if module.MatchPrefixPatterns(d.patterns, m.Path) {
		return "", fmt.Errorf("%w for toolchains by GONOSUMDB or GOPRIVATE", ErrSwitchedOff)
	}
	limited, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	h1, err := d.lookup(limited, m, true)
	if errors.Is(err, errCache) {
		// What lies in the cache may be damaged; what comes fresh replaces it.
		h1, err = d.lookup(limited, m, false)
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		if limited.Err() != nil {
			d.silent.Store(true)
		}
		return "", d.explain(err, version, platform)
	}
	return h1, nil
}

// Check compares the h1 of a release's files with what the database has
// signed; besides the errors of Lookup there is ErrMismatch. The error of
// Files.H1 goes in as foreign.
func (d *Database) Check(ctx context.Context, version, platform, h1 string, foreign error) error {
	signed, err := d.Lookup(ctx, version, platform)
	if err != nil {
		return err
	}
	return d.Compare(version, platform, h1, foreign, signed)
}

// Compare is Check for a signed h1 that was looked up before.
func (d *Database) Compare(version, platform, h1 string, foreign error, signed string) error {
	switch {
	case foreign != nil:
		return fmt.Errorf("%w: go%s for %s: %w", ErrMismatch, version, platform, foreign)
	case h1 != signed:
		return fmt.Errorf("%w: its files make %s, %s has signed %s for go%s for %s", ErrMismatch, h1, d.name, signed, version, platform)
	}
	return nil
}

// errCache marks an answer that is not proved but came from the cache.
var errCache = errors.New("from the cache")

// lookup asks once, of the cache too if it may.
func (d *Database) lookup(ctx context.Context, m module.Version, cached bool) (string, error) {
	ops := &client{ctx: ctx, d: d, cached: cached}
	lines, err := sumdb.NewClient(ops).Lookup(m.Path, m.Version)
	prefix := m.Path + " " + m.Version + " "
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix+"h1:") })
	if err == nil && i >= 0 {
		return strings.TrimPrefix(lines[i], prefix), nil
	}
	ops.mu.Lock()
	defer ops.mu.Unlock()
	switch {
	case ops.contradiction != nil:
		return "", ops.contradiction
	case ctx.Err() != nil:
		return "", fmt.Errorf("no answer within %v: %w", d.timeout, ErrUnreachable)
	case ops.local != nil:
		return "", ops.local
	case errors.Is(ops.lookupErr, fs.ErrNotExist):
		return "", ErrUnknown
	case ops.remoteErr != nil:
		return "", ops.remoteErr
	case err == nil:
		err = errors.New("the record has no h1")
	}
	if ops.hits > 0 {
		return "", errCache
	}
	// The text of the client goes on with what the server sent, on many lines.
	text, _, _ := bytes.Cut([]byte(strings.TrimPrefix(err.Error(), m.Path+"@"+m.Version+": ")), []byte("\n"))
	return "", fmt.Errorf("%s: %.160q: %w", d.name, text, ErrDatabase)
}

// explain sorts an error into those that Lookup promises.
func (d *Database) explain(err error, version, platform string) error {
	switch {
	case errors.Is(err, source.ErrProxyOff):
		return fmt.Errorf("%w by GOPROXY=off", ErrSwitchedOff)
	case errors.Is(err, ErrUnknown):
		return fmt.Errorf("go%s for %s is %w %s", version, platform, ErrUnknown, d.name)
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrDatabase):
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, d.name, err)
}
