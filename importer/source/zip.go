package source

import (
	"archive/zip"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/flate"
)

const (
	modulePath = "golang.org/toolchain"
	// maxDirectory bounds the bytes of a zip's directory, and so the memory
	// it takes once parsed (about six times that at worst). A release's has
	// 2 MB.
	maxDirectory = 16 << 20
	// maxEmpty is how many bytes a deflate stream of nothing may have.
	maxEmpty = 16
)

// zipSource is a release as a zip: the one published for Windows, or that of
// the toolchain module.
type zipSource struct {
	name
	o     Options
	size  int64
	n     atomic.Int64 // compressed bytes read
	f     *os.File
	files []zipEntry
	when  time.Time // of every file, from VERSION; zero if the zip's own times count
}

var _ Source = (*zipSource)(nil)

// zipEntry is an entry of the zip and what it becomes.
type zipEntry struct {
	file *zip.File
	Entry
}

func newZip(n name, size int64, o Options) *zipSource {
	return &zipSource{name: n, o: o, size: size}
}

func (s *zipSource) take(f *os.File) { s.f = f }

func (s *zipSource) Size() int64      { return s.size }
func (s *zipSource) Read() int64      { return s.n.Load() }
func (s *zipSource) Sequential() bool { return false }

func (s *zipSource) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// index reads the directory of the zip and checks all that can be checked
// without unpacking.
func (s *zipSource) index(size int64) error {
	if size > s.o.maxRaw() {
		return tooLarge(s.label, s.o.MaxSize)
	}
	dir := &budget{r: s.f, left: maxDirectory}
	zr, err := zip.NewReader(dir, size)
	switch {
	case dir.left < 0:
		return fail(s.label, ErrTooLarge, "the zip's directory has more than %d MiB", maxDirectory>>20)
	case errors.Is(err, zip.ErrInsecurePath): // names are checked below
	case errors.Is(err, zip.ErrFormat):
		return fail(s.label, ErrTruncated, "the zip has no proper directory at its end")
	case err != nil:
		return s.readError("the zip's directory", err)
	}
	dir.open()
	if len(zr.File) > s.o.MaxEntries {
		return fail(s.label, ErrTooLarge, "more than %d entries", s.o.MaxEntries)
	}
	prefix, err := s.prefix(zr.File)
	if err != nil {
		return err
	}
	for _, f := range zr.File {
		if err := s.entry(f, prefix); err != nil {
			return err
		}
	}
	return s.overlap(size)
}

// prefix finds the top folder of the release: "go/", or the module's name
// and version.
func (s *zipSource) prefix(files []*zip.File) (string, error) {
	if len(files) == 0 {
		return "", fail(s.label, ErrNotRelease, "the zip is empty")
	}
	first := files[0].Name
	if s.modVersion == "" && strings.HasPrefix(first, tarTop) {
		return tarTop, nil
	}
	if rest, ok := strings.CutPrefix(first, modulePath+"@"); ok {
		modVersion, _, _ := strings.Cut(rest, "/")
		goVersion, _ := strings.CutPrefix(modVersion, modulePrefix)
		v, p, ok := splitRelease(goVersion)
		if ok && modVersion == moduleVersion(v, p) {
			if s.version != "" && (s.version != v || s.platform != p) {
				return "", fail(s.label, ErrNotRelease, "it should hold %s for %s but holds %s for %s", s.version, s.platform, v, p)
			}
			s.version, s.platform, s.modVersion = v, p, modVersion
			return modulePath + "@" + modVersion + "/", nil
		}
	}
	return "", fail(s.label, ErrNotRelease, "entry %s is neither below %q nor in a %s module", short(first), tarTop, modulePath)
}

// entry checks f and adds what it becomes.
func (s *zipSource) entry(f *zip.File, prefix string) error {
	if msg := checkTop(f.Name); msg != "" {
		return fail(s.label, ErrUnsafe, "%s: %s", msg, short(f.Name))
	}
	p, ok := strings.CutPrefix(f.Name, prefix)
	if !ok {
		return fail(s.label, ErrNotRelease, "entry %s is not below %q", short(f.Name), prefix)
	}
	switch {
	case f.Flags&1 != 0:
		return fail(s.label, ErrUnsafe, "encrypted entry %s", short(f.Name))
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return fail(s.label, ErrUnsafe, "entry %s with unknown compression method %d", short(f.Name), f.Method)
	case f.UncompressedSize64 > uint64(s.o.MaxSize) || f.CompressedSize64 > uint64(s.o.maxRaw()):
		return tooLarge(s.label, s.o.MaxSize)
	case f.Method == zip.Store && f.CompressedSize64 != f.UncompressedSize64:
		return fail(s.label, ErrCorrupt, "entry %s has two sizes", short(f.Name))
	case f.UncompressedSize64 == 0 && (f.CRC32 != 0 || f.CompressedSize64 > maxEmpty):
		// Who has no use for empty files does not open them.
		return fail(s.label, ErrCorrupt, "entry %s has no size but content", short(f.Name))
	}
	p, isDir := strings.CutSuffix(p, "/")
	if p == "" && (isDir || f.Name == prefix) {
		return nil // the top folder itself
	}
	e := Entry{Path: p, ModTime: f.Modified, Size: int64(f.UncompressedSize64)}
	mode := f.Mode()
	switch {
	case isDir || mode.IsDir():
		e.Kind, e.Size = Dir, 0
	case mode&fs.ModeSymlink != 0:
		if e.Size > maxPath {
			return fail(s.label, ErrUnsafe, "symbolic link %s with a target of %d bytes", short(p), e.Size)
		}
		e.Kind = Symlink
	case !mode.IsRegular():
		return fail(s.label, ErrUnsafe, "%s is of type %v", short(f.Name), mode.Type())
	}
	if dir, base := path.Split(p); s.modVersion != "" && base == "_go.mod" {
		e.Path = dir + "go.mod"
	}
	switch {
	case s.modVersion == "" && hasUnixMode(f):
		e.Mode = uint32(mode.Perm())
	case e.Kind == Dir:
		e.Mode = 0o755
	default:
		e.Mode = releaseMode(e.Path)
	}
	s.files = append(s.files, zipEntry{f, e})
	return nil
}

// hasUnixMode tells whether f records permission bits.
func hasUnixMode(f *zip.File) bool {
	const unix, macOS = 3, 19
	by := f.CreatorVersion >> 8
	return (by == unix || by == macOS) && f.ExternalAttrs>>16 != 0
}

// releaseMode gives a release's file the mode that cmd/distpack gives it: a
// module zip has none.
func releaseMode(p string) uint32 {
	base := path.Base(p)
	switch path.Ext(base) {
	case ".bash", ".sh", ".pl", ".rc", ".exe":
		return 0o755
	}
	if strings.HasPrefix(p, "bin/") || strings.HasPrefix(p, "pkg/tool/") ||
		strings.HasPrefix(base, "go_") && strings.HasSuffix(base, "_exec") {
		return 0o755
	}
	return 0o644
}

// overlap refuses entries that share bytes of the archive, which is how a
// small zip unpacks to petabytes.
func (s *zipSource) overlap(size int64) error {
	type span struct{ from, to int64 }
	spans := make([]span, 0, len(s.files))
	for _, e := range s.files {
		body, err := e.file.DataOffset()
		if err != nil {
			return s.readError("the header of "+short(e.file.Name), err)
		}
		const header = 30 // bytes of a local file header before its name
		sp := span{body - header - int64(len(e.file.Name)), body + int64(e.file.CompressedSize64)}
		if sp.from < 0 || sp.to > size {
			return fail(s.label, ErrTruncated, "entry %s lies outside of the zip", short(e.file.Name))
		}
		spans = append(spans, sp)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			return fail(s.label, ErrUnsafe, "entries of the zip overlap at byte %d", spans[i].from)
		}
	}
	return nil
}

func (s *zipSource) Walk(ctx context.Context, yield func(Entry, Opener) error) error {
	if s.o.SHA256 != "" {
		if err := s.checkSum(ctx); err != nil {
			return err
		}
	}
	return s.walk(ctx, yield)
}

func (s *zipSource) walk(ctx context.Context, yield func(Entry, Opener) error) error {
	if s.modVersion != "" {
		if err := s.readTime(); err != nil {
			return err
		}
	}
	t := newTree(s.label, s.o)
	for i := range s.files {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", s.label, err)
		}
		e := &s.files[i]
		if !s.when.IsZero() {
			e.ModTime = s.when
		}
		var open Opener
		switch e.Kind {
		case File:
			open = func() (io.ReadCloser, error) { return s.open(e) }
		case Symlink:
			target, err := s.content(e)
			if err != nil {
				return err
			}
			e.Target, e.Size = string(target), 0
		}
		if err := t.add(e.Entry); err != nil {
			return err
		}
		if err := yield(e.Entry, open); err != nil {
			return err
		}
	}
	return t.finish()
}

// readTime takes the time of every file from VERSION, as the tarball of the
// same release has it.
func (s *zipSource) readTime() error {
	for i := range s.files {
		e := &s.files[i]
		if e.Path != "VERSION" || e.Kind != File || e.Size > maxVersionFile {
			continue
		}
		b, err := s.content(e)
		if err != nil {
			return err
		}
		s.when, _ = VersionTime(b)
	}
	return nil
}

// content reads a small entry.
func (s *zipSource) content(e *zipEntry) ([]byte, error) {
	r, err := s.open(e)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// checkSum hashes the whole zip before anything of it is handed out.
func (s *zipSource) checkSum(ctx context.Context) error {
	h := sha256.New()
	in := readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return s.f.Read(p)
	})
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return s.readError("the zip", err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, in, make([]byte, rawBlock)); err != nil {
		return s.readError("the zip", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != s.o.SHA256 {
		return fail(s.label, ErrChecksum, "SHA-256 is %s, not %s", got, s.o.SHA256)
	}
	return nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (s *zipSource) readError(what string, err error) error {
	if errors.Is(err, zip.ErrFormat) || errors.Is(err, zip.ErrChecksum) || errors.Is(err, errLonger) {
		return fail(s.label, ErrCorrupt, "%s: %v", what, err)
	}
	return readError(s.label, what, err)
}

// inflater is what reading an entry takes, kept for the next one.
type inflater struct {
	in    *bufio.Reader
	flate io.ReadCloser // also a flate.Resetter
}

var inflaters = sync.Pool{New: func() any {
	in := bufio.NewReaderSize(nil, 32<<10)
	return &inflater{in, flate.NewReader(in)}
}}

// zipReader is the content of one entry.
type zipReader struct {
	exactReader
	inf *inflater
}

// open reads e with its size and CRC checked, whatever the entry's flags say
// (archive/zip leaves out the CRC where the directory has 0 for it).
func (s *zipSource) open(e *zipEntry) (io.ReadCloser, error) {
	what := "entry " + short(e.file.Name)
	body, err := e.file.OpenRaw()
	if err != nil {
		return nil, s.readError(what, err)
	}
	z := &zipReader{inf: inflaters.Get().(*inflater)}
	z.inf.in.Reset(readerFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		s.n.Add(int64(n))
		return n, err
	}))
	var plain io.Reader = z.inf.in
	if e.file.Method == zip.Deflate {
		if err := z.inf.flate.(flate.Resetter).Reset(z.inf.in, nil); err != nil {
			return nil, s.readError(what, err)
		}
		plain = z.inf.flate
	}
	sum := &summed{r: plain, h: crc32.NewIEEE()}
	z.exactReader = exactReader{
		r:    sum,
		left: int64(e.file.UncompressedSize64),
		check: func() error {
			if sum.h.Sum32() != e.file.CRC32 {
				return zip.ErrChecksum
			}
			return nil
		},
		fix: func(err error) error { return s.readError(what, err) },
	}
	if z.left == 0 {
		if err := z.end(); err != nil {
			z.Close()
			return nil, s.readError(what, err)
		}
	}
	return z, nil
}

func (z *zipReader) Close() error {
	if z.inf != nil {
		z.err = os.ErrClosed
		z.inf.in.Reset(nil)
		inflaters.Put(z.inf)
		z.inf = nil
	}
	return nil
}

// summed hashes what is read through it.
type summed struct {
	r io.Reader
	h hash.Hash32
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.h.Write(p[:n])
	return n, err
}

// budget is a ReaderAt that runs dry, for parsing what might be endless.
type budget struct {
	r    io.ReaderAt
	left int64
	free bool
}

var errBudget = errors.New("budget spent")

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 { // by the offsets in the archive
		return 0, zip.ErrFormat
	}
	if b.free {
		return b.r.ReadAt(p, off)
	}
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errBudget
	}
	return b.r.ReadAt(p, off)
}

// open lifts the bound.
func (b *budget) open() { b.free = true }
