package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

const (
	stallTimeout = time.Minute
	maxRedirects = 10
	maxReply     = 32 << 20 // bytes of a list; go.dev's has 4 MB
)

// newClient is c, or a client of its own, with gofs's rule for redirects.
func newClient(c *http.Client) *http.Client {
	client := &http.Client{}
	if c != nil {
		*client = *c
	} else if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone() // it honours $HTTPS_PROXY and bounds dialling and TLS
		t.DisableCompression = true
		t.MaxResponseHeaderBytes = 1 << 20
		client.Transport = t
	}
	client.CheckRedirect = checkRedirect
	return client
}

// checkRedirect lets nobody lead from https to anything else.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d in a row", ErrRedirect, maxRedirects)
	}
	from, to := via[len(via)-1].URL.Scheme, req.URL.Scheme
	if to != from && to != "https" {
		return fmt.Errorf("%w: it leads from %s to %s", ErrRedirect, from, to)
	}
	return nil
}

// statusError is an answer other than 200.
type statusError struct {
	code   int
	status string
}

func (e *statusError) Error() string { return ErrStatus.Error() + ": " + e.status }
func (e *statusError) Unwrap() error { return ErrStatus }

// body is a download under way. Reads of it fail when no byte comes for a
// while.
type body struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	r      io.ReadCloser
	size   int64 // -1 if the server does not say
	stall  time.Duration
	timer  *time.Timer
}

// fetch asks for a URL. ctx bounds the wait for the answer's header; the body
// lives until it is closed. Errors do not name the URL, which may hold
// credentials.
func fetch(ctx context.Context, rawURL string, o Options) (*body, error) {
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	b := &body{ctx: life, cancel: cancel, stall: o.stall}
	b.timer = time.AfterFunc(o.stall, func() { cancel(fmt.Errorf("%w: no byte for %v", ErrStalled, o.stall)) })
	release := context.AfterFunc(ctx, func() { cancel(ctx.Err()) })
	defer release()

	req, err := http.NewRequestWithContext(life, http.MethodGet, rawURL, nil)
	if err != nil {
		return nil, b.fail(err)
	}
	req.Header.Set("Accept-Encoding", "identity") // the archive as it is, not unpacked on the way
	req.Header.Set("User-Agent", "gofs")
	resp, err := o.Client.Do(req)
	if err != nil {
		return nil, b.fail(err)
	}
	b.timer.Stop()
	b.r, b.size = resp.Body, resp.ContentLength
	if resp.StatusCode != http.StatusOK {
		b.Close()
		return nil, &statusError{resp.StatusCode, statusText(resp)}
	}
	return b, nil
}

// statusText is the status by its number: the words of the server's own line
// are not to be trusted on a terminal.
func statusText(resp *http.Response) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))
}

func (b *body) fail(err error) error {
	b.timer.Stop()
	err = b.cause(err)
	b.cancel(nil)
	return bare(err)
}

// cause tells why the request was cancelled, if it was.
func (b *body) cause(err error) error {
	if b.ctx.Err() != nil && err != io.EOF {
		return context.Cause(b.ctx)
	}
	return err
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.r.Read(p)
	b.timer.Stop()
	if err != nil {
		err = b.cause(err)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(errors.New("download closed"))
	return b.r.Close()
}

// fetchAll is fetch for answers of at most so many bytes.
func fetchAll(ctx context.Context, rawURL string, o Options, most int64) ([]byte, error) {
	b, err := fetch(ctx, rawURL, o)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	defer context.AfterFunc(ctx, func() { b.cancel(ctx.Err()) })()
	data, err := io.ReadAll(io.LimitReader(b, most+1))
	if err != nil {
		return nil, bare(err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("answer longer than %d MiB", most>>20)
	}
	return data, nil
}

func hasScheme(arg string) bool { return strings.Contains(arg, "://") }

// cleanLabel is arg without what a URL may hold of credentials: user,
// password, query and fragment.
func cleanLabel(arg string) string {
	if !hasScheme(arg) {
		return arg
	}
	u, err := url.Parse(arg)
	if err != nil {
		scheme, _, _ := strings.Cut(arg, "://")
		return scheme + "://..."
	}
	return cleanURL(u)
}

func cleanURL(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return c.String()
}

// openURL opens an archive as it comes over http or https.
func openURL(ctx context.Context, arg string, o Options) (Source, error) {
	label := cleanLabel(arg)
	u, err := url.Parse(arg)
	if err != nil || u.Host == "" && u.Scheme != "file" {
		return nil, fmt.Errorf("%s: not a proper URL", label)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s: only http and https URLs can be read", label)
	}
	n := name{label: label, origin: label}
	n.claim(path.Base(u.Path))
	b, err := fetch(ctx, arg, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", label, err)
	}
	o.Status("fetching " + label)
	return openStream(ctx, newRaw(b, b.size, o), n, o)
}
