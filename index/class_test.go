package index

import (
	"runtime"
	"testing"
)

func TestClassOf(t *testing.T) {
	other := "windows"
	for path, want := range map[string]Class{
		"src/fmt/print.go":                           ForBuild,
		"src/fmt/fmt_test.go":                        ForTest,
		"src/fmt/testdata/x.txt":                     ForTest,
		"test/fixedbugs/a.go":                        ForTest,
		"src/os/file_" + runtime.GOOS + ".go":        ForBuild,
		"src/os/file_" + other + ".go":               ForOthers,
		"src/os/file_" + other + "_test.go":          ForTest,
		"src/runtime/asm_" + runtime.GOARCH + ".s":   ForBuild,
		"src/runtime/asm_mips64x.s":                  ForOthers,
		"src/syscall/zerrors_" + other + "_s390x.go": ForOthers,
		"src/syscall/windows.go":                     ForBuild, // nothing before the underscore counts
		"src/runtime/os_linux_generic.go":            ForBuild,
		"src/field/fe_s390x_noasm.go":                ForBuild,
		"src/internal/abi/abi_test.s":                ForBuild,
		"src/runtime/asm_ppc64x.h":                   ForBuild, // all headers are looked at
		"lib/time/zoneinfo_windows.zip":              ForBuild,
		"README.md":                                  ForBuild,
		"":                                           ForBuild,
	} {
		if got := ClassOf(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestRunByBuilds(t *testing.T) {
	for path, want := range map[string]bool{
		"bin/go":                             true,
		"bin/go.exe":                         true,
		"bin/gofmt":                          false,
		"pkg/tool/linux_amd64/compile":       true,
		"pkg/tool/windows_arm64/compile.exe": true,
		"pkg/tool/linux_amd64/vet":           true,
		"pkg/tool/linux_amd64/pprof":         false,
		"pkg/tool/compile":                   false,
		"src/cmd/compile":                    false,
		"":                                   false,
	} {
		if got := RunByBuilds(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestReadByBuilds(t *testing.T) {
	for path, want := range map[string]bool{
		"src/fmt/print.go":      true,
		"src/fmt/fmt_test.go":   false,
		"src/os/dir_plan9.go":   false,
		"src/cmd/go/main.go":    false,
		"src/cmdline/x.go":      true,
		"api/go1.1.txt":         false,
		"test/fixedbugs/bug.go": false,
		"VERSION":               false,
	} {
		if got := ReadByBuilds(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
