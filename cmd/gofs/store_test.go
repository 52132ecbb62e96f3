package main

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"golang.org/x/mod/sumdb/dirhash"

	"gofs/internal/testrelease"
	"gofs/internal/testsumdb"
)

// TestStore runs the scripts about the store and its mounts. They mount for
// real and so need /dev/fuse.
func TestStore(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatalf("these tests mount file systems: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/store",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, "cache"))
			e.Setenv("GOFS_STORE", filepath.Join(e.WorkDir, "store"))
			e.Setenv(binaryEnv, gofsBinary(t))
			e.Setenv("GOPROXY", "off")
			e.Setenv("GOENV", "off")
			e.Setenv("TARBALL", testrelease.Tarball(t, "1.22.8"))
			e.Defer(func() { unmountBelow(t, e.WorkDir) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkrelease":  cmdMakeRelease,
			"mktar":      cmdMakeTar,
			"flip":       cmdFlip,
			"eventually": cmdEventually,
			"sumdb":      cmdSumDB(t),
			"killworker": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(killWorker(ts.MkAbs(args[0]), !neg))
			},
			"killsupervisor": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(killSupervisor(ts.MkAbs(args[0])))
			},
		},
	})
}

// unmountBelow ends the mounts that a script left.
func unmountBelow(t testing.TB, dir string) {
	mounts, err := gofsMounts()
	if err != nil {
		t.Error(err)
	}
	for _, m := range slices.Backward(mounts) {
		if strings.HasPrefix(m.dir, dir+"/") {
			if err := unmount(m.dir, true); err != nil {
				t.Error(err)
			}
		}
	}
}

// cmdMakeRelease writes the tarball of a small release:
// mkrelease FILE VERSION GOOS_GOARCH [PATH=TEXT...]
func cmdMakeRelease(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: mkrelease FILE VERSION GOOS_GOARCH [PATH=TEXT...]")
	}
	files := map[string]string{
		"VERSION":                          "go" + args[1] + "\ntime 2024-11-06T19:42:05Z\n",
		"bin/go":                           "program " + args[1],
		"bin/gofmt":                        "program",
		"pkg/tool/" + args[2] + "/compile": "compile " + args[1],
		"src/fmt/print.go":                 "package fmt // print\n",
		"src/fmt/scan.go":                  "package fmt // scan\n",
		"src/go.mod":                       "module std\n",
		"src/run.bash":                     "#!/bin/bash\n",
	}
	for _, a := range args[3:] {
		path, text, _ := strings.Cut(a, "=")
		if files[path] = text; text == "-" {
			delete(files, path)
		}
	}
	var entries []tar.Header
	for path := range files {
		mode := int64(0o644)
		if strings.HasPrefix(path, "bin/") || strings.HasPrefix(path, "pkg/tool/") || strings.HasSuffix(path, ".bash") {
			mode = 0o755
		}
		entries = append(entries, tar.Header{Name: "go/" + path, Mode: mode, Typeflag: tar.TypeReg})
	}
	slices.SortFunc(entries, func(a, b tar.Header) int { return strings.Compare(a.Name, b.Name) })
	writeTar(ts, args[0], entries, func(h *tar.Header) string { return files[strings.TrimPrefix(h.Name, "go/")] })
}

// cmdMakeTar writes a tarball of odd entries: mktar FILE (NAME:TYPE[:TEXT])...
// where TYPE is one of tar's type letters and TEXT a content or a link target.
func cmdMakeTar(ts *testscript.TestScript, neg bool, args []string) {
	text := map[string]string{}
	var entries []tar.Header
	for i, a := range args[1:] {
		parts := strings.SplitN(a, ":", 3)
		h := tar.Header{Name: strings.ReplaceAll(parts[0], "NUL", "\x00"), Typeflag: parts[1][0], Mode: 0o644}
		if len(parts) == 3 {
			if h.Typeflag == tar.TypeReg {
				text[string(rune(i))] = parts[2]
			} else {
				h.Linkname = parts[2]
			}
		}
		h.Uname = string(rune(i)) // finds the text again
		entries = append(entries, h)
	}
	writeTar(ts, args[0], entries, func(h *tar.Header) string { return text[h.Uname] })
}

func writeTar(ts *testscript.TestScript, file string, entries []tar.Header, text func(*tar.Header) string) {
	f, err := os.Create(ts.MkAbs(file))
	ts.Check(err)
	gz := gzip.NewWriter(f)
	tw := tar.NewWriter(gz)
	for i := range entries {
		h := &entries[i]
		b := text(h)
		h.Uname = ""
		h.Size = int64(len(b))
		h.ModTime = time.Unix(1700000000, 0)
		ts.Check(tw.WriteHeader(h))
		_, err := tw.Write([]byte(b))
		ts.Check(err)
	}
	ts.Check(tw.Close())
	ts.Check(gz.Close())
	ts.Check(f.Close())
}

// cmdFlip changes one bit in the middle of each file that matches: flip GLOB
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file %s", args[0])
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		ts.Check(err)
		b[len(b)/2] ^= 0x10
		ts.Check(os.WriteFile(file, b, 0o644))
	}
}

// cmdEventually waits until a path exists, or with ! is gone, for at most ten
// seconds: a mount follows the store on its own time.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	for range 1000 {
		_, err := os.Lstat(ts.MkAbs(args[0]))
		if (err == nil) != neg {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s: waited ten seconds", args[0])
}

// cmdSumDB makes a command that starts a checksum database and has GOSUMDB
// name it: sumdb [-down | -forged] [TARBALL...]. It lists the tarballs, which
// are called go1.23.3.linux-amd64.tar.gz or the like.
func cmdSumDB(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		db := testsumdb.New(t)
		for _, arg := range args {
			switch arg {
			case "-down":
				db.Around(func(http.Handler) http.Handler {
					return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
				})
			case "-forged":
				// Another key has signed what it answers.
				forger := testsumdb.New(t)
				forger.List("1.25.1", "linux-amd64", "h1:AAAA")
				db.Around(func(http.Handler) http.Handler { return forger })
			default:
				name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(arg), "go"), ".tar.gz")
				i := strings.LastIndex(name, ".")
				db.List(name[:i], name[i+1:], moduleHash(ts, arg, "golang.org/toolchain@v0.0.1-go"+name))
			}
		}
		ts.Setenv("GOSUMDB", db.Setting())
	}
}

// moduleHash is the h1 of the toolchain module for a tarball.
func moduleHash(ts *testscript.TestScript, tarball, module string) string {
	f, err := os.Open(ts.MkAbs(tarball))
	ts.Check(err)
	defer f.Close()
	gz, err := gzip.NewReader(f)
	ts.Check(err)
	files := map[string]string{}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		ts.Check(err)
		b, err := io.ReadAll(r)
		ts.Check(err)
		name := module + strings.TrimPrefix(h.Name, "go")
		if below, ok := strings.CutSuffix(name, "/go.mod"); ok {
			name = below + "/_go.mod"
		}
		files[name] = string(b)
	}
	h1, err := dirhash.Hash1(slices.Collect(maps.Keys(files)), func(name string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(files[name])), nil
	})
	ts.Check(err)
	return h1
}
