package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// spooledZip is a zip that comes as a stream. A zip is read from its end, so
// Walk first keeps all of it in a file without a name.
type spooledZip struct {
	*zipSource
	stream *stream
}

var _ Source = (*spooledZip)(nil)

func (s *spooledZip) Size() int64 { return s.stream.Size() }
func (s *spooledZip) Read() int64 { return s.stream.Read() }

func (s *spooledZip) Close() error {
	return errors.Join(s.stream.Close(), s.zipSource.Close())
}

func (s *spooledZip) Walk(ctx context.Context, yield func(Entry, Opener) error) error {
	size, err := s.spool(ctx)
	if err != nil {
		return err
	}
	if err := s.index(size); err != nil {
		return err
	}
	return s.walk(ctx, yield)
}

// spool copies the stream to a temporary file and checks its sum.
func (s *spooledZip) spool(ctx context.Context) (int64, error) {
	defer context.AfterFunc(ctx, s.stream.stop)()
	f, err := tempFile(s.o.TempDir)
	if err != nil {
		return 0, fmt.Errorf("%s: a place to keep the zip while it is read: %w", s.label, err)
	}
	s.take(f)
	w := &diskWriter{f: f}
	size, err := io.CopyBuffer(w, struct{ io.Reader }{s.stream.in}, make([]byte, rawBlock))
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%s: %w", s.label, context.Cause(ctx))
	case w.err != nil:
		return 0, fmt.Errorf("%s: keeping the zip in %s: %w", s.label, w.dir(s.o.TempDir), bare(w.err))
	case err != nil:
		return 0, s.stream.readError("the zip", err)
	}
	return size, s.stream.raw.checkSum(s.label, s.o)
}

// diskWriter remembers that an error was one of writing.
type diskWriter struct {
	f   *os.File
	err error
}

func (w *diskWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.err = err
	return n, err
}

func (w *diskWriter) dir(name string) string {
	if name == "" {
		return os.TempDir()
	}
	return name
}

// tempFile makes a file in dir that nobody else can open and that is gone
// with its descriptor: O_TMPFILE, or where the file system lacks that a file
// of mode 0600 removed at once. Its name is one that gc knows as that of a
// file under way, should the process be killed in between.
func tempFile(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
	}
	f, err := os.CreateTemp(dir, "new-*.zip")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
