package source

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Buffers of the two stages that run beside the consumer: reading an archive
// and decoding it. Decoding is what an import waits for: klauspost's gzip
// gives 210 to 250 MB/s of a Go release where the standard library gives 165
// and gzip -d 178, so the 229 MB of go1.23.3 take 1.0 s of one core however
// long the consumer takes beside it.
const (
	rawBlock, rawDepth       = 256 << 10, 8
	decodeBlock, decodeDepth = 1 << 20, 12
)

// raw is the archive's own bytes on their way from a file, a pipe or a
// connection: counted, bounded and hashed.
type raw struct {
	r       io.ReadCloser
	foreign bool // r is not ours to close, nor can its Read be interrupted
	size    int64
	limit   int64
	hash    hash.Hash // nil if no checksum is wanted
	n       atomic.Int64

	once sync.Once
	err  error
}

var errRawLimit = errors.New("archive too large")

func newRaw(r io.ReadCloser, size int64, o Options) *raw {
	w := &raw{r: r, size: size, limit: o.maxRaw()}
	if o.SHA256 != "" {
		w.hash = sha256.New()
	}
	return w
}

func (w *raw) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.hash != nil {
		w.hash.Write(p[:n])
	}
	if w.n.Add(int64(n)) > w.limit {
		return 0, errRawLimit
	}
	return n, err
}

func (w *raw) Close() error {
	w.once.Do(func() {
		if !w.foreign {
			w.err = w.r.Close()
		}
	})
	return w.err
}

// checkSum compares the hash of everything read with what o asks for. It is
// called after the stream has been read to its end.
func (w *raw) checkSum(label string, o Options) error {
	if w.hash == nil {
		return nil
	}
	if got := hex.EncodeToString(w.hash.Sum(nil)); got != o.SHA256 {
		return fail(label, ErrChecksum, "SHA-256 is %s, not %s", got, o.SHA256)
	}
	return nil
}

// readAhead reads r in a goroutine of its own, depth blocks ahead. Its Read
// ends with ctx.
type readAhead struct {
	ctx  context.Context
	full chan block
	free chan []byte
	quit chan struct{}
	done chan struct{}
	once sync.Once

	cur []byte // what is left of buf
	buf []byte
	err error
}

type block struct {
	buf []byte
	err error
}

// newReadAhead starts reading. With fill, blocks are filled before they are
// handed on; without, they are handed on as they come, which a slow
// connection wants.
func newReadAhead(ctx context.Context, r io.Reader, size, depth int, fill bool) *readAhead {
	a := &readAhead{
		ctx:  ctx,
		full: make(chan block, depth),
		free: make(chan []byte, depth),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	go a.run(r, size, depth, fill)
	return a
}

func (a *readAhead) run(r io.Reader, size, depth int, fill bool) {
	defer close(a.done)
	for made := 0; ; {
		var buf []byte
		select {
		case buf = <-a.free:
		default:
			if made < depth {
				buf = make([]byte, size)
				made++
				break
			}
			select {
			case buf = <-a.free:
			case <-a.quit:
				return
			}
		}
		n, err := readBlock(r, buf[:size], fill)
		select {
		case a.full <- block{buf[:n], err}:
		case <-a.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// readBlock is r.Read, or with fill many of them, and never returns nothing
// without an error.
func readBlock(r io.Reader, buf []byte, fill bool) (n int, err error) {
	for empty := 0; n < len(buf) && err == nil && (fill || n == 0); {
		var k int
		k, err = r.Read(buf[n:])
		n += k
		if k > 0 {
			empty = 0
		} else if empty++; err == nil && empty > 100 {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

func (a *readAhead) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(a.cur) == 0 {
		if a.buf != nil {
			a.free <- a.buf[:0] // never blocks: there are as many places as buffers
			a.buf = nil
		}
		if a.err != nil {
			return 0, a.err
		}
		if err := a.ctx.Err(); err != nil {
			return 0, err
		}
		select {
		case b := <-a.full:
			a.buf, a.cur, a.err = b.buf, b.buf, b.err
		case <-a.ctx.Done():
			return 0, a.ctx.Err()
		case <-a.quit:
			return 0, os.ErrClosed
		}
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// stop ends the goroutine once its current Read returns.
func (a *readAhead) stop() { a.once.Do(func() { close(a.quit) }) }

// stream is an archive that passes by once.
type stream struct {
	name
	o     Options
	raw   *raw
	ahead *readAhead
	in    *bufio.Reader // reads ahead
	magic []byte        // the first bytes
	stop  context.CancelFunc
}

func (s *stream) Size() int64 { return s.raw.size }
func (s *stream) Read() int64 { return s.raw.n.Load() }

func (s *stream) Close() error {
	s.stop()
	s.ahead.stop()
	err := s.raw.Close()
	if !s.raw.foreign {
		<-s.ahead.done
	}
	return err
}

// openStream looks at the first bytes of w and makes it a tarball or, with a
// file to keep it in, a zip.
func openStream(ctx context.Context, w *raw, n name, o Options) (Source, error) {
	if w.size > w.limit {
		w.Close()
		return nil, tooLarge(n.label, o.MaxSize)
	}
	// The stream outlives the ctx of Open: Walk has its own.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &stream{name: n, o: o, raw: w, stop: stop}
	s.ahead = newReadAhead(life, w, rawBlock, rawDepth, false)
	s.in = bufio.NewReaderSize(s.ahead, rawBlock)
	release := context.AfterFunc(ctx, stop)
	magic, err := s.in.Peek(tarBlock)
	if !release() { // ctx has ended and has stopped the stream with it
		err = context.Cause(ctx)
	} else if err == io.EOF && len(magic) > 0 {
		err = nil
	}
	if err != nil {
		s.Close()
		if err == io.EOF {
			return nil, fail(n.label, ErrNotRelease, "it is empty")
		}
		return nil, s.readError("the archive", err)
	}
	s.magic = magic
	if isZip(magic) {
		return &spooledZip{zipSource: newZip(n, w.size, o), stream: s}, nil
	}
	src := &tarball{stream: s}
	if src.format = sniff(magic); src.format == "" {
		s.Close()
		return nil, notArchive(n.label, magic)
	}
	return src, nil
}

func (s *stream) readError(what string, err error) error {
	if errors.Is(err, errRawLimit) {
		return tooLarge(s.label, s.o.MaxSize)
	}
	return readError(s.label, what, err)
}

func isZip(magic []byte) bool {
	return len(magic) >= 4 && magic[0] == 'P' && magic[1] == 'K' &&
		(magic[2] == 3 && magic[3] == 4 || magic[2] == 5 && magic[3] == 6)
}

// sniff tells the formats of tarballs apart by their first bytes.
func sniff(magic []byte) string {
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		return "gzip"
	case len(magic) >= 4 && string(magic[:4]) == "\x28\xb5\x2f\xfd":
		return "zstd"
	case len(magic) >= 262 && string(magic[257:262]) == "ustar":
		return "tar"
	}
	return ""
}

// notArchive names the formats that people try and gofs does not read.
func notArchive(label string, magic []byte) error {
	for _, k := range []struct{ magic, name string }{
		{"\xfd7zXZ\x00", "an xz file"},
		{"BZh", "a bzip2 file"},
		{"7z\xbc\xaf", "a 7z file"},
		{"xar!", "a macOS package"},
		{"\xd0\xcf\x11\xe0", "a Windows installer"},
		{"<!", "an HTML page"},
		{"<html", "an HTML page"},
	} {
		if len(magic) >= len(k.magic) && string(magic[:len(k.magic)]) == k.magic {
			return fail(label, ErrNotRelease, "it is %s, not a .tar.gz, .tar.zst, .tar or .zip", k.name)
		}
	}
	return fail(label, ErrNotRelease, "it is neither a .tar.gz, .tar.zst, .tar nor .zip")
}

// decoder undoes the compression of a tarball. Its Read returns io.EOF only
// where the whole compressed stream ended well.
func (s *stream) decoder(format string) (io.Reader, func(), error) {
	switch format {
	case "gzip":
		zr, err := gzip.NewReader(s.in)
		if err != nil {
			return nil, nil, s.readError("the gzip stream", err)
		}
		zr.Multistream(false)
		return &oneMember{zr, s.in}, func() {}, nil
	case "zstd":
		zr, err := zstd.NewReader(s.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, s.readError("the zstd stream", err)
		}
		return readerFunc(func(p []byte) (int, error) {
			n, err := zr.Read(p)
			if err != nil && s.whole() && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: %w", errFrame, err)
			}
			return n, err
		}), zr.Close, nil
	}
	return s.in, func() {}, nil
}

// maxWindow is what zstd --long=27 needs, the most that zstd -d takes unasked.
const maxWindow = 128 << 20

var (
	errTrailing = errors.New("something follows the gzip stream")
	errFrame    = errors.New("bad frame") // not all errors of the decoder are exported
)

// whole says that the archive itself could be read so far, so that an error of
// its decoder is about what it holds.
func (s *stream) whole() bool {
	return (s.ahead.err == nil || s.ahead.err == io.EOF) && s.ahead.ctx.Err() == nil
}

// oneMember is a gzip stream with nothing behind it. The gzip format allows
// for several in a row; Go releases have one, and what follows it is
// something that another reader might not see.
type oneMember struct {
	zr *gzip.Reader
	in *bufio.Reader
}

func (m *oneMember) Read(p []byte) (int, error) {
	n, err := m.zr.Read(p)
	if err == io.EOF {
		if _, perr := m.in.Peek(1); perr == nil {
			err = errTrailing
		} else if perr != io.EOF {
			err = perr
		}
	}
	return n, err
}

// isFormatError knows the decoders' errors for bytes that are not what they
// should be.
func isFormatError(err error) bool {
	for _, e := range []error{
		gzip.ErrHeader, gzip.ErrChecksum, errTrailing, errFrame,
		zstd.ErrMagicMismatch, zstd.ErrCRCMismatch, zstd.ErrReservedBlockType, zstd.ErrFrameSizeExceeded,
		zstd.ErrFrameSizeMismatch, zstd.ErrUnknownDictionary, zstd.ErrUnexpectedBlockSize, zstd.ErrCompressedSizeTooBig,
		zstd.ErrBlockTooSmall, zstd.ErrWindowSizeExceeded, zstd.ErrWindowSizeTooSmall, zstd.ErrDecoderSizeExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// exactReader hands out exactly size bytes of r, or an error. Before the last
// byte it sees to it that r ends there, and calls check.
type exactReader struct {
	r     io.Reader
	left  int64
	check func() error
	fix   func(error) error // makes an error the source's own
	err   error
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	if e.left == 0 {
		e.err = io.EOF
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if e.left == 0 && n > 0 {
		if err = e.end(); err != nil {
			n = 0 // who reads exactly size bytes must meet the error too
		}
	} else if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		e.err = e.fix(err)
	}
	return n, e.err
}

// end looks for the end of r.
func (e *exactReader) end() error {
	var one [1]byte
	for range 100 {
		n, err := e.r.Read(one[:])
		switch {
		case n > 0:
			return errLonger
		case err == io.EOF:
			return e.check()
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

var errLonger = fmt.Errorf("longer than its size")
