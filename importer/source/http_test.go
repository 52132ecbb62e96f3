package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// serve starts a server on loopback.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// walkURL opens and reads url.
func walkURL(t testing.TB, ctx context.Context, url string, o Options) error {
	t.Helper()
	if o.TempDir == "" {
		o.TempDir = t.TempDir()
	}
	src, err := Open(ctx, url, o)
	if err != nil {
		return err
	}
	defer src.Close()
	return drain(ctx, src)
}

func TestURL(t *testing.T) {
	tarball := gz(makeTar(t, true, versionHdr(), file("go/a", 100000)))
	sum := sha256.Sum256(tarball)
	zipped := makeZip(t, modVersion())
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "me" || pass != "secret" || r.URL.RawQuery != "token=hidden" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/go1.23.3.linux-amd64.tar.gz":
			w.Header().Set("Content-Encoding", "gzip") // as some servers wrongly say
			w.Header().Set("Content-Length", strconv.Itoa(len(tarball)))
			w.Write(tarball)
		case "/x.zip":
			w.Write(zipped)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	host := strings.TrimPrefix(s.URL, "http://")
	arg := func(file string) string { return "http://me:secret@" + host + "/" + file + "?token=hidden" }

	src := openT(t, arg("go1.23.3.linux-amd64.tar.gz"), Options{SHA256: hex.EncodeToString(sum[:])})
	if err := drain(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	clean := s.URL + "/go1.23.3.linux-amd64.tar.gz"
	if v, p, ok := src.Release(); src.Origin() != clean || src.Label() != clean || v != "1.23.3" || p != "linux-amd64" || !ok {
		t.Errorf("origin %s, label %s, release %s %s", src.Origin(), src.Label(), v, p)
	}
	if n := int64(len(tarball)); src.Size() != n || src.Read() != n {
		t.Errorf("read %d of %d, want %d", src.Read(), src.Size(), n)
	}
	if err := walkURL(t, t.Context(), arg("x.zip"), Options{}); err != nil {
		t.Error(err)
	}

	for _, url := range []string{arg("none"), arg("none") + "%zz", "http://me:secret@127.0.0.1:1/x?token=hidden", "http://me:secret@/x", "https://me:secret@" + host + "/x"} {
		err := walkURL(t, t.Context(), url, Options{})
		wantError(t, err, err)
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "me:") {
			t.Errorf("error gives away credentials: %v", err)
		}
	}
	wantError(t, walkURL(t, t.Context(), arg("none"), Options{}), ErrStatus)
	wantError(t, walkURL(t, t.Context(), arg("go1.23.3.linux-amd64.tar.gz"), Options{MaxSize: 10, MaxEntries: 1}), ErrTooLarge)
}

func TestRedirects(t *testing.T) {
	archive := gz(makeTar(t, true, versionHdr()))
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/loop" {
			http.Redirect(w, r, "/loop", http.StatusFound)
			return
		}
		w.Write(archive)
	})
	var secure *httptest.Server
	secure = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/down":
			http.Redirect(w, r, plain.URL+"/x", http.StatusFound)
		case "/same":
			http.Redirect(w, r, secure.URL+"/x", http.StatusFound)
		default:
			w.Write(archive)
		}
	}))
	t.Cleanup(secure.Close)
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, secure.URL+r.URL.Path, http.StatusFound)
	})
	for _, tt := range []struct {
		url  string
		want error
	}{
		{plain.URL + "/x", nil},
		{secure.URL + "/same", nil},
		{up.URL + "/x", nil},
		{secure.URL + "/down", ErrRedirect},
		{up.URL + "/down", ErrRedirect},
		{plain.URL + "/loop", ErrRedirect},
	} {
		err := walkURL(t, t.Context(), tt.url, Options{Client: secure.Client()})
		if tt.want != nil {
			wantError(t, err, tt.want)
		} else if err != nil {
			t.Error(err)
		}
	}
}

// A connection that ends early, with or without saying so.
func TestDownloadCut(t *testing.T) {
	archive := gz(makeTar(t, true, versionHdr(), file("go/a", 100000)))
	zipped := makeZip(t, modVersion(), zfile{name: modTop + "a", content: strings.Repeat("x", 100000)})
	for name, tt := range map[string]struct {
		body []byte
		cut  func(conn *net.TCPConn)
	}{
		"tarball": {archive, func(c *net.TCPConn) {}},
		"zip":     {zipped, func(c *net.TCPConn) {}},
		"reset":   {zipped, func(c *net.TCPConn) { c.SetLinger(0) }},
	} {
		for _, announced := range []bool{true, false} {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				head := "HTTP/1.1 200 OK\r\nConnection: close\r\n"
				if announced {
					head += "Content-Length: " + strconv.Itoa(len(tt.body)) + "\r\n"
				}
				conn.Write([]byte(head + "\r\n"))
				conn.Write(tt.body[:len(tt.body)-100])
				tt.cut(conn.(*net.TCPConn))
			})
			err := walkURL(t, t.Context(), s.URL+"/x", Options{})
			if name == "reset" && err != nil {
				continue // what the kernel still delivers differs
			}
			wantError(t, err, ErrTruncated)
		}
	}
}

func TestDownloadStalled(t *testing.T) {
	archive := makeZip(t, modVersion(), zfile{name: modTop + "a", content: strings.Repeat("x", 100000)})
	for _, sent := range []int{0, 10, 1000} {
		gone := make(chan struct{})
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if sent > 0 {
				w.Write(archive[:sent])
				w.(http.Flusher).Flush()
			}
			select {
			case <-r.Context().Done():
			case <-gone:
			}
		})
		wantError(t, walkURL(t, t.Context(), s.URL+"/x.zip", Options{stall: 50 * time.Millisecond}), ErrStalled)
		close(gone)
	}
}

func TestDownloadCancel(t *testing.T) {
	archive := makeZip(t, modVersion(), zfile{name: modTop + "a", content: strings.Repeat("x", 100000)})
	for _, sent := range []int{0, 10, 1000} {
		ctx, cancel := context.WithCancel(t.Context())
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if sent > 0 {
				w.Write(archive[:sent])
				w.(http.Flusher).Flush()
			}
			cancel()
			<-r.Context().Done()
		})
		wantError(t, walkURL(t, ctx, s.URL+"/x.zip", Options{}), context.Canceled)
	}
}

func TestBareHidesURLs(t *testing.T) {
	_, err := http.Get("http://me:secret@127.0.0.1:1/x?token=hidden")
	if err == nil {
		t.Fatal("something listens on port 1")
	}
	if msg := bare(errors.Join(err)).Error(); strings.Contains(msg, "hidden") {
		t.Errorf("bare left %q", msg)
	}
}

// Plain http is taken from this machine, or where somebody asked for it.
func TestPlainHTTP(t *testing.T) {
	archive := gz(makeTar(t, true, versionHdr()))
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(archive) })
	// A machine of another name, which is this one.
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	there := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(s.URL, "http://"))
	}}
	client := &http.Client{Transport: there}
	for _, url := range []string{"http://elsewhere.example/x", "http://192.0.2.1/x", "http://localhost.example/x", "http://127.0.0.1.example/x"} {
		err := walkURL(t, t.Context(), url, Options{Client: client})
		wantError(t, err, ErrPlainHTTP)
		if !strings.Contains(err.Error(), "--allow-http") {
			t.Errorf("no way out in %q", err)
		}
		if err := walkURL(t, t.Context(), url, Options{Client: client, AllowHTTP: true}); err != nil {
			t.Error(err)
		}
	}
	for _, url := range []string{"http://localhost" + port + "/x", "http://[::1]/x", "http://127.9.9.9/x"} {
		if err := walkURL(t, t.Context(), url, Options{Client: client}); err != nil {
			t.Error(err)
		}
	}
	// Nor does a redirect from here lead there.
	here := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "elsewhere.example" {
			w.Write(archive)
			return
		}
		http.Redirect(w, r, "http://elsewhere.example/x", http.StatusFound)
	})
	there.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(here.URL, "http://"))
	}
	wantError(t, walkURL(t, t.Context(), here.URL+"/x", Options{Client: client}), ErrRedirect)
}

// A server that sends a byte now and then is one that has stalled.
func TestDownloadDrips(t *testing.T) {
	archive := gz(makeTar(t, true, versionHdr(), file("go/a", 100000)))
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for i := 0; ; i++ {
			if _, err := w.Write(archive[i%len(archive):][:1]); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	wantError(t, walkURL(t, t.Context(), s.URL+"/x", Options{stall: 600 * time.Millisecond}), ErrStalled)
	// A list that comes quicker than that, and never ends.
	o := Options{stall: 50 * time.Millisecond}.withDefaults()
	endless := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for block := make([]byte, stallBytes); r.Context().Err() == nil; time.Sleep(20 * time.Millisecond) {
			if _, err := w.Write(block); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	_, err := fetchAll(t.Context(), endless.URL, o, 1<<40)
	wantError(t, err, ErrStalled)
	_, err = fetchAll(t.Context(), endless.URL, Options{}.withDefaults(), 100)
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an answer that is too long gives %v", err)
	}
}

// No password of a setting is in an error.
func TestSecretsInSettings(t *testing.T) {
	for _, goproxy := range []string{
		"http://me:secret@127.0.0.1:1", "https:/me:secret@host/x", "me:secret@host:x", "ftp://me:secret@host", "https://me:secret@ho st/", "file://me:secret@host/x",
		"https://me:secret@[::1", "https://me:secret@/", "me:secret@host/%zz", "http://127.0.0.1:1/?token=secret",
	} {
		env := map[string]string{"GOPROXY": goproxy, "GOENV": "off"}
		o := Options{Getenv: func(key string) string { return env[key] }}
		_, err := List(t.Context(), o)
		if err == nil {
			t.Errorf("GOPROXY=%s lists releases", goproxy)
		}
		notes := ""
		o.Status = func(s string) { notes += s }
		for _, version := range []string{"1.22.8", "1.22"} {
			err = errors.Join(err, walkURL(t, t.Context(), version, o))
		}
		if _, serr := NewSumDB("sum.example", goproxy, o); serr != nil {
			err = errors.Join(err, serr)
		}
		if db, serr := NewSumDB("sum.example", "", o); serr == nil {
			_, serr = db.Read(t.Context(), "/latest")
			err = errors.Join(err, serr)
		}
		if text := fmt.Sprint(err) + notes; strings.Contains(text, "secret") {
			t.Errorf("GOPROXY=%s: %s", goproxy, text)
		}
	}
}
