package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"gofs/resolve"
)

// launch is the go command of a shim folder: called under the name go or
// gofmt, gofs runs that program of the release that the rules pick. It
// reports false under any other name, and returns only when it fails.
//
// It reads the folder of the mount and the version files and nothing else,
// so that it costs little more than starting a process twice.
func launch(args []string) (status int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	name := filepath.Base(args[0])
	if name != "go" && name != "gofmt" {
		return 0, false
	}
	if err := launchTool(name, args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	return exitFailed, true
}

func launchTool(name string, args []string) error {
	dir, err := launcherMount(args[0])
	if err != nil {
		return err
	}
	in, err := resolve.Scan(dir)
	if err != nil {
		return err
	}
	r, err := newResolver(in)
	if err != nil {
		return err
	}
	choice, err := r.Resolve()
	if err != nil {
		return err
	}
	env := launchEnv(os.Environ(), choice.GOROOT)
	file := filepath.Join(choice.GOROOT, "bin", name)
	if err := syscall.Exec(file, args, env); err != nil {
		return fmt.Errorf("running %s: %w", file, err)
	}
	return nil
}

// launchEnv drops a GOROOT of another release: the go command finds its own
// from its executable. GOTOOLCHAIN becomes local unless somebody set it: the
// rules have picked the release, so nothing has to be downloaded.
func launchEnv(env []string, goroot string) []string {
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

// mountFile in a shim folder names the mount that its links lead to.
const mountFile = ".gofs-mount"

// launcherMount is the folder of the releases for the launcher: GOFS_MOUNT,
// else what the shim folder names, else the mount of the store.
func launcherMount(arg0 string) (string, error) {
	if os.Getenv("GOFS_MOUNT") == "" {
		if dir := shimFolder(arg0); dir != "" {
			if data, err := os.ReadFile(filepath.Join(dir, mountFile)); err == nil {
				return strings.TrimSpace(string(data)), nil
			}
			if mounts, err := resolve.Mounts("/proc/self/mountinfo"); err == nil {
				if dir := mountOfBin(dir, mounts); dir != "" {
					return dir, nil
				}
			}
		}
	}
	return mountDir(&globals{}, "")
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
