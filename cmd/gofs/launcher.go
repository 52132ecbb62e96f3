package main

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"runtime/debug"

	"gofs/resolve/launch"
)

// launcher is the program that a go of ours links to: gofs-go beside this one,
// which is the quicker, else this one. It is "" where its path is not known.
//
// A gofs-go of another build, which is left when gofs alone is installed anew,
// may go by other rules, and is not taken.
func launcher() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	quick := filepath.Join(filepath.Dir(self), launch.Program)
	if sameBuild(quick) {
		return quick
	}
	return self
}

// sameBuild reports whether the program in file was built from the source that
// this one was built from.
func sameBuild(file string) bool {
	own, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	info, err := buildinfo.ReadFile(file)
	return err == nil && info.Main == own.Main && info.Path == own.Main.Path+"/cmd/"+launch.Program
}
