package recordfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func mounted(t *testing.T, o Options) (*FS, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := Mount(dir, o)
	if err != nil {
		t.Fatalf("mount, as root: %v", err)
	}
	t.Cleanup(func() {
		if err := f.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return f, dir
}

// It is a file system, and its log makes another like it.
func TestLog(t *testing.T) {
	f, dir := mounted(t, Options{})
	at := func(name string) string { return filepath.Join(dir, name) }
	unnamed, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(unnamed, []byte("no name")); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.Mkdir(at("d"), 0o755),
		os.WriteFile(at("d/a"), []byte("first"), 0o644),
		os.WriteFile(at("d/a"), []byte("2nd"), 0o644),
		os.Rename(at("d/a"), at("b")),
		os.Link(at("b"), at("c")),
		os.Remove(at("b")),
		os.Truncate(at("c"), 5),
		unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", unnamed), unix.AT_FDCWD, at("u"), unix.AT_SYMLINK_FOLLOW),
		unix.Close(unnamed),
		os.WriteFile(at("x"), make([]byte, 3<<20), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"c": "2nd\x00\x00", "u": "no name", "x": string(make([]byte, 3<<20))}
	check := func(dir string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 4 {
			t.Errorf("%v, %v", entries, err)
		}
		for name, data := range want {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != data {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
		}
	}
	check(dir)
	d := NewDisk()
	for _, o := range f.Log() {
		d.Apply(&o)
	}
	saved := t.TempDir()
	if err := d.Save(saved); err != nil {
		t.Fatal(err)
	}
	check(saved)
}

func TestBefore(t *testing.T) {
	f, dir := mounted(t, Options{NoUnnamed: true})
	if _, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o644); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("an unnamed file: %v", err)
	}
	f.Before(func(n int, o *Op) unix.Errno {
		if n == 1 {
			return unix.ENOSPC
		}
		return 0
	})
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o644); !errors.Is(err, unix.ENOSPC) || f.Asked() != 2 {
		t.Errorf("%v, asked %d times", err, f.Asked())
	}
	f.Before(nil)
	if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// What a crash may leave of a file that is written, synced and renamed over
// another: the old one or the new one; without the sync, neither may be there.
func TestCrashes(t *testing.T) {
	replace := func(sync bool) []Op {
		log := []Op{
			{Kind: Create, Node: 2, Dir: Root, Name: "f"}, {Kind: Write, Node: 2, Data: []byte("old")}, {Kind: Sync, Node: 2}, {Kind: SyncDir, Node: Root},
			{Kind: Create, Node: 3, Dir: Root, Name: "f.new"}, {Kind: Write, Node: 3, Data: []byte("new")},
		}
		if sync {
			log = append(log, Op{Kind: Sync, Node: 3})
		}
		return append(log, Op{Kind: Rename, Node: 3, Dir: Root, Name: "f.new", ToDir: Root, To: "f"}, Op{Kind: SyncDir, Node: Root})
	}
	for _, sync := range []bool{true, false} {
		found := map[string]bool{}
		Crashes(replace(sync), Cases{Random: 5, Epoch: func(at int) int { return at }}, func(c Crash) {
			if c.At < 4 {
				return
			}
			node, ok := c.Disk.folders[Root]["f"]
			text := string(c.Disk.files[node])
			if !ok {
				text = "none"
			}
			found[text] = true
			if text == "old" && c.At == len(replace(sync)) {
				t.Errorf("%s, though all was synced: %s", text, c.What)
			}
		})
		want := []string{"new", "old"}
		if !sync {
			want = []string{"", "\x00\x00\x00", "new", "old"}
		}
		var got []string
		for text := range found {
			got = append(got, text)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("synced %v: %q, want %q", sync, got, want)
		}
	}
	// A large write is torn at its sectors.
	long := make([]byte, 10_000)
	for i := range long {
		long[i] = 1
	}
	torn := 0
	Crashes([]Op{{Kind: Create, Node: 2, Dir: Root, Name: "f"}, {Kind: SyncDir, Node: Root}, {Kind: Write, Node: 2, Data: long}}, Cases{Epoch: func(at int) int { return at }}, func(c Crash) {
		if b := c.Disk.files[2]; slices.Contains(b, 1) && (len(b) < len(long) || slices.Contains(b, 0)) {
			torn++
		}
	})
	if torn < 15 {
		t.Errorf("torn in %d ways only", torn)
	}
}
