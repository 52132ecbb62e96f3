package main

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A download goes through the proxy that the environment names, and the
// proxy's password goes nowhere else.
func TestHTTPProxy(t *testing.T) {
	archive, err := os.ReadFile(releaseTar(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // of asked: the server has goroutines of its own
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.URL.String()+" "+r.Header.Get("Proxy-Authorization"))
		mu.Unlock()
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write(archive)
	}))
	defer proxy.Close()
	host := strings.TrimPrefix(proxy.URL, "http://")
	store := filepath.Join(t.TempDir(), "store")
	run := func(proxy string, args ...string) (string, error) {
		cmd := exec.Command(gofsBinary(t), append([]string{"--store", store, "import", "--verify=off"}, args...)...)
		cmd.Env = append(os.Environ(), "GOPROXY=off", "GOENV=off", "HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "http_proxy=", "https_proxy=", "NO_PROXY=", "no_proxy=")
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "secret") {
			t.Errorf("%s: %s", proxy, out)
		}
		return string(out), err
	}
	const url = "http://releases.example/go1.22.8.linux-amd64.tar.gz"
	if out, err := run("http://me:secret@"+host, "--allow-http", url); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	basic := " Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret"))
	mu.Lock()
	if len(asked) != 1 || asked[0] != "GET "+url+basic {
		t.Errorf("the proxy was asked %q", asked)
	}
	mu.Unlock()
	for _, bad := range []string{"http://me:secret@" + host, "http://me:secret@127.0.0.1:1", "me:secret@%zz"} {
		if out, err := run(bad, "https://me:secret@releases.example/go1.22.8.linux-amd64.tar.gz?token=secret"); err == nil || strings.Count(out, "gofs: ") != 1 {
			t.Errorf("%s: %v: %s", bad, err, out)
		}
	}
	if out, err := run("", url); err == nil || !strings.Contains(out, "--allow-http") {
		t.Errorf("plain http: %v: %s", err, out)
	}
}
