package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"

	"gofs/blobstore"
	gofs "gofs/fs"
)

const tmpfs = "tmpfs"

// parseHot reads the value of --hot: tmpfs[:SIZE] or DIR[:SIZE].
func parseHot(s string) (*gofs.Hot, error) {
	if s == "" {
		return nil, nil
	}
	hot := &gofs.Hot{Dir: s}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		n, err := humanize.ParseBytes(s[i+1:])
		if err != nil || n == 0 || n > 1<<50 {
			return nil, usagef("--hot %s: %q is not a size like 512MiB (the form is tmpfs[:SIZE] or DIR[:SIZE])", s, s[i+1:])
		}
		hot.Dir, hot.Size = s[:i], int64(n)
		if n < 4096 {
			return nil, usagef("--hot %s: not a single block of 4096 bytes fits", s)
		}
	}
	switch hot.Dir {
	case "":
		return nil, usagef("--hot %s: no folder is named", s)
	case tmpfs:
		hot.Dir = ""
		return hot, nil
	}
	// The process in the background works in another folder.
	abs, err := filepath.Abs(hot.Dir)
	hot.Dir = abs
	return hot, err
}

// hotArg is the value of --hot for the process in the background.
func hotArg(h *gofs.Hot) string {
	dir := h.Dir
	if dir == "" {
		dir = tmpfs
	}
	if h.Size == 0 && !strings.Contains(dir, ":") {
		return dir
	}
	return fmt.Sprintf("%s:%d", dir, h.Size)
}

// parseIO reads the value of --io.
func parseIO(s string, hot *gofs.Hot) (passthrough bool, err error) {
	switch s {
	case "cache":
		return false, nil
	case "passthrough":
		if hot == nil {
			return false, usagef("--io passthrough: it hands out the files of the hot layer, so it needs --hot (--hot tmpfs)")
		}
		return true, nil
	}
	return false, usagef("--io %q: it is cache or passthrough", s)
}

// notesFile is where the mounts of a store note what is read: the store may
// be another user's or on a read-only disk, and what one user reads is nobody
// else's business, so it is a file of the user. "" where he has no place.
func notesFile(store string) string {
	dir := "/var/cache/gofs"
	if os.Geteuid() != 0 || os.Getenv("XDG_CACHE_HOME") != "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(cache, "gofs")
	}
	sum := sha256.Sum256([]byte(store))
	return filepath.Join(dir, "read-"+hex.EncodeToString(sum[:8]))
}

// boundMemory holds the garbage collector, whose memory is beside that of what
// is decoded, to what 64 readers at a time need. GOMEMLIMIT still says otherwise.
func boundMemory(cache int64) {
	limit := int64(112 << 20)
	if !blobstore.Apart(cache) {
		limit += cache
	}
	limitMemory(limit)
	hugeHeap()
}
