package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/module"
)

// GoEnv finds the value of one of the go command's variables, "" if it has
// none: the environment's, else that of the user's env file (go env -w), else
// that of go.env in the GOROOT at hand.
func GoEnv(getenv func(string) string, key string) string {
	if v := getenv(key); v != "" {
		return v
	}
	var files []string
	switch file := getenv("GOENV"); {
	case file == "off":
	case file != "":
		files = append(files, file)
	case getenv("XDG_CONFIG_HOME") != "":
		files = append(files, filepath.Join(getenv("XDG_CONFIG_HOME"), "go", "env"))
	case getenv("HOME") != "":
		files = append(files, filepath.Join(getenv("HOME"), ".config", "go", "env"))
	}
	if root := getenv("GOROOT"); root != "" {
		files = append(files, filepath.Join(root, "go.env"))
	}
	for _, dir := range filepath.SplitList(getenv("PATH")) {
		// The real path: a link to bin/go, or to its folder, lies elsewhere.
		if bin, err := filepath.EvalSymlinks(filepath.Join(dir, "go")); dir != "" && err == nil {
			files = append(files, filepath.Join(filepath.Dir(bin), "..", "go.env"))
			break
		}
	}
	for _, file := range files {
		if v := envFile(file)[key]; v != "" {
			return v
		}
	}
	return ""
}

// envFile reads a file of KEY=VALUE lines as the go command does. One that is
// not there has no lines.
func envFile(name string) map[string]string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	env := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			env[key] = value
		}
	}
	return env
}

// proxy is one entry of GOPROXY.
type proxy struct {
	url      *url.URL // nil for "off"
	anyError bool     // followed by "|": the next is asked after any error
}

func (p proxy) String() string { return cleanURL(p.url) }

// proxies is a GOPROXY list: an origin of releases.
type proxies struct {
	list []proxy
	o    Options
}

// parseProxies takes GOPROXY apart. "direct" is left out: the toolchain
// module has no repository to be fetched from.
func parseProxies(value string) ([]proxy, error) {
	var list []proxy
	for value != "" {
		item, anyError := value, false
		if i := strings.IndexAny(value, ",|"); i >= 0 {
			item, anyError, value = value[:i], value[i] == '|', value[i+1:]
		} else {
			value = ""
		}
		switch item = strings.TrimSpace(item); item {
		case "", "direct":
			continue
		case "off":
			return append(list, proxy{}), nil
		}
		if !strings.Contains(item, ":/") {
			item = "https://" + item
		}
		u, err := url.Parse(item)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "file" ||
			u.Scheme == "file" && (u.Host != "" && u.Host != "localhost" || u.Path == "") ||
			u.Scheme != "file" && u.Host == "" {
			return nil, fmt.Errorf("GOPROXY: %q is no proxy's URL", redactURL(item))
		}
		list = append(list, proxy{u, anyError})
	}
	return list, nil
}

// try asks one proxy after the other by the rules of GOPROXY: after "," only
// where one answers that it does not have a thing, after "|" always.
func (ps *proxies) try(ctx context.Context, ask func(proxy) error) error {
	var worst error
	for _, p := range ps.list {
		if p.url == nil {
			if worst == nil {
				worst = ErrProxyOff
			}
			return worst
		}
		err := ask(p)
		if err == nil {
			return nil
		}
		err = &proxyError{p.String(), err}
		if ctx.Err() != nil {
			return err
		}
		if worst == nil || isAbsent(worst) {
			worst = err
		}
		if !p.anyError && !isAbsent(err) {
			return worst
		}
	}
	return worst
}

// proxyError says which proxy an error comes from.
type proxyError struct {
	proxy string
	err   error
}

func (e *proxyError) Error() string { return e.proxy + ": " + e.err.Error() }
func (e *proxyError) Unwrap() error { return e.err }

// isAbsent tells whether err is a proxy's word that it lacks a thing.
func isAbsent(err error) bool {
	var se *statusError
	return errors.As(err, &se) && (se.code == http.StatusNotFound || se.code == http.StatusGone) ||
		errors.Is(err, fs.ErrNotExist) || errors.Is(err, errUnknown)
}

// isRefused tells whether err means that a release cannot be had from a proxy
// that does answer. Some proxies say 403 or 400 where others say 404.
func isRefused(err error) bool {
	var se *statusError
	if errors.As(err, &se) {
		switch se.code {
		case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusTooManyRequests:
			return false
		}
		return se.code >= 400 && se.code < 500
	}
	return isAbsent(err)
}

// resource is the URL or, of a file proxy, the path of one of the module's
// files: "list", or a version's with its extension.
func (p proxy) resource(file string) string {
	escaped, err := module.EscapePath(modulePath)
	if err != nil {
		panic(err) // it is a constant
	}
	if p.url.Scheme == "file" {
		return filepath.Join(filepath.FromSlash(p.url.Path), escaped, "@v", file)
	}
	u := *p.url
	u.RawQuery, u.Fragment = "", ""
	return u.JoinPath(escaped, "@v", file).String()
}

func (ps *proxies) get(ctx context.Context, p proxy, file string) ([]byte, error) {
	if p.url.Scheme != "file" {
		return fetchAll(ctx, p.resource(file), ps.o, maxReply)
	}
	data, err := os.ReadFile(p.resource(file))
	if err != nil {
		return nil, bare(err)
	}
	return data, nil
}

func (ps *proxies) releases(ctx context.Context) ([]Remote, error) {
	var list []Remote
	err := ps.try(ctx, func(p proxy) error {
		data, err := ps.get(ctx, p, "list")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			rest, ok := strings.CutPrefix(word, modulePrefix)
			if !ok {
				continue
			}
			if v, platform, ok := splitRelease(rest); ok && rest == "go"+v+"."+platform {
				list = append(list, Remote{Version: v, Platform: platform, Stable: isStable(v), Size: -1})
			}
		}
		if len(list) == 0 {
			return errUnknown // the next one may know more
		}
		return nil
	})
	if err != nil && isAbsent(err) {
		err = nil
	}
	slices.SortFunc(list, compareRemotes)
	return slices.CompactFunc(list, func(a, b Remote) bool { return compareRemotes(a, b) == 0 }), err
}

func (ps *proxies) has(ctx context.Context, v, platform string) (bool, error) {
	file, err := module.EscapeVersion(moduleVersion(v, platform))
	if err != nil {
		return false, err
	}
	err = ps.try(ctx, func(p proxy) error {
		_, err := ps.get(ctx, p, file+".info")
		return err
	})
	if err != nil && isRefused(err) {
		return false, nil
	}
	return err == nil, err
}

func (ps *proxies) open(ctx context.Context, n name) (Source, error) {
	n.modVersion = moduleVersion(n.version, n.platform)
	n.origin = "proxy " + modulePath + "@" + n.modVersion
	file, err := module.EscapeVersion(n.modVersion)
	if err != nil {
		return nil, err
	}
	file += ".zip"
	var (
		f *os.File // of a file proxy
		b *body    // of any other
	)
	err = ps.try(ctx, func(p proxy) (err error) {
		if p.url.Scheme == "file" {
			f, err = os.Open(p.resource(file))
			return bare(err)
		}
		if b, err = fetch(ctx, p.resource(file), ps.o); err == nil {
			ps.o.Status(fmt.Sprintf("fetching go%s for %s from %s", n.version, n.platform, p))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var src Source
	if f != nil {
		src, err = openArchive(ctx, f, n, ps.o)
	} else {
		src, err = openStream(ctx, newRaw(b, b.size, ps.o), n, ps.o)
	}
	if err != nil {
		return nil, err
	}
	if src.Sequential() {
		src.Close()
		return nil, fail(n.label, ErrNotRelease, "what the proxy sent is no zip")
	}
	return src, nil
}
