package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gofs/resolve"
)

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestDropFromPath(t *testing.T) {
	const dir = "/usr/local/go/bin"
	for _, tt := range []struct{ line, want string }{
		{"export PATH=$PATH:/usr/local/go/bin", "export PATH=$PATH"},
		{`export PATH="/usr/local/go/bin:$HOME/bin:$PATH"`, `export PATH="$HOME/bin:$PATH"`},
		{"PATH=/a:/usr/local/go/bin:/b", "PATH=/a:/b"},
		{"fish_add_path /usr/local/go/bin", ""},
		{"set -gx PATH /usr/local/go/bin $PATH", ""},
		{"export PATH=/usr/local/go/bin", ""},
	} {
		home := t.TempDir()
		file := filepath.Join(home, ".profile")
		write(t, file, "# before\n"+tt.line+"\n# after\n", 0o600)
		e := &exam{startup: readStartupFile(file, home)}
		l, ok := e.putInPath(dir)
		if !ok {
			t.Errorf("%s: not found", tt.line)
			continue
		}
		if err := l.dropFromPath(dir); err != nil {
			t.Fatal(err)
		}
		want := "# before\n# gofs doctor: " + tt.line + "\n"
		if tt.want != "" {
			want += tt.want + "\n"
		}
		want += "# after\n"
		data, err := os.ReadFile(file)
		if err != nil || string(data) != want {
			t.Errorf("%s became %q, want %q", tt.line, data, want)
		}
		if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", fi.Mode(), err)
		}
		if err := l.comment(); err == nil {
			t.Errorf("%s: a file that has changed was changed again", tt.line)
		}
	}
}

func TestPutInPathIsExact(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, ".profile")
	write(t, file, "# PATH=/opt/go/bin\nexport PATH=/opt/go/bin2:$PATH\nGO=/opt/go/bin\n", 0o644)
	e := &exam{startup: readStartupFile(file, home)}
	if l, ok := e.putInPath("/opt/go/bin"); ok {
		t.Errorf("found in %q", l.Text)
	}
}

func TestKinds(t *testing.T) {
	root := t.TempDir()
	mount := filepath.Join(root, "mount")
	for _, goroot := range []string{"mount/1.23.3", "sdk/go1.22.8"} {
		write(t, filepath.Join(root, goroot, "VERSION"), "go"+strings.TrimPrefix(filepath.Base(goroot), "go")+"\n", 0o644)
		write(t, filepath.Join(root, goroot, "bin/go"), "#!/bin/sh\n", 0o755)
	}
	for _, file := range []string{".asdf/shims/go", ".goenv/shims/go", "wrap/go"} {
		write(t, filepath.Join(root, file), "#!/bin/sh\n", 0o755)
	}
	write(t, filepath.Join(root, "notexec/go"), "", 0o644)
	self := filepath.Join(root, "gofs")
	write(t, self, "", 0o755)
	write(t, self+"-go", "", 0o755)
	for dir, program := range map[string]string{"shims": self + "-go", "oldshims": self} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(root, dir, "go")); err != nil {
			t.Fatal(err)
		}
	}
	dirs := []string{"notexec", "shims", "oldshims", "mount/1.23.3/bin", ".asdf/shims", ".goenv/shims", "sdk/go1.22.8/bin", "wrap", "wrap"}
	want := []string{"gofs launcher ", "gofs launcher ", "gofs release 1.23.3", "asdf shim ", "goenv shim ", "GOROOT 1.22.8", "wrapper "}
	for i := range dirs {
		dirs[i] = filepath.Join(root, dirs[i])
	}
	e := &exam{Host: &Host{
		Env: map[string]string{"PATH": strings.Join(dirs, ":")}, Self: self,
		Rules: &resolve.Resolver{Installed: resolve.Installed{Dir: mount}},
	}}
	gos := e.listGos()
	if len(gos) != len(want) {
		t.Fatalf("found %+v", gos)
	}
	for i, g := range gos {
		if got := g.Kind + " " + g.Version; got != want[i] {
			t.Errorf("%s is %q, want %q", g.Path, got, want[i])
		}
	}
}

func TestDamage(t *testing.T) {
	home := t.TempDir()
	h := &Host{Env: map[string]string{"PATH": "/nowhere"}, Dir: home, Home: home, Damage: []string{"blob 12ab of 1.23.3 does not match"}, Now: time.Now()}
	r := Examine(context.Background(), h)
	for _, f := range r.Findings {
		if f.Name == "store-damaged" && f.Severity == Problem && f.Cause == h.Damage[0] {
			if !r.Sick() {
				t.Error("damage, but not sick")
			}
			return
		}
	}
	t.Errorf("findings %+v", r.Findings)
}

func TestOldestSupported(t *testing.T) {
	for _, tt := range []struct {
		year, month int
		want        string
	}{{2023, 8, "1.20"}, {2024, 1, "1.20"}, {2024, 2, "1.21"}, {2025, 8, "1.24"}, {2026, 1, "1.24"}, {2026, 2, "1.25"}} {
		if got := oldestSupported(tt.year, tt.month); got != tt.want {
			t.Errorf("%d-%02d: %s, want %s", tt.year, tt.month, got, tt.want)
		}
	}
}

func TestHarmlessFlags(t *testing.T) {
	for flags, want := range map[string]bool{"-buildvcs=false": true, "-trimpath -v": true, "-mod=mod": false, "-buildvcs=false -tags=x": false} {
		if harmless(flags) != want {
			t.Errorf("harmless(%q) = %v", flags, !want)
		}
	}
}

func TestFsType(t *testing.T) {
	if got := fsType("/proc/self"); got != "proc" {
		t.Errorf("fsType(/proc/self) = %q", got)
	}
}
