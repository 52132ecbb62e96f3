package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

const (
	stallTimeout = time.Minute
	stallBytes   = 64 << 10 // a download must bring in every stallTimeout
	replyStalls  = 5        // stallTimeouts that a list or the like may take in all
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

// plainHTTP says whether u leads over a network in plain text.
func plainHTTP(u *url.URL) bool {
	if u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip == nil || !ip.IsLoopback()
}

// checkRedirect lets nobody lead from https to anything else, nor from this
// machine into a network in plain text.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d in a row", ErrRedirect, maxRedirects)
	}
	from, to := via[len(via)-1].URL.Scheme, req.URL.Scheme
	if to != from && to != "https" {
		return fmt.Errorf("%w: it leads from %s to %s", ErrRedirect, from, to)
	}
	if plainHTTP(req.URL) && !plainHTTP(via[0].URL) {
		return fmt.Errorf("%w: it leads to plain http", ErrRedirect)
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

// body is a download under way. Reads of it fail when too few bytes come for
// a while, be it none or one now and then.
type body struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	r      io.ReadCloser
	size   int64 // -1 if the server does not say
	stall  time.Duration
	timer  *time.Timer
	left   time.Duration // for the next stallBytes
	got    int           // of these
}

// fetch asks for a URL. ctx bounds the wait for the answer's header; the body
// lives until it is closed. Errors do not name the URL, which may hold
// credentials.
func fetch(ctx context.Context, rawURL string, o Options) (*body, error) {
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	b := &body{ctx: life, cancel: cancel, stall: o.stall, left: o.stall}
	b.timer = time.AfterFunc(o.stall, func() { cancel(fmt.Errorf("%w: less than %d KiB in %v", ErrStalled, stallBytes>>10, o.stall)) })
	release := context.AfterFunc(ctx, func() { cancel(ending(ctx)) })
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
	// Only the time spent here counts: it is the sender's.
	start := time.Now()
	b.timer.Reset(b.left)
	n, err := b.r.Read(p)
	b.timer.Stop()
	b.left -= time.Since(start)
	if b.got += n; b.got >= stallBytes {
		b.got, b.left = 0, b.stall
	}
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

// fetchAll is fetch for answers of at most so many bytes, which have to come
// soon.
func fetchAll(ctx context.Context, rawURL string, o Options, most int64) ([]byte, error) {
	late := fmt.Errorf("%w: no whole answer in %v", ErrStalled, replyStalls*o.stall)
	ctx, cancel := context.WithTimeoutCause(ctx, replyStalls*o.stall, late)
	defer cancel()
	b, err := fetch(ctx, rawURL, o)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	defer context.AfterFunc(ctx, func() { b.cancel(ending(ctx)) })()
	data, err := io.ReadAll(io.LimitReader(b, most+1))
	if err != nil {
		return nil, bare(err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("answer longer than %d MiB", most>>20)
	}
	return data, nil
}

// ending is why ctx has ended: because of fetchAll, or as others end theirs.
func ending(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, ErrStalled) {
		return err
	}
	return ctx.Err()
}

func hasScheme(arg string) bool { return strings.Contains(arg, "://") }

// Redact is the name of a source without what a URL may hold of credentials:
// user, password, query and fragment.
func Redact(arg string) string {
	if !hasScheme(arg) {
		return arg
	}
	return redactURL(arg)
}

// redactURL is Redact for what is meant to be a URL.
func redactURL(arg string) string {
	u, err := url.Parse(arg)
	if err != nil || u.Host == "" && u.Scheme != "file" {
		scheme, _, _ := strings.Cut(arg, ":")
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
	label := Redact(arg)
	u, err := url.Parse(arg)
	if err != nil || u.Host == "" && u.Scheme != "file" {
		return nil, fmt.Errorf("%s: not a proper URL", label)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s: only http and https URLs can be read", label)
	}
	if plainHTTP(u) && !o.AllowHTTP {
		return nil, fmt.Errorf("%s: %w (use https, or --allow-http)", label, ErrPlainHTTP)
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
