package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"slices"
	"strconv"
	"strings"
)

// dlBase is where the Go project publishes its releases, used where no module
// proxy is configured.
const dlBase = "https://go.dev/dl/"

// origin is a place that releases can be fetched from by name.
type origin interface {
	// releases lists what the origin names, in order. There may be more.
	releases(ctx context.Context) ([]Remote, error)
	// has tells whether there is a release, named or not.
	has(ctx context.Context, v, platform string) (bool, error)
	// open opens the release that n names. An error for which isRefused
	// holds says that there is none.
	open(ctx context.Context, n name) (Source, error)
}

// newOrigin is the origin that this machine is configured for.
func newOrigin(o Options) (origin, error) {
	list, err := parseProxies(GoEnv(o.Getenv, "GOPROXY"))
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return &downloads{o: o}, nil
	}
	return &proxies{list, o}, nil
}

// List names the releases that can be fetched, oldest first. A module proxy
// lists what it has seen, so there may be more than it names.
func List(ctx context.Context, o Options) ([]Remote, error) {
	o = o.withDefaults()
	from, err := newOrigin(o)
	if err != nil {
		return nil, err
	}
	list, err := from.releases(ctx)
	if err != nil {
		return nil, fmt.Errorf("list of Go releases: %w", err)
	}
	return list, nil
}

// openVersion fetches the release that req asks for.
func openVersion(ctx context.Context, arg string, req request, o Options) (Source, error) {
	from, err := newOrigin(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	if req.version == oldstable {
		if req, err = beforeNewest(ctx, from, req.platform); err != nil {
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
	}
	v := req.version
	if req.line() {
		if v, err = newest(ctx, from, req); err != nil {
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
		if v == "" {
			return nil, unknown(ctx, from, arg, req, "")
		}
	}
	src, err := from.open(ctx, name{label: arg, version: v, platform: req.platform})
	var labelled *labelledError
	switch {
	case err == nil:
		return src, nil
	case errors.As(err, &labelled):
		return nil, err
	case isRefused(err):
		reason := ""
		if !isAbsent(err) {
			reason = err.Error()
		}
		return nil, unknown(ctx, from, arg, request{v, req.platform}, reason)
	}
	return nil, fmt.Errorf("%s: %w", arg, err)
}

// newest finds the newest release of req's line, "" if there is none: the
// newest that the origin lists, then upward while the next one answers, for
// lists lag behind.
func newest(ctx context.Context, from origin, req request) (string, error) {
	list, err := from.releases(ctx)
	if err != nil {
		return "", err
	}
	var best, elsewhere string // for the platform, for any
	for _, r := range list {
		if !r.Stable || req.version != "" && !strings.HasPrefix(r.Version, req.version+".") {
			continue
		}
		elsewhere = r.Version
		if r.Platform == req.platform {
			best = r.Version
		}
	}
	if elsewhere != best {
		switch ok, err := from.has(ctx, elsewhere, req.platform); {
		case err != nil:
			return "", err
		case ok:
			best = elsewhere
		}
	}
	for {
		next, err := successor(ctx, from, best, req)
		if next == "" || err != nil {
			return best, err
		}
		best = next
	}
}

// beforeNewest asks for the minor before that of the newest release.
func beforeNewest(ctx context.Context, from origin, platform string) (request, error) {
	stable, err := newest(ctx, from, request{"", platform})
	if err != nil {
		return request{}, err
	}
	minor, _, ok := splitMinor(stable)
	if !ok || minor == 0 {
		return request{}, fmt.Errorf("no stable release for %s: %w", platform, ErrVersionUnknown)
	}
	return request{fmt.Sprintf("1.%d", minor-1), platform}, nil
}

// successor finds the release right after v, "" if there is none yet.
func successor(ctx context.Context, from origin, v string, req request) (string, error) {
	var next []string
	switch minor, patch, ok := splitMinor(v); {
	case v == "" && req.version != "":
		next = []string{req.version + ".0"}
	case !ok:
	case req.version != "":
		next = []string{fmt.Sprintf("%s.%d", req.version, patch+1)}
	default:
		next = []string{fmt.Sprintf("1.%d.%d", minor, patch+1), fmt.Sprintf("1.%d.0", minor+1)}
	}
	for _, v := range next {
		if ok, err := from.has(ctx, v, req.platform); ok || err != nil {
			return v, err
		}
	}
	return "", nil
}

// splitMinor gives 23 and 3 for "1.23.3".
func splitMinor(v string) (minor, patch int, ok bool) {
	parts := strings.Split(v, ".")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "1" {
		return 0, 0, false
	}
	minor, err := strconv.Atoi(parts[1])
	if err == nil && len(parts) == 3 {
		patch, err = strconv.Atoi(parts[2])
	}
	return minor, patch, err == nil
}

// unknown is the error for a version that is not there, with what is near.
func unknown(ctx context.Context, from origin, arg string, req request, reason string) error {
	msg := "go" + req.version + " for " + req.platform
	if req.version == "" {
		msg = "no stable release for " + req.platform
	}
	if reason != "" {
		msg += " (" + reason + ")"
	}
	if hint := near(ctx, from, req); hint != "" {
		msg += "; " + hint
	}
	return fail(arg, ErrVersionUnknown, "%s", msg)
}

// near finds something to offer instead of req. It is a courtesy: errors give
// no hint.
func near(ctx context.Context, from origin, req request) string {
	list, err := from.releases(ctx)
	if err != nil {
		return ""
	}
	var platforms, inLine []string
	line := strings.TrimPrefix(version.Lang("go"+req.version), "go") // "1.24" for "1.24rc1"
	for _, r := range list {
		if r.Version == req.version && r.Platform != req.platform {
			platforms = append(platforms, r.Platform)
		}
		if r.Platform == req.platform && (r.Version == line || strings.HasPrefix(r.Version, line+".") ||
			strings.HasPrefix(r.Version, line+"rc") || strings.HasPrefix(r.Version, line+"beta")) {
			inLine = append(inLine, r.Version)
		}
	}
	if len(platforms) > 0 {
		return "it is there for " + strings.Join(platforms, ", ")
	}
	if lineReq := (request{line, req.platform}); line != "" && lineReq.line() && line != req.version {
		if v, err := newest(ctx, from, lineReq); err == nil && v != "" {
			return "newest " + line + " is " + v
		}
	}
	if len(inLine) > 0 {
		return "newest " + line + " is " + inLine[len(inLine)-1]
	}
	if v, err := newest(ctx, from, request{"", req.platform}); err == nil && v != "" {
		return "newest is " + v
	}
	return ""
}

// downloads is the Go project's own download page.
type downloads struct {
	o    Options
	list []Remote
}

func (d *downloads) releases(ctx context.Context) ([]Remote, error) {
	if d.list != nil {
		return d.list, nil
	}
	data, err := fetchAll(ctx, d.o.dlBase+"?mode=json&include=all", d.o, maxReply)
	if err != nil {
		return nil, &proxyError{d.o.dlBase, err}
	}
	var releases []struct {
		Version string `json:"version"`
		Files   []struct {
			Filename, OS, Arch, SHA256, Kind string
			Size                             int64
		} `json:"files"`
	}
	if err := json.Unmarshal(data, &releases); err != nil {
		return nil, &proxyError{d.o.dlBase, fmt.Errorf("list of releases: %w", err)}
	}
	for _, r := range releases {
		for _, f := range r.Files {
			// The file's own name tells GOARCH=arm from what it is listed as.
			n := name{}
			n.claim(f.Filename)
			if f.Kind != "archive" || "go"+n.version != r.Version {
				continue
			}
			d.list = append(d.list, Remote{
				Version: n.version, Platform: n.platform, Stable: isStable(n.version),
				SHA256: strings.ToLower(f.SHA256), Size: f.Size, file: f.Filename,
			})
		}
	}
	slices.SortFunc(d.list, compareRemotes)
	return d.list, nil
}

func (d *downloads) find(ctx context.Context, v, platform string) (Remote, error) {
	list, err := d.releases(ctx)
	if err != nil {
		return Remote{}, err
	}
	i, ok := slices.BinarySearchFunc(list, Remote{Version: v, Platform: platform}, compareRemotes)
	if !ok {
		return Remote{}, errUnknown
	}
	return list[i], nil
}

func (d *downloads) has(ctx context.Context, v, platform string) (bool, error) {
	_, err := d.find(ctx, v, platform)
	if errors.Is(err, errUnknown) {
		return false, nil
	}
	return err == nil, err
}

func (d *downloads) open(ctx context.Context, n name) (Source, error) {
	r, err := d.find(ctx, n.version, n.platform)
	if err != nil {
		return nil, err
	}
	if !isSHA256(r.SHA256) {
		return nil, fail(n.label, ErrChecksum, "the list of releases has no SHA-256 for %s", r.file)
	}
	o := d.o
	if o.SHA256 != "" && o.SHA256 != r.SHA256 {
		return nil, fail(n.label, ErrChecksum, "SHA-256 of %s is %s, not %s", r.file, r.SHA256, o.SHA256)
	}
	o.SHA256 = r.SHA256
	n.origin = o.dlBase + r.file
	b, err := fetch(ctx, n.origin, o)
	if err != nil {
		return nil, err
	}
	o.Status("fetching " + n.origin)
	return openStream(ctx, newRaw(b, b.size, o), n, o)
}
