package durable

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a real file system of which little is free, from nothing in small steps to
// enough, all work either is done or leaves the store as it was, says that the
// disk is full, and has its room back after gc.
func TestFullDisk(t *testing.T) {
	disk := ext4(t, 12<<20)
	scratch := memory(t)
	store := filepath.Join(disk, "store")
	steps := script(t)
	trees := treesOf(t, "1.22.0", "1.22.1", "1.23.0")
	grain := int64(number("GOFS_FULL_STEP", 4096))
	full := 0
	for i := range steps {
		s := &steps[i]
		s.lose(t, store)
		before := filepath.Join(scratch, "before")
		replace(t, before, store)
		sets := [][]string{nil}
		if i > 0 {
			sets[0] = steps[i-1].after
		}
		for free := int64(0); ; free += grain {
			replace(t, store, before)
			fill(t, disk, free)
			out, err := gofs(t, store, s.args...).CombinedOutput()
			if rerr := os.Remove(filepath.Join(disk, "filler")); rerr != nil {
				t.Fatal(rerr)
			}
			copied := filepath.Join(scratch, "copy")
			replace(t, copied, store)
			w := &want{trees: trees, sets: [][]string{s.after}}
			if err == nil {
				if _, err := w.check(t, store, true); err != nil {
					t.Errorf("%v, %d free: %v", s, free, err)
				}
				break
			}
			full++
			if text := strings.TrimSuffix(string(out), "\n"); !strings.Contains(text, unix.ENOSPC.Error()) || strings.Contains(text, "\n") {
				t.Errorf("%v, %d free: says %q", s, free, text)
			}
			w.sets, w.lost, w.none = sets, s.lost, i == 0
			if s.lost || s.args[0] == "gc" || s.args[0] == "compact" {
				w.sets = append(w.sets, s.after)
			}
			if _, err := w.check(t, copied, true); err != nil {
				t.Errorf("%v, %d free: %v", s, free, err)
			}
			if free > 12<<20 {
				t.Fatalf("%v fails with %d free: %s", s, free, out)
			}
		}
	}
	t.Logf("the disk was full %d times", full)
	if full < len(steps) {
		t.Errorf("the disk was full %d times only", full)
	}
}

// ext4 makes a file system of some bytes.
func ext4(t *testing.T, size int64) string {
	t.Helper()
	image, dir := filepath.Join(memory(t), "image"), t.TempDir()
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v, as root: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	return dir
}

// fill leaves so many bytes of a disk free.
func fill(t *testing.T, disk string, free int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The filler's own extents take some blocks.
	for n := int64(st.Bavail)*st.Bsize - free; n > 0; n -= 4096 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err == nil {
			break
		} else if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}
