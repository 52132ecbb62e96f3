package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	gofs "gofs/fs"
)

// runDirs are the folders where the mounts of a user may have their sockets,
// the best first. The daemon takes the first that it can make.
func runDirs(uid int) []string {
	var dirs []string
	if uid == 0 {
		dirs = append(dirs, "/run/gofs")
	} else {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && uid == os.Geteuid() {
			dirs = append(dirs, filepath.Join(dir, "gofs"))
		}
		dirs = append(dirs, fmt.Sprintf("/run/user/%d/gofs", uid))
	}
	return append(dirs, filepath.Join(os.TempDir(), "gofs-"+strconv.Itoa(uid)))
}

// runDir makes the folder for the socket of a mount of this user; "" where
// none can be made.
func runDir() string {
	uid := os.Geteuid()
	for _, dir := range runDirs(uid) {
		_ = os.Mkdir(dir, 0o700) // it is there, or the check says no
		if gofs.CheckRunDir(dir, uid) == nil {
			return dir
		}
	}
	return ""
}

// findMount finds the mount that a verb means, without touching it: the one
// at dir, else the one that GOFS_MOUNT names, else the newest of the store,
// else the only one.
func (g *globals) findMount(dir string) (mountPoint, error) {
	if dir == "" {
		dir = os.Getenv("GOFS_MOUNT")
	}
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return mountPoint{}, err
		}
		m, ok, err := mountAt(realPath(abs))
		if err == nil && (!ok || m.fstype != mountType) {
			err = fmt.Errorf("%s is no mount of gofs", dir)
		}
		return m, err
	}
	mounts, err := gofsMounts()
	if err != nil {
		return mountPoint{}, err
	}
	store, err := g.storeDir()
	if err != nil {
		return mountPoint{}, err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].source == store {
			return mounts[i], nil
		}
	}
	switch len(mounts) {
	case 0:
		return mountPoint{}, errors.New("nothing is mounted (gofs mount DIR)")
	case 1:
		return mounts[0], nil
	}
	return mountPoint{}, fmt.Errorf("%d stores are mounted and none is %s (--mount DIR names one)", len(mounts), store)
}

// reloadWait bounds the wait for mounts to show a change.
const reloadWait = 5 * time.Second

// showChange has the mounts of a store show what was committed, so that the
// command after this one in a script finds it. One that cannot be asked, or
// takes too long, finds out by itself.
func showChange(ctx context.Context, store string) {
	mounts, err := gofsMounts()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reloadWait)
	defer cancel()
	for _, m := range mounts {
		if m.source != store {
			continue
		}
		if a, err := ask(ctx, m); err == nil {
			_ = a.Reload(ctx) // see above
			a.Close()
		}
	}
}

// ask connects to the process that serves a mount.
func ask(ctx context.Context, m mountPoint) (*gofs.Asker, error) {
	name := gofs.SocketName(m.dir, m.device)
	var err error
	for _, dir := range runDirs(m.owner) {
		socket := filepath.Join(dir, name)
		a, tried := gofs.Ask(ctx, socket, m.owner)
		if tried == nil {
			return a, nil
		}
		if errors.Is(tried, gofs.ErrRefused) {
			err = tried
			break
		}
		// What a socket that is there says counts more than that one is not.
		if _, missing := os.Lstat(socket); err == nil || missing == nil {
			err = tried
		}
	}
	return nil, fmt.Errorf("%s: %w", m.dir, err)
}
