package resolve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const platform = "linux-amd64"

// installed makes a store of these names; "mine=1.23.3" was imported under a
// name of its own.
func installed(names string) Installed {
	in := Installed{Dir: "/gofs"}
	for _, name := range strings.Fields(names) {
		name, version, own := strings.Cut(name, "=")
		r := fromName(name)
		if r.Platform == HostPlatform {
			r.Platform = platform
		}
		if own {
			r.Version = version
		}
		in.Releases = append(in.Releases, r)
	}
	return in
}

const all = "1.20 1.20.14 1.21.0 1.21.13 1.22.0 1.22.8 1.22.12 1.23.0 1.23.3 1.24rc1 1.25.5 1.26rc1 1.25.5.darwin-arm64 mine=1.23.3"

// What an error says to import satisfies the request.
func TestImportName(t *testing.T) {
	for text, want := range map[string]string{
		">=1.21 <1.24": "1.21", ">1.21 <1.24": "1.23", "<1.21": "1.20", "<1.22.0": "1.21", "<1.22.5": "1.22.4",
		"<=1.22.5": "1.22.5", "<=1.22": "1.21", "<1.22rc2": "1.21", "<=1.22rc2": "1.22rc2", ">1.22": "stable", "!=1.22.5": "stable",
		"1.x": "stable", "1.23.x": "1.23", "~1.22.3": "1.22.3", "go1.22.8": "1.22.8", "oldstable": "oldstable",
	} {
		q, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.importName(); got != want {
			t.Errorf("%s: gofs import %s, want %s", text, got, want)
		}
	}
}

func TestSelect(t *testing.T) {
	for _, tt := range []struct{ version, installed, want string }{
		{"1.22.8", all, "1.22.8"},
		{"go1.22.8", all, "1.22.8"},
		{"v1.22.8", all, "1.22.8"},
		{"1.22", all, "1.22.12"},
		{"1.22.x", all, "1.22.12"},
		{"~1.22", all, "1.22.12"},
		{"~1.22.8", "1.22.0 1.22.9 1.23.0", "1.22.9"},
		{"1.21.0", all, "1.21.0"},
		{"1.21", "1.21rc2 1.21.0", "1.21.0"},
		{"1.24", all, "1.24rc1"},
		{"1.24rc1", all, "1.24rc1"},
		{"1.20", all, "1.20"},
		{"1.20", "1.20.1 1.20.14", "1.20.14"},
		{"1.20.x", "1.20.1 1.20.14", "1.20.14"},
		{"stable", all, "1.25.5"},
		{"latest", all, "1.25.5"},
		{"latest:1.22", all, "1.22.12"},
		{"stable", "1.26rc1", "1.26rc1"},
		{"oldstable", all, "1.23.3"},
		{"1.x", all, "1.25.5"},
		{"1", all, "1.25.5"},
		{"^1.21", all, "1.25.5"},
		{">=1.21 <1.24", all, "1.23.3"},
		{">=1.21,<1.23", all, "1.22.12"},
		{"> 1.22.8 <1.23", all, "1.22.12"},
		{"<=1.22", all, "1.21.13"}, // 1.22.0 is greater than 1.22
		{">=1.24 <1.25", all, "1.24rc1"},
		{">=1.22 <1.23 !=1.22.12", all, "1.22.8"},
		{"=1.22", all, "1.22.12"},
		{"mine", all, "mine"},
		{"1.25.5.darwin-arm64", all, "1.25.5.darwin-arm64"},
		{"1.23.3", "1.23.3.darwin-arm64 mine=1.23.3", ""},
		{"oldstable", "1.25.5 1.25.0", ""},
		{"1.99", all, ""},
		{"nosuch", all, ""},
		{"1.24", "1.23.3 1.25.5", ""},
	} {
		r := Resolver{Installed: installed(tt.installed), Platform: platform}
		c, err := r.Select(tt.version)
		if tt.want == "" {
			var missing *NotImportedError
			if !errors.As(err, &missing) {
				t.Errorf("%s of %s: %v, %v, want a NotImportedError", tt.version, tt.installed, c.Release, err)
			}
			continue
		}
		if err != nil || c.Release.Name != tt.want || c.GOROOT != "/gofs/"+tt.want {
			t.Errorf("%s of %s: %q in %s, %v, want %s", tt.version, tt.installed, c.Release.Name, c.GOROOT, err, tt.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{"", " ", ">=", ">=x", "1.2 3", "<1.2 or", "a/b", "1.22 || 1.23", "!"} {
		if q, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v", text, q)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("Parse(%q): more than a line: %v", text, err)
		}
	}
}

// A tree is written as "path: content" lines, "|" being a new line.
func write(t *testing.T, tree string) string {
	t.Helper()
	root := t.TempDir()
	for line := range strings.Lines(tree) {
		name, content, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(content, "|", "\n")+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"p/sub/deep", "empty"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func resolver(root, dir, have string, env map[string]string) *Resolver {
	return &Resolver{
		Installed:     installed(have),
		Platform:      platform,
		Dir:           filepath.Join(root, dir),
		Getenv:        func(k string) string { return env[k] },
		UserDefault:   filepath.Join(root, "user"),
		SystemDefault: filepath.Join(root, "system"),
	}
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name, dir, tree, env string
		want, where          string // where is relative to the root
		installed            string
	}{
		{name: "variable beats everything", dir: "p", env: "GOFS_VERSION=1.21.0",
			tree: "p/go.work: go 1.22|toolchain go1.22.8\np/go.mod: module m|go 1.22\np/.go-version: 1.22.8\nuser: 1.20", want: "1.21.0", where: "GOFS_VERSION"},
		{name: "go.work before go.mod", dir: "p/sub", tree: "p/go.work: go 1.22|toolchain go1.22.8\np/sub/go.mod: module m|go 1.21|toolchain go1.21.13", want: "1.22.8", where: "p/go.work:2"},
		{name: "go.work's go line", dir: "p/sub", tree: "p/go.work: go 1.22.0\np/sub/go.mod: module m|go 1.21", want: "1.22.12", where: "p/go.work:1"},
		{name: "GOWORK=off", dir: "p/sub", env: "GOWORK=off", tree: "p/go.work: go 1.22\np/sub/go.mod: module m|go 1.21", want: "1.21.13", where: "p/sub/go.mod:2"},
		{name: "GOWORK=file", dir: "empty", env: "GOWORK=p/go.work", tree: "p/go.work: go 1.22", want: "1.22.12", where: "p/go.work:1"},
		{name: "toolchain line", dir: "p", tree: "p/go.mod: module m|go 1.21|toolchain go1.23.0", want: "1.23.0", where: "p/go.mod:3"},
		{name: "toolchain default", dir: "p", tree: "p/go.mod: module m|go 1.21|toolchain default", want: "1.21.13", where: "p/go.mod:2"},
		{name: "go line, newest patch", dir: "p", tree: "p/go.mod: module m|go 1.22", want: "1.22.12", where: "p/go.mod:2"},
		{name: "go line with a patch", dir: "p", tree: "p/go.mod: module m|go 1.22.9", want: "1.22.12", where: "p/go.mod:2"},
		{name: "go line, least newer", dir: "p", tree: "p/go.mod: module m|go 1.22.13", want: "1.23.0", where: "p/go.mod:2"},
		{name: "go line, minor missing", dir: "p", tree: "p/go.mod: module m|go 1.24", want: "1.25.5", where: "p/go.mod:2"},
		{name: "go line, only a prerelease", dir: "p", tree: "p/go.mod: module m|go 1.24", installed: "1.23.0 1.24rc1", want: "1.24rc1", where: "p/go.mod:2"},
		{name: "go line of a prerelease", dir: "p", tree: "p/go.mod: module m|go 1.24rc1", want: "1.24rc1", where: "p/go.mod:2"},
		{name: "go line 1.20", dir: "p", tree: "p/go.mod: module m|go 1.20", want: "1.20.14", where: "p/go.mod:2"},
		{name: "go line 1.18", dir: "p", tree: "p/go.mod: module m|go 1.18", want: "1.20", where: "p/go.mod:2"},
		{name: "directives of a newer Go", dir: "p", installed: "1.99.0", tree: "p/go.mod: module m|go 1.99|novelty x", want: "1.99.0", where: "p/go.mod:2"},
		{name: "from below the module", dir: "p/sub/deep", tree: "p/go.mod: module m|go 1.22", want: "1.22.12", where: "p/go.mod:2"},
		{name: "module without a go line", dir: "p", tree: "p/go.mod: module m\nuser: 1.20.14", want: "1.20.14", where: "user:1"},
		{name: ".go-version", dir: "p", tree: "p/.go-version: # ours|go1.22.8 # pinned", want: "1.22.8", where: "p/.go-version:2"},
		{name: ".go-version, minor", dir: "p", tree: "p/.go-version: 1.22", want: "1.22.12", where: "p/.go-version:1"},
		{name: "nearer file first", dir: "p/sub", tree: "p/go.mod: module m|go 1.21\np/sub/.go-version: 1.22.8", want: "1.22.8", where: "p/sub/.go-version:1"},
		{name: ".go-version refines the go line", dir: "p", tree: "p/go.mod: module m|go 1.22\np/.go-version: 1.23.3", want: "1.23.3", where: "p/.go-version:1"},
		{name: "go line narrows .go-version", dir: "p", tree: "p/go.mod: module m|go 1.22.9\np/.go-version: 1.22", want: "1.22.12", where: "p/.go-version:1"},
		{name: ".go-version before .tool-versions", dir: "p", tree: "p/.go-version: 1.22\np/.tool-versions: golang 1.22.8", want: "1.22.8", where: "p/.go-version:1"},
		{name: ".tool-versions", dir: "p", tree: "p/.tool-versions: nodejs 20|golang 1.22.8 1.21.0", want: "1.22.8", where: "p/.tool-versions:2"},
		{name: ".tool-versions without golang", dir: "p", tree: "p/.tool-versions: nodejs 20\nsystem: 1.21.0", want: "1.21.0", where: "system:1"},
		{name: ".tool-versions system", dir: "p", tree: "p/.tool-versions: golang system\nuser: 1.21.0", want: "1.21.0", where: "user:1"},
		{name: "mise.toml", dir: "p", tree: `p/mise.toml: [env]|go = "x"|[tools]|node = "20"|go = "1.22.8"`, want: "1.22.8", where: "p/mise.toml:5"},
		{name: ".mise.toml with a list", dir: "p", tree: `p/.mise.toml: [tools]|go = ["prefix:1.22", "1.21"]`, want: "1.22.12", where: "p/.mise.toml:2"},
		{name: "mise.toml with a table", dir: "p", tree: `p/mise.toml: tools.go = { version = "1.21.0" }`, want: "1.21.0", where: "p/mise.toml:1"},
		{name: "range in a file", dir: "p", tree: "p/.go-version: >=1.21 <1.22", want: "1.21.13", where: "p/.go-version:1"},
		{name: "user's default", dir: "empty", tree: "user: stable\nsystem: 1.20", want: "1.25.5", where: "user:1"},
		{name: "system's default", dir: "empty", tree: "system: 1.22", want: "1.22.12", where: "system:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := write(t, tt.tree)
			env := map[string]string{}
			if k, v, ok := strings.Cut(tt.env, "="); ok {
				if strings.Contains(v, "/") {
					v = filepath.Join(root, v)
				}
				env[k] = v
			}
			if tt.installed == "" {
				tt.installed = all
			}
			c, err := resolver(root, tt.dir, tt.installed, env).Resolve()
			if err != nil {
				t.Fatal(err)
			}
			if where := strings.TrimPrefix(c.Rule.Where, root+"/"); c.Release.Name != tt.want || where != tt.where {
				t.Errorf("%s by %s, want %s by %s", c.Release.Name, where, tt.want, tt.where)
			}
			if last := c.Steps[len(c.Steps)-1]; len(c.Steps) == 0 || last.What == "" {
				t.Errorf("steps %v", c.Steps)
			}
		})
	}
}

func TestResolveErrors(t *testing.T) {
	for _, tt := range []struct{ name, dir, tree, env, want, installed string }{
		{name: "no rule", dir: "empty", want: "nothing names a Go version here (gofs use VERSION for the project, gofs default VERSION for everything else)"},
		{name: "go.mod does not parse", dir: "p", tree: "p/go.mod: module m|go 1.22 (", want: "p/go.mod:2:"},
		{name: "unknown directive", dir: "p", tree: "p/go.mod: modul m|go 1.22", want: "p/go.mod:1: unknown directive: modul"},
		{name: "go.work does not parse", dir: "p", tree: "p/go.work: go x", want: "p/go.work:1: invalid go version 'x'"},
		{name: "GOWORK is not there", dir: "p", env: "GOWORK=p/none", want: "GOWORK=p/none: no such file"},
		{name: "empty .go-version", dir: "p", tree: "p/.go-version: # nothing", want: "p/.go-version: names no version"},
		{name: "mise.toml does not parse", dir: "p", tree: "p/mise.toml: [tools", want: "p/mise.toml:2: expected"},
		{name: "mise.toml without version", dir: "p", tree: "p/mise.toml: [tools]|go = 3", want: "tools.go names no version"},
		{name: "no version at all", dir: "p", env: "GOFS_VERSION=1.2.3.4/", want: `GOFS_VERSION: "1.2.3.4/" is not a Go version`},
		{name: "not imported", dir: "p", tree: "p/go.mod: module m|go 1.21|toolchain go1.22.3", want: "go 1.22.3, asked for by p/go.mod:3, is not imported (gofs import 1.22.3)"},
		{name: "nothing new enough", dir: "p", tree: "p/go.mod: module m|go 1.27", want: "no imported release satisfies >=1.27, asked for by p/go.mod:2 (gofs import 1.27)"},
		{name: "minor below the minimum", dir: "p", installed: "1.22.0", tree: "p/go.mod: module m|go 1.22.5\np/.go-version: 1.22",
			want: "no imported release satisfies 1.22, asked for by p/.go-version:1 (gofs import 1.22.5)"},
		{name: "range", dir: "p", tree: "p/.go-version: >=1.27 <1.28", want: "(gofs import 1.27)"},
		{name: "toolchain below go line", dir: "p", tree: "p/go.mod: module m|go 1.23|toolchain go1.22.8", want: "p/go.mod:3 wants 1.22.8, but p/go.mod:2 wants >=1.23: make them agree (gofs use VERSION) or set GOFS_VERSION"},
		{name: ".go-version below go line", dir: "p", tree: "p/go.mod: module m|go 1.23\np/.go-version: 1.22.8", want: "p/go.mod:2 wants >=1.23, but p/.go-version:1 wants 1.22.8"},
		{name: ".go-version against toolchain", dir: "p", tree: "p/go.mod: module m|go 1.21|toolchain go1.23.3\np/.go-version: 1.22.8", want: "p/go.mod:3 wants 1.23.3, but p/.go-version:1 wants 1.22.8"},
		{name: "below the enclosing module", dir: "p/sub", tree: "p/go.mod: module m|go 1.23\np/sub/.go-version: 1.22", want: "p/sub/.go-version:1 wants 1.22, but p/go.mod:2 wants >=1.23"},
		{name: "go.work below a module", dir: "p/sub", tree: "p/go.work: go 1.22|toolchain go1.22.8\np/sub/go.mod: module m|go 1.23", want: "p/go.work:2 wants 1.22.8, but p/sub/go.mod:2 wants >=1.23"},
		{name: "two minors", dir: "p", tree: "p/.go-version: 1.22\np/.tool-versions: golang 1.23", want: "p/.go-version:1 wants 1.22, but p/.tool-versions:1 wants 1.23"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := write(t, tt.tree)
			env := map[string]string{}
			if k, v, ok := strings.Cut(tt.env, "="); ok {
				if k == "GOWORK" {
					v = filepath.Join(root, v)
				}
				env[k] = v
			}
			if tt.installed == "" {
				tt.installed = all
			}
			c, err := resolver(root, tt.dir, tt.installed, env).Resolve()
			if err == nil {
				t.Fatalf("resolved to %s", c.Release.Name)
			}
			if got := strings.ReplaceAll(err.Error(), root+"/", ""); !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("error %q, want %q", got, tt.want)
			}
			if tt.name == "no rule" && !errors.Is(err, ErrNoRule) {
				t.Errorf("%v is not ErrNoRule", err)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	table := `27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
61 27 0:45 / /my\040gofs ro,relatime shared:5 - fuse.gofs /var/lib/gofs ro,user_id=%[1]d,group_id=0
63 27 0:47 / /theirs ro,relatime shared:5 - fuse.gofs /home/ann/store ro,user_id=%[2]d,group_id=0,default_permissions
64 27 0:48 / /all ro,relatime shared:5 - fuse.gofs /home/ann/store ro,user_id=%[2]d,group_id=0,allow_other
62 27 0:46 / /other ro,relatime - fuse.sshfs host: ro
`
	table = fmt.Sprintf(table, os.Geteuid(), os.Geteuid()+1)
	if err := os.WriteFile(file, []byte(table), 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := Mounts(file)
	want := []Mount{
		{"/my gofs", "/var/lib/gofs", "0:45", false}, {"/theirs", "/home/ann/store", "0:47", true}, {"/all", "/home/ann/store", "0:48", false},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Mounts = %v, %v, want %v", got, err, want)
	}
}

func TestNewestMount(t *testing.T) {
	mounts := []Mount{{Dir: "/a", Store: "/s"}, {Dir: "/b", Store: "/s"}, {Dir: "/c", Store: "/other"}}
	for store, want := range map[string]string{"/s": "/b", "/other": "/c", "/none": "/c"} {
		if got, err := newest(mounts, store, false); got != want || err != nil {
			t.Errorf("mount of %s: %q, %v, want %q", store, got, err, want)
		}
	}
	// One that does not let this user in is no help.
	closed := append(mounts, Mount{Dir: "/d", Store: "/theirs", Closed: true})
	if got, err := newest(closed, "/none", false); got != "/c" || err != nil {
		t.Errorf("beside a mount of another user: %q, %v", got, err)
	}
	if got, err := newest(closed[3:], "/none", false); !errors.Is(err, ErrNoMount) {
		t.Errorf("only a mount of another user: %q, %v", got, err)
	}
	if got, err := newest(mounts, "/none", true); !errors.Is(err, ErrNoMount) {
		t.Errorf("a named store without a mount: %q, %v", got, err)
	}
	if got, err := newest(nil, "/s", false); !errors.Is(err, ErrNoMount) {
		t.Errorf("without a mount: %q, %v", got, err)
	}
}

func TestScan(t *testing.T) {
	root := write(t, "1.23.3/VERSION: go1.23.3\n1.22.8.darwin-arm64/VERSION: go1.22.8\nmine/VERSION: go1.24.0|time x\nbin/go: x\nnotes/README: x\n1.21.0/README: x")
	in, err := ScanFiles(root)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range in.Releases {
		got[r.Name] = r.Version + " " + r.Platform
	}
	want := map[string]string{"1.23.3": "1.23.3 " + HostPlatform, "1.22.8.darwin-arm64": "1.22.8 darwin-arm64", "mine": "1.24.0 " + HostPlatform}
	if len(got) != len(want) {
		t.Errorf("scanned %v, want %v", got, want)
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: %q, want %q", name, got[name], want[name])
		}
	}
	quick, err := Scan(root)
	if _, ok := quick.Find("bin"); ok || err != nil {
		t.Errorf("the folder of the launchers counts as a release in %v, %v", quick, err)
	}
	if _, err := Scan(filepath.Join(root, "gone")); err == nil || !strings.Contains(err.Error(), "gofs mount") {
		t.Errorf("scan of a missing mount: %v", err)
	}
}

func TestGoroot(t *testing.T) {
	root := write(t, "1.23.3/VERSION: go1.23.3\n1.23.3/bin/go: x\nusr/bin/other: x\nwrap/bin/go: x")
	if err := os.Symlink("../../1.23.3/bin/go", filepath.Join(root, "usr/bin/go")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"1.23.3/bin/go": "1.23.3", "usr/bin/go": "1.23.3", "wrap/bin/go": "", "none": ""} {
		got := Goroot(filepath.Join(root, path))
		if want != "" {
			want = filepath.Join(root, want)
		}
		if got != want {
			t.Errorf("Goroot(%s) = %q, want %q", path, got, want)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	root := b.TempDir()
	for name, content := range map[string]string{"go.mod": "module m\ngo 1.22\n", ".go-version": "1.22.8\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o666); err != nil {
			b.Fatal(err)
		}
	}
	r := resolver(root, "", all, nil)
	for b.Loop() {
		if _, err := r.Resolve(); err != nil {
			b.Fatal(err)
		}
	}
}
