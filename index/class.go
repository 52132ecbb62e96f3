package index

import (
	"runtime"
	"strings"
)

// Class is what a file of a release is for, by its name. Who reads one wants
// others of its class: a build reads neither the tests nor the files for other
// systems, which are two thirds of the bytes beside it.
type Class int

const (
	ForBuild  Class = iota // on this machine, and whatever has no class
	ForTest                // of the package
	ForOthers              // systems and processors
	Classes                // how many there are
)

// ClassOf returns the class of a file with a path or name.
func ClassOf(path string) Class {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if strings.HasSuffix(name, "_test.go") || strings.Contains(path, "/testdata/") || strings.HasPrefix(path, "test/") {
		return ForTest
	}
	stem, ext, _ := strings.Cut(name, ".")
	if ext != "go" && ext != "s" && ext != "syso" { // a build looks at all headers
		return ForBuild
	}
	// As package go/build has it: *_GOOS, *_GOARCH and *_GOOS_GOARCH, where what
	// is before the first underscore does not count.
	_, tail, _ := strings.Cut(stem, "_")
	parts := strings.Split(tail, "_")
	last := parts[len(parts)-1]
	before := ""
	if len(parts) > 1 {
		before = parts[len(parts)-2]
	}
	switch {
	case systems[last] && last != runtime.GOOS,
		processors[last] && last != runtime.GOARCH,
		processors[last] && systems[before] && before != runtime.GOOS:
		return ForOthers
	}
	return ForBuild
}

// RunByBuilds says whether a file of a release, by its path, is a program that
// every build runs, or with a test's vet every test.
func RunByBuilds(path string) bool {
	path = strings.TrimSuffix(path, ".exe")
	if path == "bin/go" {
		return true
	}
	tool, ok := strings.CutPrefix(path, "pkg/tool/")
	_, name, _ := strings.Cut(tool, "/")
	return ok && buildTools[name]
}

// ReadByBuilds says whether a file of a release, by its path, is one that the build of
// some package on this machine may read: no test, nothing for other systems, and none
// of the go command's own sources.
func ReadByBuilds(path string) bool {
	return ClassOf(path) == ForBuild && strings.HasPrefix(path, "src/") && !strings.HasPrefix(path, "src/cmd/")
}

var buildTools = set("asm cgo compile link vet")

func set(names string) map[string]bool {
	m := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		m[name] = true
	}
	return m
}

// Values of GOOS and GOARCH that files of releases are named after.
var (
	systems    = set("aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris wasip1 windows zos")
	processors = set("386 amd64 amd64p32 arm arm64 loong64 mips mips64 mips64le mips64x mipsle mipsx ppc64 ppc64le ppc64x riscv riscv64 s390 s390x sparc64 wasm")
)
