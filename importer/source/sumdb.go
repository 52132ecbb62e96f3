package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxAnswer bounds an answer of a checksum database, in bytes. A tile has 8 KiB.
const maxAnswer = 1 << 20

// SumDB is the way to a checksum database: through the first module proxy
// that offers it, else directly, by the rules of GOPROXY. What it brings is
// to be trusted only as far as the database's signature proves it.
//
// Safe for concurrent use.
type SumDB struct {
	name    string
	direct  *url.URL // where it lies by its name
	address *url.URL // asked instead, without a look at the proxies, if not nil
	o       Options

	mu   sync.Mutex
	base *proxy // below which the database lies, once it is known
}

// NewSumDB returns the way to the database with a name, which is a host and
// perhaps a path. The database is asked at address, unless that is "".
func NewSumDB(name, address string, o Options) (*SumDB, error) {
	direct, err := url.Parse("https://" + name)
	if err != nil || direct.Host == "" || *direct != (url.URL{Scheme: "https", Host: direct.Host, Path: direct.Path}) ||
		!filepath.IsLocal(name) || filepath.Clean(name) != name {
		return nil, errors.New("GOSUMDB does not begin with the name or the key of a database") // it may hold a password
	}
	d := &SumDB{name: name, direct: direct, o: o.withDefaults()}
	if address != "" {
		if d.address, err = url.Parse(address); err != nil || !web(d.address) && d.address.Scheme != "file" {
			return nil, fmt.Errorf("GOSUMDB: %s is no database's URL", short(redactURL(address)))
		}
	}
	return d, nil
}

func web(u *url.URL) bool { return (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" }

// Read fetches what the database has at a path such as /lookup/M@V. An
// error for which errors.Is(err, fs.ErrNotExist) is the database's word that
// it has nothing there; ErrProxyOff says that nobody was asked.
func (d *SumDB) Read(ctx context.Context, path string) ([]byte, error) {
	base, err := d.find(ctx)
	if err != nil {
		return nil, err
	}
	data, err := d.get(ctx, base, path)
	if err != nil && isAbsent(err) {
		return nil, &plainError{err.Error(), fs.ErrNotExist}
	}
	return data, err
}

// find finds out how to get to the database.
func (d *SumDB) find(ctx context.Context) (proxy, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.base != nil {
		return *d.base, nil
	}
	base, err := d.search(ctx)
	if err == nil {
		d.base = &base
	}
	return base, err
}

func (d *SumDB) search(ctx context.Context) (proxy, error) {
	if d.address != nil {
		return proxy{url: d.address}, nil
	}
	list, err := parseProxies(untilDirect(GoEnv(d.o.Getenv, "GOPROXY")))
	if err != nil {
		return proxy{}, err
	}
	for _, p := range list {
		if p.url == nil {
			// The go command would go to the database itself now; here "off"
			// means that nothing is fetched from anywhere.
			return proxy{}, ErrProxyOff
		}
		base := proxy{url: p.url.JoinPath("sumdb", d.name)}
		_, err := d.get(ctx, base, "supported")
		if err == nil {
			return base, nil
		}
		if ctx.Err() != nil || !p.anyError && !isAbsent(err) {
			return proxy{}, &proxyError{p.String(), err}
		}
	}
	return proxy{url: d.direct}, nil
}

// untilDirect is the part of a GOPROXY list before "direct".
func untilDirect(list string) string {
	for at := 0; at < len(list); {
		end := len(list)
		if i := strings.IndexAny(list[at:], ",|"); i >= 0 {
			end = at + i
		}
		if strings.TrimSpace(list[at:end]) == "direct" {
			return list[:at]
		}
		at = end + 1
	}
	return list
}

func (d *SumDB) get(ctx context.Context, base proxy, path string) ([]byte, error) {
	u := *base.url
	u.RawQuery, u.Fragment = "", ""
	at := u.JoinPath(path)
	if at.Scheme != "file" {
		return fetchAll(ctx, at.String(), d.o, maxAnswer)
	}
	name := filepath.FromSlash(at.Path)
	if fi, err := os.Stat(name); err == nil && (!fi.Mode().IsRegular() || fi.Size() > maxAnswer) {
		return nil, fmt.Errorf("%s is no answer of a database", short(name))
	}
	data, err := os.ReadFile(name)
	return data, bare(err)
}
