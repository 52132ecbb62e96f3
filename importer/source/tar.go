package source

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	tarBlock = 512
	tarTop   = "go/"   // what every name of a release's tarball starts with
	maxTail  = 1 << 20 // zeros that may follow a tar's end, for tape blocks
)

// tarball is a release as a tar stream, compressed or not.
type tarball struct {
	*stream
	format string // "gzip", "zstd" or "tar"
}

var _ Source = (*tarball)(nil)

func (b *tarball) Sequential() bool { return true }

func (b *tarball) Walk(ctx context.Context, yield func(Entry, Opener) error) (err error) {
	defer context.AfterFunc(ctx, b.stop)()
	defer func() {
		// The decoder notices the end of ctx as a closed stream.
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%s: %w", b.label, context.Cause(ctx))
		}
	}()
	dec, release, err := b.decoder(b.format)
	if err != nil {
		return err
	}
	defer release()
	if b.format != "tar" {
		ahead := newReadAhead(ctx, dec, decodeBlock, decodeDepth, true)
		defer func() {
			ahead.stop()
			b.ahead.stop()
			<-ahead.done // before release: it reads the decoder
		}()
		dec = ahead
	}
	r := &tarReader{tarball: b, in: &counter{r: dec, limit: b.o.maxRaw()}, tree: newTree(b.label, b.o)}
	r.tr = tar.NewReader(r.in)
	for {
		hdr, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.entry(hdr, yield); err != nil {
			return err
		}
	}
	if err := r.tail(); err != nil {
		return err
	}
	if err := b.raw.checkSum(b.label, b.o); err != nil {
		return err
	}
	return r.tree.finish()
}

// tarReader is the state of one Walk.
type tarReader struct {
	*tarball
	in      *counter
	tr      *tar.Reader
	tree    *tree
	headers int   // read so far
	end     int64 // where the last entry's content ends, padding included
	root    bool  // an entry for go/ itself was there
}

// next returns the next header, io.EOF at a proper end of the archive.
func (r *tarReader) next() (*tar.Header, error) {
	hdr, err := r.tr.Next()
	switch {
	case err == io.EOF:
		// archive/tar takes the end of the stream for the end of the
		// archive; only two blocks of zeros are.
		if r.in.n-r.end < 2*tarBlock {
			return nil, fail(r.label, ErrTruncated, "the tar archive has no end marker")
		}
		return nil, io.EOF
	case errors.Is(err, tar.ErrHeader) && r.headers == 0:
		return nil, fail(r.label, ErrNotRelease, "the %s stream holds no tar archive", r.format)
	case errors.Is(err, tar.ErrInsecurePath):
		return nil, fail(r.label, ErrUnsafe, "insecure name %s", short(hdr.Name))
	case err != nil:
		return nil, r.fix("")(err)
	}
	if r.headers++; r.headers > r.o.MaxEntries {
		return nil, fail(r.label, ErrTooLarge, "more than %d entries", r.o.MaxEntries)
	}
	r.end = r.in.n + (hdr.Size+tarBlock-1)/tarBlock*tarBlock
	return hdr, nil
}

// fix names the source in an error that reading met, and the entry if it was
// in one.
func (r *tarReader) fix(entry string) func(error) error {
	what := "the " + r.format + " stream"
	if entry != "" {
		what += ", in " + short(entry) + ","
	}
	return func(err error) error {
		switch {
		case errors.Is(err, errStreamLimit):
			return tooLarge(r.label, r.o.MaxSize)
		case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
			return fail(r.label, ErrCorrupt, "bad tar header after %d entries", r.headers)
		}
		return r.readError(what, err)
	}
}

func (r *tarReader) entry(hdr *tar.Header, yield func(Entry, Opener) error) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // comments for everything that follows
	}
	if msg := checkTop(hdr.Name); msg != "" {
		return fail(r.label, ErrUnsafe, "%s: %s", msg, short(hdr.Name))
	}
	name, ok := strings.CutPrefix(hdr.Name, tarTop)
	if !ok && hdr.Name != "go" {
		return fail(r.label, ErrNotRelease, "entry %s is not below %q", short(hdr.Name), tarTop)
	}
	kind, err := r.kind(hdr)
	if err != nil {
		return err
	}
	if kind == Dir {
		name = strings.TrimSuffix(name, "/")
	}
	if hdr.Name == "go" || hdr.Name == tarTop {
		if kind != Dir || r.root {
			return fail(r.label, ErrUnsafe, "%s %s where the top folder is", kind, short(hdr.Name))
		}
		r.root = true
		return nil
	}
	e := Entry{Path: name, Kind: kind, Mode: uint32(hdr.Mode) & 0o777, ModTime: hdr.ModTime}
	switch kind {
	case File:
		e.Size = hdr.Size
	case Symlink:
		e.Target = hdr.Linkname
	}
	if err := r.tree.add(e); err != nil {
		return err
	}
	return r.yield(e, yield)
}

// kind maps the type of a header and refuses what no release contains.
func (r *tarReader) kind(hdr *tar.Header) (Kind, error) {
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			hdr.Typeflag = tar.TypeGNUSparse
		}
	}
	what := fmt.Sprintf("entry of type %q", hdr.Typeflag)
	switch hdr.Typeflag {
	case tar.TypeReg:
		return File, nil
	case tar.TypeDir:
		return Dir, nil
	case tar.TypeSymlink:
		return Symlink, nil
	case tar.TypeLink:
		what = "hard link"
	case tar.TypeChar, tar.TypeBlock:
		what = "device node"
	case tar.TypeFifo:
		what = "named pipe"
	case tar.TypeGNUSparse:
		what = "sparse file"
	}
	return 0, fail(r.label, ErrUnsafe, "%s %s", what, short(hdr.Name))
}

// yield hands e on with an opener that works once, until yield returns.
func (r *tarReader) yield(e Entry, yield func(Entry, Opener) error) error {
	if e.Kind != File {
		return yield(e, nil)
	}
	spent := false
	err := yield(e, func() (io.ReadCloser, error) {
		if spent {
			return nil, fail(r.label, errOpened, "%s", short(e.Path))
		}
		spent = true
		return io.NopCloser(&exactReader{
			r:     r.tr,
			left:  e.Size,
			check: func() error { return nil },
			fix:   r.fix(e.Path),
		}), nil
	})
	spent = true
	return err
}

var errOpened = errors.New("a tarball's files pass by once, already gone")

// checkTop refuses the names for which "not below go/" would be the lesser
// half of the truth.
func checkTop(name string) string {
	switch {
	case strings.HasPrefix(name, "/"):
		return "absolute name"
	case name == "..", strings.HasPrefix(name, "../"), strings.Contains(name, "/../"), strings.HasSuffix(name, "/.."):
		return `name with a ".." element`
	}
	return ""
}

// tail reads what follows the end marker, which is zeros at most, and so
// brings the decoder to the end of its stream, where it checks its sum.
func (r *tarReader) tail() error {
	buf := make([]byte, 32<<10)
	zeros := make([]byte, len(buf))
	for total := 0; ; {
		n, err := r.in.Read(buf)
		if !bytes.Equal(buf[:n], zeros[:n]) {
			return fail(r.label, ErrCorrupt, "something follows the end of the tar archive")
		}
		if total += n; total > maxTail {
			return fail(r.label, ErrCorrupt, "more than %d zeros follow the end of the tar archive", maxTail)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return r.fix("")(err)
		}
	}
}

var errStreamLimit = errors.New("stream too long")

// counter counts and bounds what is read of a stream.
type counter struct {
	r     io.Reader
	n     int64
	limit int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.n > c.limit {
		return 0, errStreamLimit
	}
	return n, err
}
