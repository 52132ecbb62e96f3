// Fakego stands in for go, compile and link in the roots that the tests of
// the doctor make: it tells the version that the files beside it name.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	self := os.Args[0] // absolute; below a chroot there is no /proc/self/exe to ask
	name := filepath.Base(self)
	if name != "go" {
		root := filepath.Join(filepath.Dir(self), "../../..")
		fmt.Printf("%s version go%s\n", name, version(self, root))
		return
	}
	own := filepath.Dir(filepath.Dir(self))
	root := own
	if v := os.Getenv("GOROOT"); v != "" {
		root = v
	}
	home := os.Getenv("HOME")
	view := map[string]string{
		"GOROOT": root, "GOVERSION": "go" + version(self, own), "GOTOOLDIR": filepath.Join(root, "pkg/tool/linux_amd64"),
		"GOCACHE": filepath.Join(home, ".cache/go-build"), "GOMODCACHE": filepath.Join(home, "go/pkg/mod"), "CC": "gcc", "CGO_ENABLED": "0",
	}
	settings, _ := os.ReadFile(filepath.Join(home, ".config/go/env"))
	for line := range strings.Lines(string(settings)) {
		key, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		view[key] = v
	}
	for _, key := range []string{"GOCACHE", "GOMODCACHE", "CC", "CGO_ENABLED", "GOTOOLDIR"} {
		if v := os.Getenv(key); v != "" {
			view[key] = v
		}
	}
	switch os.Args[1] {
	case "env":
		json.NewEncoder(os.Stdout).Encode(view)
	case "wait":
		fmt.Println("ready")
		fmt.Scanln()
	case "clean":
		cache := map[string]string{"-cache": "GOCACHE", "-modcache": "GOMODCACHE"}[os.Args[2]]
		files, _ := filepath.Glob(view[cache] + "/*")
		for _, file := range files {
			os.RemoveAll(file)
		}
	default:
		os.Exit(1)
	}
}

// version reads SELF.version, else the VERSION file of root.
func version(self, root string) string {
	for _, file := range []string{self + ".version", filepath.Join(root, "VERSION")} {
		if data, err := os.ReadFile(file); err == nil {
			return strings.TrimPrefix(strings.TrimSpace(string(data)), "go")
		}
	}
	return "?"
}
