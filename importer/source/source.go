// Package source turns what a user names (a tarball, zip, folder, URL or
// version) into a checked stream of a release's files.
//
// Everything outside is hostile until checked here: what Walk yields has a
// clean path inside the tree, appears once, and is a file, a folder or a link
// that stays inside. What only the end of an archive can tell (its checksum,
// its end marker, where links lead) is an error of Walk itself, so a caller
// publishes nothing before Walk has returned nil.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Kind says what an Entry is.
type Kind uint8

const (
	File Kind = iota
	Dir
	Symlink
)

func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "folder"
	case Symlink:
		return "symbolic link"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Entry is one name of a release's tree.
type Entry struct {
	Path    string // slash-separated, relative to GOROOT, clean, never "", "." or escaping
	Kind    Kind
	Mode    uint32 // permission bits only, at most 0o777
	Size    int64  // of a File, exact: its reader yields as many bytes or an error
	Target  string // of a Symlink
	ModTime time.Time
}

// Opener opens the content of a File. The reader checks before it hands out
// the last byte: who has read Size bytes without an error has read the right
// ones, as far as the archive can tell. Of other kinds it is nil.
type Opener func() (io.ReadCloser, error)

// Source is one release about to be read.
type Source interface {
	// Label names the source in messages: what the user typed, without
	// credentials.
	Label() string
	// Origin is what to record as "imported from": an absolute path, a URL
	// without credentials and query, "proxy MODULE@VERSION", or "-".
	Origin() string
	// Size is the length of the archive in bytes, -1 if it is not known.
	Size() int64
	// Read is how many bytes of it have been read so far. It may be called
	// at any time from any goroutine.
	Read() int64
	// Release is the release that the source's name claims it is: version
	// as in "1.23.3", platform as in "linux-amd64".
	Release() (version, platform string, known bool)
	// Module is the toolchain module whose zip this is.
	Module() (path, version string, ok bool)
	// Sequential says that content passes by once: an Opener must be called
	// and its reader read to the end before yield returns. Otherwise openers
	// may be kept, and called from many goroutines, until Close.
	Sequential() bool
	// Walk yields every entry of the tree once, in the order of the source.
	// Folders that only the names below them imply are not yielded. An
	// error of yield ends the walk and is returned as it is. Walk can be
	// called once; cancelling ctx ends it at once.
	Walk(ctx context.Context, yield func(Entry, Opener) error) error
	// Close releases what the source holds. It may be called during Walk.
	Close() error
}

// Limits that Options leaves to their defaults.
const (
	DefaultMaxSize    = 4 << 30 // unpacked bytes
	DefaultMaxEntries = 100_000 // six times what the largest release has
)

// Options say how a source is read. The zero value is ready to use.
type Options struct {
	MaxSize    int64               // most unpacked bytes, DefaultMaxSize if 0
	MaxEntries int                 // most names, implied folders included, DefaultMaxEntries if 0
	Stdin      io.Reader           // what "-" reads, os.Stdin if nil
	SHA256     string              // expected SHA-256 of the archive in hex, "" for none
	TempDir    string              // where a downloaded zip lies, without a name, while it is read; os.TempDir() if ""
	Platform   string              // wanted when a version is named, the machine's own if ""
	Client     *http.Client        // used for its transport and jar; if nil, one that honours $HTTPS_PROXY
	Getenv     func(string) string // os.Getenv if nil
	Status     func(string)        // takes one-line notes for the user, may be nil
	AllowHTTP  bool                // take a plain http URL of another machine; what GOPROXY names needs no leave

	stall  time.Duration // a download that brings less than stallBytes in it fails
	dlBase string        // where the Go project's own download list lies
}

func (o Options) withDefaults() Options {
	if o.MaxSize <= 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.Stdin == nil {
		o.Stdin = os.Stdin
	}
	if o.Platform == "" {
		o.Platform = runtime.GOOS + "-" + runtime.GOARCH
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Status == nil {
		o.Status = func(string) {}
	}
	if o.stall <= 0 {
		o.stall = stallTimeout
	}
	if o.dlBase == "" {
		o.dlBase = dlBase
	}
	o.Client = newClient(o.Client)
	return o
}

// maxRaw bounds the bytes of an archive itself and of the tar stream inside:
// the content and two blocks of header for every name.
func (o Options) maxRaw() int64 {
	return o.MaxSize + 1024*int64(o.MaxEntries) + maxTail
}

// Open finds out what arg names and opens it. In this order it is standard
// input ("-"), an http or https URL, a version ("1.23.3", "go1.24rc1", "1.23"
// for its newest patch, "stable", "oldstable", each with an optional platform as in
// "1.23.3.darwin-arm64"), or a file or folder. So a folder that is called like
// a version is meant only with a path separator in arg ("./1.23.3").
func Open(ctx context.Context, arg string, o Options) (Source, error) {
	o = o.withDefaults()
	if o.SHA256 != "" {
		o.SHA256 = strings.ToLower(o.SHA256)
		if !isSHA256(o.SHA256) {
			return nil, fmt.Errorf("%s: %q is no SHA-256 (64 hexadecimal digits)", Redact(arg), o.SHA256)
		}
	}
	switch {
	case arg == "":
		return nil, errors.New("empty source name")
	case arg == "-":
		raw := newRaw(io.NopCloser(o.Stdin), -1, o)
		raw.foreign = true
		return openStream(ctx, raw, name{label: "standard input", origin: "-"}, o)
	case hasScheme(arg):
		return openURL(ctx, arg, o)
	}
	if req, ok := parseRequest(arg, o.Platform); ok {
		if _, err := os.Lstat(arg); err == nil {
			o.Status(fmt.Sprintf("%s is taken as a version; ./%s would be the file of that name", arg, arg))
		}
		return openVersion(ctx, arg, req, o)
	}
	return openPath(ctx, arg, o)
}

// openPath opens what lies in the file system at arg.
func openPath(ctx context.Context, arg string, o Options) (Source, error) {
	fi, err := os.Stat(arg)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !looksLikePath(arg):
		return nil, &plainError{fmt.Sprintf("%s: no file, URL or Go version (versions look like 1.23.3, 1.23 or stable)", arg), fs.ErrNotExist}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &plainError{arg + ": no such file", fs.ErrNotExist}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", arg, bare(err))
	}
	n := name{label: arg, origin: arg}
	if abs, err := filepath.Abs(arg); err == nil {
		n.origin = abs
	}
	if fi.IsDir() {
		if o.SHA256 != "" {
			return nil, fmt.Errorf("%s: a folder has no SHA-256 to compare", arg)
		}
		return openFolder(arg, n, o)
	}
	f, err := openFile(ctx, arg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arg, bare(err))
	}
	return openArchive(ctx, f, n, o)
}

// openArchive opens an archive that lies in an open file.
func openArchive(ctx context.Context, f *os.File, n name, o Options) (Source, error) {
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", n.label, bare(err))
	}
	n.claim(filepath.Base(n.origin))
	if !fi.Mode().IsRegular() { // a pipe: it can be read once only
		return openStream(ctx, newRaw(f, -1, o), n, o)
	}
	var magic [4]byte
	if k, _ := f.ReadAt(magic[:], 0); isZip(magic[:k]) {
		s := newZip(n, fi.Size(), o)
		s.take(f)
		if err := s.index(fi.Size()); err != nil {
			s.Close()
			return nil, err
		}
		return s, nil
	}
	return openStream(ctx, newRaw(f, fi.Size(), o), n, o)
}

// openFile is os.Open that gives up with ctx: opening a pipe waits for a
// writer.
func openFile(ctx context.Context, name string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result)
	go func() {
		f, err := os.Open(name)
		select {
		case c <- result{f, err}:
		case <-ctx.Done():
			if err == nil {
				f.Close()
			}
		}
	}()
	select {
	case r := <-c:
		return r.f, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// name is how a source is called and what its name claims; sources embed it.
type name struct {
	label, origin     string
	version, platform string // what Release returns, "" if not known
	modVersion        string // of the toolchain module, "" if it is none
}

func (n *name) Label() string  { return n.label }
func (n *name) Origin() string { return n.origin }

func (n *name) Release() (version, platform string, known bool) {
	return n.version, n.platform, n.version != ""
}

func (n *name) Module() (path, version string, ok bool) {
	if n.modVersion == "" {
		return "", "", false
	}
	return modulePath, n.modVersion, true
}

// claim takes version and platform from the name of a release file, such as
// go1.23.3.linux-amd64.tar.gz.
func (n *name) claim(file string) {
	for _, ext := range archiveExts {
		if base, ok := strings.CutSuffix(file, ext); ok {
			if v, p, ok := splitRelease(base); ok {
				n.version, n.platform = v, p
			}
			return
		}
	}
}

var archiveExts = []string{".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar", ".zip"}

func looksLikePath(arg string) bool {
	if strings.ContainsRune(arg, filepath.Separator) || strings.HasPrefix(arg, ".") || strings.HasPrefix(arg, "~") {
		return true
	}
	for _, ext := range archiveExts {
		if strings.HasSuffix(arg, ext) {
			return true
		}
	}
	return false
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
