package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"gofs/internal/testrelease"
)

// realReleases are the ones that the tests below run on.
var realReleases = []string{"1.22.8", "1.23.3"}

// mounted is a store with the releases, and a mount of it.
type mounted struct {
	t     *testing.T
	gofs  string // the program
	store string
	dir   string // the mount
	cache string // GOCACHE of builds, shared by the tests
}

func mountReleases(t *testing.T) *mounted {
	t.Helper()
	work := t.TempDir()
	m := &mounted{t: t, gofs: gofsBinary(t), store: filepath.Join(work, "store"), dir: filepath.Join(work, "mnt"), cache: filepath.Join(work, "cache")}
	for _, v := range realReleases {
		m.run("import", "--quiet", testrelease.Tarball(t, v))
	}
	m.mount(m.dir)
	return m
}

func (m *mounted) command(args ...string) *exec.Cmd {
	cmd := exec.Command(m.gofs, args...)
	cmd.Env = append(os.Environ(), "GOFS_STORE="+m.store, "GOPROXY=off", "XDG_STATE_HOME="+filepath.Dir(m.store))
	return cmd
}

func (m *mounted) run(args ...string) string {
	m.t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("gofs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (m *mounted) mount(dir string) {
	m.t.Helper()
	m.run("mount", "--crashes=1000000", "--log", filepath.Join(filepath.Dir(m.store), "log"), dir)
	m.t.Cleanup(func() {
		if out, err := m.command("umount", dir).CombinedOutput(); err != nil {
			m.t.Errorf("umount: %v\n%s", err, out)
			_ = unmount(dir, true)
		}
	})
}

// goCommand runs the go of a mounted release.
func (m *mounted) goCommand(version, dir string, args ...string) *exec.Cmd {
	goroot := filepath.Join(m.dir, version)
	cmd := exec.Command(filepath.Join(goroot, "bin", "go"), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOROOT="+goroot, "GOTOOLCHAIN=local", "GOCACHE="+m.cache, "GOPROXY=off", "GOFLAGS=", "GOWORK=off")
	return cmd
}

func (m *mounted) goRun(version, dir string, args ...string) string {
	m.t.Helper()
	out, err := m.goCommand(version, dir, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("go %s of %s: %v\n%s", strings.Join(args, " "), version, err, out)
	}
	return string(out)
}

const serverProgram = `package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
)

func main() {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, runtime.Version())
	}))
	defer s.Close()
	r, err := http.Get(s.URL)
	if err != nil {
		panic(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(b))
}
`

// templateProgram has a third as much compiled.
const templateProgram = `package main

import (
	"encoding/json"
	"os"
	"runtime"
	"text/template"
)

func main() {
	b, err := json.Marshal(runtime.Version())
	if err != nil {
		panic(err)
	}
	var version string
	if err := json.Unmarshal(b, &version); err != nil {
		panic(err)
	}
	if err := template.Must(template.New("").Parse("{{.}}\n")).Execute(os.Stdout, version); err != nil {
		panic(err)
	}
}
`

// program makes a module with a net/http program, in short tests with a smaller one.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	text := serverProgram
	if testing.Short() {
		text = templateProgram
	}
	for name, text := range map[string]string{"go.mod": "module program\n\ngo 1.22\n", "main.go": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestRelease mounts real releases and uses them as their users do.
func TestRelease(t *testing.T) {
	m := mountReleases(t)
	for _, v := range realReleases {
		t.Run("tree/"+v, func(t *testing.T) { sameTree(t, unpack(t, v), filepath.Join(m.dir, v)) })
	}
	t.Run("zip", func(t *testing.T) {
		if out, want := m.run("import", testrelease.Zip(t, "1.22.8")), "\n1.22.8 is in the store already"; !strings.Contains(out, want) {
			t.Errorf("import of the zip says %q, want %q", out, want)
		}
	})
	t.Run("fstest", func(t *testing.T) {
		// TestFS reads byte by byte, a call each: 300 kB of small files in folders
		// at every depth. sameTree reads all.
		for dir, want := range map[string]string{"src/go/build": "testdata/multi/file.go", "src/io": "fs/fs.go"} {
			if err := fstest.TestFS(os.DirFS(filepath.Join(m.dir, "1.22.8", dir)), want); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
		}
	})
	if !testing.Short() { // the disturbed build is one
		t.Run("build", func(t *testing.T) {
			for _, v := range realReleases {
				dir := program(t)
				m.goRun(v, dir, "build", "-o", "program", ".")
				out, err := exec.Command(filepath.Join(dir, "program")).CombinedOutput()
				if want := "go" + v + "\n"; err != nil || string(out) != want {
					t.Errorf("program built by %s says %q, %v; want %q", v, out, err, want)
				}
			}
		})
	}
	t.Run("disturbed build", func(t *testing.T) {
		d := disturbances(m, testrelease.Tarball(t, "1.22.8"))
		if testing.Short() {
			buildThrough(t, m, d["kill"], d["import"], d["replace"])
			return
		}
		for name, disturb := range d {
			t.Run(name, func(t *testing.T) { buildThrough(t, m, disturb) })
		}
	})
	t.Run("two mounts", func(t *testing.T) {
		second := *m
		second.t, second.dir = t, filepath.Join(t.TempDir(), "mnt")
		second.mount(second.dir)
		sameTree(t, filepath.Join(m.dir, "1.23.3", "src", "net"), filepath.Join(second.dir, "1.23.3", "src", "net"))
	})
	src, vetted, tested := filepath.Join(m.dir, "1.22.8", "src"), []string{"std"}, []string{"os", "io/fs", "path/filepath", "go/build"}
	if testing.Short() {
		// std has compilers work for minutes.
		vetted, tested = []string{"io/fs"}, []string{"path/filepath"}
	}
	t.Run("vet std", func(t *testing.T) {
		m.goRun("1.22.8", src, append([]string{"vet"}, vetted...)...)
	})
	t.Run("test std", func(t *testing.T) {
		m.goRun("1.22.8", src, append([]string{"test", "-short"}, tested...)...)
	})
}

// unpack returns the tree that tar makes of a release.
func unpack(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xzf", testrelease.Tarball(t, version)).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return filepath.Join(dir, "go")
}

// sameTree checks that two trees have the same names, modes and bytes.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	w, g := listTree(t, want), listTree(t, got)
	for _, path := range slices.Sorted(maps.Keys(w)) {
		if w[path] != g[path] {
			t.Errorf("%s: %q, want %q", path, g[path], w[path])
		}
	}
	for path := range g {
		if _, ok := w[path]; !ok {
			t.Errorf("%s should not be there", path)
		}
	}
}

// listTree describes every name below dir: mode and SHA-256 or link target.
func listTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != uint32(os.Geteuid()) {
			return fmt.Errorf("%s belongs to %d", path, st.Uid)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d %x", info.Size(), sha256.Sum256(b))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		list[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
