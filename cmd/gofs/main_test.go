package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"gofs/resolve"
)

// TestMain has scripts run the program that users get. This binary would do,
// but with the race detector it takes ten times as long to import a release;
// the packages' own tests look for races.
func TestMain(m *testing.M) {
	testscript.Main(cleaning{m}, map[string]func(){
		"gofs": func() {
			err := syscall.Exec(os.Getenv(binaryEnv), os.Args, os.Environ())
			fmt.Fprintf(os.Stderr, "%s=%s: %v\n", binaryEnv, os.Getenv(binaryEnv), err)
			os.Exit(3)
		},
	})
}

// binaryEnv names the program for scripts.
const binaryEnv = "GOFS_TEST_BINARY"

// cleaning takes away what the tests built.
type cleaning struct{ m *testing.M }

func (c cleaning) Run() int {
	status := c.m.Run()
	if builtDir != "" {
		_ = os.RemoveAll(builtDir) // the status of the tests counts
	}
	return status
}

var builtDir string

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("GOTOOLCHAIN", "")
			e.Setenv("SHELL", "/bin/bash")
			e.Setenv(binaryEnv, gofsBinary(t))
			e.Setenv("REALGO", hostGoroot())
			repo, err := filepath.Abs("../..")
			if err != nil {
				return err
			}
			e.Setenv("REPO", repo)
			return os.Mkdir(filepath.Join(e.WorkDir, "home"), 0o777)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fakemount": cmdFakeMount,
		},
	})
}

// cmdFakeMount makes a folder that looks like a mounted store, with releases
// that only tell their name, and has GOFS_MOUNT name it.
func cmdFakeMount(ts *testscript.TestScript, neg bool, args []string) {
	dir := filepath.Join(ts.Getenv("WORK"), "mount")
	for _, name := range args {
		ts.Check(fakeRelease(filepath.Join(dir, name), name))
	}
	ts.Setenv("GOFS_MOUNT", dir)
}

// fakeRelease makes a GOROOT whose go tells what it is and how it was called.
func fakeRelease(dir, name string) error {
	version := name
	if i := strings.LastIndex(name, ".linux-"); i > 0 {
		version = name[:i]
	}
	for _, d := range []string{"bin", "pkg/tool/linux_amd64", "src/runtime"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			return err
		}
	}
	script := fmt.Sprintf(`#!/bin/sh
case $1 in
version) echo go version go%[1]s linux/amd64 ;;
env) shift; for v in "$@"; do case $v in GOVERSION) echo go%[1]s ;; GOROOT) echo "${GOROOT:-%[2]s}" ;; esac; done ;;
*) echo "%%s$(basename "$0") %[1]s GOROOT=${GOROOT-unset} GOTOOLCHAIN=${GOTOOLCHAIN-unset}: $*" ;;
esac
`, version, dir)
	script = strings.ReplaceAll(script, "%s", "")
	files := map[string]string{"VERSION": "go" + version + "\n", "bin/go": script, "bin/gofmt": script}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o777); err != nil {
			return err
		}
	}
	return nil
}

// hostGoroot is the GOROOT that runs the tests.
func hostGoroot() string {
	if goroot := os.Getenv("GOROOT"); goroot != "" {
		return goroot
	}
	file, err := exec.LookPath("go")
	if err != nil {
		return ""
	}
	return resolve.Goroot(file)
}

// gofsBinary builds gofs as a static program, gofs-go beside it, for tests that need it at a
// path of its own: in a shell start-up file or below a chroot.
func gofsBinary(t testing.TB) string {
	t.Helper()
	file, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gofs-test-")
	if err != nil {
		return "", err
	}
	builtDir = dir
	file := filepath.Join(dir, "gofs")
	cmd := exec.Command(filepath.Join(hostGoroot(), "bin", "go"), "build", "-o", dir+"/", ".", "../gofs-go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building gofs: %v\n%s", err, out)
	}
	return file, nil
})
