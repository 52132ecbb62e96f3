package source

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"

	kflate "github.com/klauspost/compress/flate"
)

// What callers tell apart. Every error of this package is one line that
// starts with the source's label; these are wrapped inside.
var (
	ErrNotRelease     = errors.New("not a Go release")
	ErrUnsafe         = errors.New("unsafe entry")
	ErrTooLarge       = errors.New("too large")
	ErrChecksum       = errors.New("checksum mismatch")
	ErrTruncated      = errors.New("truncated")
	ErrCorrupt        = errors.New("corrupt archive")
	ErrChanged        = errors.New("changed while it was read")
	ErrVersionUnknown = errors.New("no such Go version")
	ErrProxyOff       = errors.New("fetching is switched off by GOPROXY=off")
	ErrStatus         = errors.New("unexpected HTTP status")
	ErrStalled        = errors.New("download stalled")
	ErrRedirect       = errors.New("redirect refused")
	ErrPlainHTTP      = errors.New("plain http can be read and changed on the way")
)

// fail is the usual form of this package's errors.
func fail(label string, kind error, format string, args ...any) error {
	return &labelledError{fmt.Errorf("%s: %w: %s", label, kind, fmt.Sprintf(format, args...))}
}

// plainError carries a sentinel whose own text would not help a reader.
type plainError struct {
	msg string
	is  error
}

func (e *plainError) Error() string { return e.msg }
func (e *plainError) Unwrap() error { return e.is }

// bare strips what repeats a name that the label gives already, and what
// could give away credentials in a URL.
func bare(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
		ue = nil
	}
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}

// readError turns an error met while reading an archive's bytes into one of
// the sentinels, unless it comes from the machine (disk, network, ctx).
func readError(label, what string, err error) error {
	var (
		corrupt  flate.CorruptInputError
		kcorrupt kflate.CorruptInputError
		labelled *labelledError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &labelled):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &labelledError{fmt.Errorf("%s: %w", label, err)}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fail(label, ErrTruncated, "%s ends early", what)
	case errors.As(err, &corrupt), errors.As(err, &kcorrupt), isFormatError(err):
		return fail(label, ErrCorrupt, "%s: %v", what, err)
	}
	return &labelledError{fmt.Errorf("%s: %w", label, bare(err))}
}

// labelledError marks an error that names its source already, so that it is
// not named twice on its way up.
type labelledError struct{ err error }

func (e *labelledError) Error() string { return e.err.Error() }
func (e *labelledError) Unwrap() error { return e.err }
