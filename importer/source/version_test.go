package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// modProxy is a module proxy with releases that it lists and others that it
// only has.
func modProxy(t testing.TB, listed, unlisted []string, absent int) (url string) {
	has := make(map[string]bool)
	for _, r := range append(append([]string(nil), listed...), unlisted...) {
		has[r] = true
	}
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		file, ok := strings.CutPrefix(r.URL.Path, "/golang.org/toolchain/@v/")
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if file == "list" {
			if listed == nil {
				w.WriteHeader(absent)
			}
			for _, r := range listed {
				fmt.Fprintf(w, "v0.0.1-go%s\n", r)
			}
			return
		}
		release := strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(file, ".info"), ".zip"), "v0.0.1-go")
		switch {
		case !has[release]:
			w.WriteHeader(absent)
		case strings.HasSuffix(file, ".info"):
			fmt.Fprintf(w, `{"Version":"v0.0.1-go%s"}`, release)
		default:
			w.Write(moduleZip(t, release))
		}
	}).URL
}

// moduleZip is the module of a release such as "1.23.3.linux-amd64".
func moduleZip(t testing.TB, release string) []byte {
	v, _, _ := splitRelease("go" + release)
	return makeZip(t, zfile{name: "golang.org/toolchain@v0.0.1-go" + release + "/VERSION", content: "go" + v + "\n"})
}

// env makes a Getenv.
func env(kv ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == key {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestVersions(t *testing.T) {
	listed := []string{"1.9.linux-amd64", "1.20.linux-amd64", "1.20.14.linux-amd64", "1.22.8.linux-amd64", "1.23.1.linux-amd64",
		"1.23.3.linux-amd64", "1.23.12.darwin-arm64", "1.24rc1.linux-amd64", "1.9.2.linux-armv6l", "nonsense"}
	unlisted := []string{"1.22.9.linux-amd64", "1.23.4.linux-amd64", "1.23.5.linux-amd64", "1.24.0.linux-amd64", "1.24.1.linux-amd64",
		"1.21.0.linux-amd64", "1.21.1.linux-amd64", "1.19.linux-amd64"}
	for _, absent := range []int{http.StatusNotFound, http.StatusForbidden} {
		o := Options{Platform: "linux-amd64", Getenv: env("GOPROXY", modProxy(t, listed, unlisted, absent))}
		for _, tt := range []struct{ arg, version, hint string }{
			{"1.22.8", "1.22.8", ""},
			{"go1.22.8", "1.22.8", ""},
			{"1.22.9", "1.22.9", ""},
			{"1.22", "1.22.9", ""},
			{"go1.23", "1.23.5", ""},
			{"1.21", "1.21.1", ""},
			{"1.20", "1.20", ""},
			{"1.9", "1.9", ""},
			{"1.19", "1.19", ""},
			{"1.24rc1", "1.24rc1", ""},
			{"stable", "1.24.1", ""},
			{"latest", "1.24.1", ""},
			{"oldstable", "1.23.5", ""},
			{"oldstable.plan9-386", "", "no stable release for plan9-386"},
			{"1.23.darwin-arm64", "1.23.12", ""},
			{"1.23.12.darwin-arm64", "1.23.12", ""},
			{"1.23.99", "", "newest 1.23 is 1.23.5"},
			{"1.24rc9", "", "newest 1.24 is 1.24.1"},
			{"1.20.99", "", "newest 1.20 is 1.20.14"},
			{"1.99", "", "newest is 1.24.1"},
			{"1.23.12", "", "it is there for darwin-arm64"},
			{"stable.plan9-386", "", "no stable release for plan9-386"},
		} {
			src, err := Open(t.Context(), tt.arg, o)
			if tt.version == "" {
				wantError(t, err, ErrVersionUnknown)
				if !strings.Contains(err.Error(), tt.hint) || !strings.HasPrefix(err.Error(), tt.arg+": ") {
					t.Errorf("error %q lacks %q", err, tt.hint)
				}
				continue
			}
			if err != nil {
				t.Error(err)
				continue
			}
			v, p, ok := src.Release()
			mod, mv, isMod := src.Module()
			if v != tt.version || !ok || src.Origin() != "proxy golang.org/toolchain@v0.0.1-go"+v+"."+p ||
				!isMod || mod+"@"+mv != strings.TrimPrefix(src.Origin(), "proxy ") || src.Label() != tt.arg {
				t.Errorf("%s: got %s %s, origin %s, module %s@%s", tt.arg, v, p, src.Origin(), mod, mv)
			}
			if err := drain(t.Context(), src); err != nil {
				t.Error(err)
			}
			src.Close()
		}
	}
}

func TestProxyList(t *testing.T) {
	good := modProxy(t, []string{"1.23.3.linux-amd64"}, nil, 404)
	empty := modProxy(t, nil, nil, 404)
	gone := modProxy(t, nil, nil, 410)
	broken := modProxy(t, nil, nil, 500)
	dead := "http://127.0.0.1:1"
	dir := t.TempDir()
	write(t, filepath.Join(dir, "golang.org/toolchain/@v/v0.0.1-go1.23.3.linux-amd64.zip"), string(moduleZip(t, "1.23.3.linux-amd64")), 0o644)
	write(t, filepath.Join(dir, "golang.org/toolchain/@v/list"), "v0.0.1-go1.23.3.linux-amd64\n", 0o644)
	for _, tt := range []struct {
		goproxy string
		want    error // nil for success
	}{
		{good, nil},
		{empty + "," + good, nil},
		{gone + "," + good, nil},
		{empty + ",direct," + good, nil},
		{"direct," + good, nil},
		{" " + good + " , off", nil},
		{broken + "," + good, ErrStatus},
		{broken + "|" + good, nil},
		{dead + "|" + good, nil},
		{empty + "|" + dead + "|" + good, nil},
		{empty, ErrVersionUnknown},
		{empty + ",direct", ErrVersionUnknown},
		{"off", ErrProxyOff},
		{"off," + good, ErrProxyOff},
		{empty + ",off", ErrVersionUnknown},
		{broken + "|off", ErrStatus},
		{"file://" + dir, nil},
		{"file://" + dir + "/none", ErrVersionUnknown},
		{"file://" + dir + "/none," + good, nil},
		{good + "/?x=y", nil},
	} {
		o := Options{Platform: "linux-amd64", Getenv: env("GOPROXY", tt.goproxy)}
		err := walkURL(t, t.Context(), "1.23.3", o)
		if tt.want == nil && err != nil {
			t.Errorf("GOPROXY=%s: %v", tt.goproxy, err)
		} else if tt.want != nil {
			wantError(t, err, tt.want)
		}
	}
	for _, bad := range []string{"ftp://x/y", "https://", "file://host/x", dead + "," + good} {
		err := walkURL(t, t.Context(), "1.23.3", Options{Platform: "linux-amd64", Getenv: env("GOPROXY", bad)})
		wantError(t, err, err)
	}
	list, err := List(t.Context(), Options{Getenv: env("GOPROXY", "file://"+dir)})
	if err != nil || len(list) != 1 || list[0].Version != "1.23.3" || list[0].Platform != "linux-amd64" || !list[0].Stable {
		t.Errorf("List = %+v, %v", list, err)
	}
}

// What a proxy sends must be the module that was asked for.
func TestProxyLies(t *testing.T) {
	for name, body := range map[string][]byte{
		"other version": moduleZip(t, "1.23.4.linux-amd64"),
		"Windows zip":   makeZip(t, zfile{name: "go/VERSION", content: "go1.23.3"}),
		"tarball":       gz(makeTar(t, true, versionHdr())),
		"page":          []byte("<!DOCTYPE html>"),
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(body) })
		err := walkURL(t, t.Context(), "1.23.3", Options{Platform: "linux-amd64", Getenv: env("GOPROXY", s.URL)})
		if err == nil {
			t.Errorf("%s was taken", name)
			continue
		}
		wantError(t, err, ErrNotRelease)
		if strings.Count(err.Error(), "1.23.3: ") != 1 {
			t.Errorf("error %q does not name the source once", err)
		}
	}
}

func TestGoProxySetting(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config/go/env"), "# GOPROXY=https://comment\nGOFLAGS=-x\nGOPROXY=https://user.example\n", 0o644)
	write(t, filepath.Join(dir, "home/.config/go/env"), "GOPROXY=https://home.example\n", 0o644)
	write(t, filepath.Join(dir, "goroot/go.env"), "GOPROXY=https://goroot.example,direct\n", 0o644)
	write(t, filepath.Join(dir, "real/go.env"), "GOPROXY=https://path.example\n", 0o644)
	write(t, filepath.Join(dir, "real/bin/go"), "", 0o755)
	write(t, filepath.Join(dir, "links/.keep"), "", 0o644)
	if err := os.Symlink("../real/bin/go", filepath.Join(dir, "links/go")); err != nil {
		t.Fatal(err)
	}
	at := func(s string) string { return filepath.Join(dir, s) }
	for _, tt := range []struct {
		env  []string
		want string
	}{
		{[]string{"GOPROXY", "https://env.example", "XDG_CONFIG_HOME", at("config")}, "https://env.example"},
		{[]string{"XDG_CONFIG_HOME", at("config"), "HOME", at("home"), "GOROOT", at("goroot")}, "https://user.example"},
		{[]string{"HOME", at("home")}, "https://home.example"},
		{[]string{"HOME", at("home"), "GOENV", at("config/go/env")}, "https://user.example"},
		{[]string{"HOME", at("home"), "GOENV", "off", "GOROOT", at("goroot"), "PATH", at("links")}, "https://goroot.example,direct"},
		{[]string{"HOME", at("none"), "PATH", at("none") + ":" + at("links")}, "https://path.example"},
		{[]string{"HOME", at("none"), "PATH", ""}, ""},
	} {
		if got := GoEnv(env(tt.env...), "GOPROXY"); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.env, got, tt.want)
		}
	}
}

func TestDownloadPage(t *testing.T) {
	archive := gz(makeTar(t, true, versionHdr()))
	sum := sha256.Sum256(archive)
	right := hex.EncodeToString(sum[:])
	page := func(sum string) string {
		type file struct{ Filename, OS, Arch, Version, SHA256, Kind string }
		type release struct {
			Version string `json:"version"`
			Files   []file `json:"files"`
		}
		var all []release
		for _, v := range []string{"go1.22.8", "go1.23.3", "go1.23.12", "go1.24rc1"} {
			all = append(all, release{v, []file{
				{Filename: v + ".linux-amd64.tar.gz", OS: "linux", Arch: "amd64", SHA256: sum, Kind: "archive"},
				{Filename: v + ".linux-armv6l.tar.gz", OS: "linux", Arch: "armv6l", SHA256: sum, Kind: "archive"},
				{Filename: v + ".windows-amd64.msi", OS: "windows", Arch: "amd64", SHA256: sum, Kind: "installer"},
				{Filename: "../../" + v + ".evil-amd64.tar.gz", SHA256: sum, Kind: "archive"},
			}})
		}
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/dl/" && r.URL.RawQuery == "mode=json&include=all":
			fmt.Fprint(w, page(right))
		case r.URL.Path == "/bad/":
			fmt.Fprint(w, page(strings.Repeat("0", 64)))
		case r.URL.Path == "/none/":
			fmt.Fprint(w, page(""))
		case strings.HasSuffix(r.URL.Path, ".tar.gz"):
			w.Write(archive)
		default:
			fmt.Fprint(w, "no JSON")
		}
	})
	o := func(dir string) Options {
		return Options{Platform: "linux-amd64", Getenv: env("GOPROXY", "direct"), dlBase: s.URL + dir}
	}
	for arg, want := range map[string]string{"1.22.8": "1.22.8.linux-amd64", "1.23": "1.23.12.linux-amd64", "stable": "1.23.12.linux-amd64", "1.24rc1.linux-arm": "1.24rc1.linux-armv6l"} {
		src := openT(t, arg, o("/dl/"))
		if src.Origin() != s.URL+"/dl/go"+want+".tar.gz" {
			t.Errorf("%s: origin %s", arg, src.Origin())
		}
		if err := drain(t.Context(), src); err != nil {
			t.Error(err)
		}
	}
	wantError(t, walkURL(t, t.Context(), "1.23.99", o("/dl/")), ErrVersionUnknown)
	wantError(t, walkURL(t, t.Context(), "1.23.3", o("/bad/")), ErrChecksum)
	wantError(t, walkURL(t, t.Context(), "1.23.3", o("/none/")), ErrChecksum)
	if err := walkURL(t, t.Context(), "1.23.3", o("/other/")); err == nil {
		t.Error("a page without JSON was taken")
	}
	other := o("/dl/")
	other.SHA256 = strings.Repeat("1", 64)
	wantError(t, walkURL(t, t.Context(), "1.23.3", other), ErrChecksum)
	list, err := List(context.Background(), o("/dl/"))
	if err != nil || len(list) != 8 || list[0].SHA256 != right || list[0].Version != "1.22.8" || list[7].Stable {
		t.Errorf("List: %+v, %v", list, err)
	}
}

func TestParseVersion(t *testing.T) {
	for file, want := range map[string]string{
		"go1.23.3\ntime 2024-11-06T18:46:45Z\n": "1.23.3", "go1.20.14": "1.20.14", "go1.24rc1\n": "1.24rc1", "go1.9": "1.9",
		"go1.22.1 X:rangefunc\n": "1.22.1",
		"devel go1.24-abcdef":    "", "": "", "1.23.3": "", "go1.23/../x": "", "gox": "", "go1.23.3-\x00": "",
	} {
		got, err := ParseVersion([]byte(file))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseVersion(%q) = %q, %v", file, got, err)
		}
	}
	if _, err := ParseVersion([]byte("devel go1.24")); err == nil || !strings.Contains(err.Error(), "--as") {
		t.Errorf("a development build gives %v", err)
	}
	when, ok := VersionTime([]byte("go1.23.3\ntime 2024-11-06T18:46:45Z\n"))
	if !ok || !when.Equal(time.Date(2024, 11, 6, 18, 46, 45, 0, time.UTC)) {
		t.Errorf("VersionTime = %v, %v", when, ok)
	}
	for _, file := range []string{"go1.20.14", "go1.23\ntime yesterday\n", "go1.23\ntime 9999-01-01T00:00:00Z\n"} {
		if when, ok := VersionTime([]byte(file)); ok {
			t.Errorf("VersionTime(%q) = %v", file, when)
		}
	}
}
