package resolve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SystemDefault holds the version for everybody who has chosen none.
const SystemDefault = "/etc/gofs/version"

// UserDefault is the file of the user's default, "" without a home.
func UserDefault() string {
	config, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(config, "gofs", "version")
}

// Here has the rules look from the working directory, with the environment and
// the defaults of this process.
func Here(in Installed) (*Resolver, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return &Resolver{
		Installed:     in,
		Platform:      HostPlatform,
		Dir:           dir,
		Getenv:        os.Getenv,
		UserDefault:   UserDefault(),
		SystemDefault: SystemDefault,
	}, nil
}

// StoreDir is the folder of the store: flag, else $GOFS_STORE, else the
// default of the user.
func StoreDir(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv("GOFS_STORE")
	}
	if dir == "" {
		if os.Geteuid() == 0 {
			dir = "/var/lib/gofs"
		} else {
			data := os.Getenv("XDG_DATA_HOME")
			if data == "" {
				home := os.Getenv("HOME")
				if home == "" {
					return "", errors.New("no place for the store: neither XDG_DATA_HOME nor HOME is set (use --store)")
				}
				data = filepath.Join(home, ".local", "share")
			}
			dir = filepath.Join(data, "gofs")
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("store %s: %w", dir, err)
	}
	return abs, nil
}

// MountDir finds the folder that shows the releases: mount, else $GOFS_MOUNT,
// else the newest mount of the store, which store names as in StoreDir. Unless
// the user named that store, any other that lets this process in does as well:
// a machine's store is often mounted for users who have none. It fails with
// ErrNoMount.
func MountDir(mount, store string) (string, error) {
	for _, dir := range []string{mount, os.Getenv("GOFS_MOUNT")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	named := store != "" || os.Getenv("GOFS_STORE") != ""
	store, err := StoreDir(store)
	if err != nil {
		store = ""
	}
	mounts, err := Mounts("/proc/self/mountinfo")
	if err != nil {
		return "", ErrNoMount
	}
	return newest(mounts, store, named)
}
