package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"gofs/internal/testrelease"
)

// TestRightGo runs the scripts in which real releases, on a real mount, are
// picked.
func TestRightGo(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/right",
		Setup: func(e *testscript.Env) error {
			for key, value := range map[string]string{
				"HOME":           filepath.Join(e.WorkDir, "home"),
				"SHELL":          "/bin/bash",
				"XDG_STATE_HOME": filepath.Join(e.WorkDir, "state"),
				"GOFS_STORE":     filepath.Join(e.WorkDir, "store"),
				"GOPROXY":        "off",
				binaryEnv:        gofsBinary(t),
				"TARBALL_1_22_8": testrelease.Tarball(t, "1.22.8"),
				"TARBALL_1_23_3": testrelease.Tarball(t, "1.23.3"),
			} {
				e.Setenv(key, value)
			}
			e.Defer(func() { unmountBelow(t, e.WorkDir) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"empty": cmdEmpty},
	})
}

// cmdEmpty checks that a folder holds no file, at any depth: empty DIR. One
// that is not there does.
func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: empty DIR")
	}
	dir := ts.MkAbs(args[0])
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = fmt.Errorf("%s holds %s", args[0], path)
		}
		return err
	})
	if !errors.Is(err, fs.ErrNotExist) {
		ts.Check(err)
	}
}
