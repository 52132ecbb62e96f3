// Package launch is the go command of a shim folder and of a mount's bin: it
// runs go or gofmt of the release that the rules of resolve pick.
//
// It exists as a package of its own because two programs do this. gofs-go does
// nothing else, and so takes 2 to 3 ms less than gofs, which initializes
// packages that a launcher has no use for. Gofs does the same when it is called
// as go or gofmt, so that it works where it was installed alone.
package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"gofs/resolve"
)

// Program is the file name of the program that launches and nothing else, in
// the folder of gofs.
const Program = "gofs-go"

// Tool is what a program called arg0 launches: "go", "gofmt", or "" under any
// other name.
func Tool(arg0 string) string {
	if name := filepath.Base(arg0); name == "go" || name == "gofmt" {
		return name
	}
	return ""
}

// Is reports whether file is a launcher of the gofs at self: that program, or
// the one beside it.
func Is(file, self string) bool {
	fi, err := os.Stat(file)
	if err != nil {
		return false
	}
	for _, name := range []string{self, filepath.Join(filepath.Dir(self), Program)} {
		if own, err := os.Stat(name); err == nil && os.SameFile(own, fi) {
			return true
		}
	}
	return false
}

// Main runs tool of the release that the rules pick. It returns only when it
// fails, with the exit status, after it has said why.
func Main(tool string, args []string) (status int) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", tool, run(tool, args))
	return 1
}

// run reads the folder of the mount and the version files and nothing else, so
// that it costs little more than starting a process twice.
func run(tool string, args []string) error {
	dir, err := Mount(args[0])
	if err != nil {
		return err
	}
	in, err := resolve.Scan(dir)
	if err != nil {
		return err
	}
	r, err := resolve.Here(in)
	if err != nil {
		return err
	}
	choice, err := r.Resolve()
	if err != nil {
		return err
	}
	file := filepath.Join(choice.GOROOT, "bin", tool)
	return fmt.Errorf("running %s: %w", file, syscall.Exec(file, args, environ(os.Environ(), choice.GOROOT)))
}

// environ drops a GOROOT of another release: the go command finds its own
// from its executable. GOTOOLCHAIN becomes local unless somebody set it: the
// rules have picked the release, so nothing has to be downloaded.
func environ(env []string, goroot string) []string {
	kept := make([]string, 0, len(env)+1)
	toolchain := false
	for _, kv := range env {
		// Of a variable that is set twice Go takes the first.
		if strings.HasPrefix(kv, "GOROOT=") && kv != "GOROOT="+goroot || kv == "GOTOOLCHAIN=" {
			continue
		}
		toolchain = toolchain || strings.HasPrefix(kv, "GOTOOLCHAIN=")
		kept = append(kept, kv)
	}
	if !toolchain {
		kept = append(kept, "GOTOOLCHAIN=local")
	}
	return kept
}

// MountFile in a shim folder names the mount that its links lead to.
const MountFile = ".gofs-mount"

// Mount is the folder of the releases for a launcher called arg0: GOFS_MOUNT,
// else what the shim folder names, else the mount of the store.
func Mount(arg0 string) (string, error) {
	if os.Getenv("GOFS_MOUNT") == "" {
		if dir := shimFolder(arg0); dir != "" {
			if data, err := os.ReadFile(filepath.Join(dir, MountFile)); err == nil {
				return strings.TrimSpace(string(data)), nil
			}
			if mounts, err := resolve.Mounts("/proc/self/mountinfo"); err == nil {
				if dir := mountOfBin(dir, mounts); dir != "" {
					return dir, nil
				}
			}
		}
	}
	return resolve.MountDir("", "")
}

// mountOfBin is the mount whose own bin folder dir is, or "".
func mountOfBin(dir string, mounts []resolve.Mount) string {
	abs, err := filepath.Abs(dir)
	if err != nil || filepath.Base(abs) != "bin" {
		return ""
	}
	for _, m := range mounts {
		if m.Dir == filepath.Dir(abs) {
			return m.Dir
		}
	}
	return ""
}

// shimFolder is the folder in which the shell found arg0.
func shimFolder(arg0 string) string {
	if strings.Contains(arg0, "/") {
		return filepath.Dir(arg0)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if fi, err := os.Stat(filepath.Join(dir, arg0)); err == nil && fi.Mode()&0o111 != 0 && !fi.IsDir() {
			return dir
		}
	}
	return ""
}
