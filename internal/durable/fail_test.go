package durable

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gofs/internal/recordfs"
)

// Whichever operation of which work fails, on a disk that is broken or full,
// there is one clear line, the store is as it was or as it was to be, and the
// work can be done again.
func TestFailingDisk(t *testing.T) {
	f, dir := record(t, recordfs.Options{})
	store := filepath.Join(dir, "store")
	scratch := memory(t)
	steps := script(t)
	trees := treesOf(t, "1.22.0", "1.22.1", "1.23.0")
	share := 9
	if os.Getenv("GOFS_FAIL") == "all" {
		share = 1
	}
	fails := map[string]func(n, at int, o *recordfs.Op) unix.Errno{
		"EIO once": func(n, at int, _ *recordfs.Op) unix.Errno {
			if n == at {
				return unix.EIO
			}
			return 0
		},
		"EIO from then on": func(n, at int, _ *recordfs.Op) unix.Errno {
			if n >= at {
				return unix.EIO
			}
			return 0
		},
		"full from then on": func(n, at int, o *recordfs.Op) unix.Errno {
			if n >= at && slices.Contains([]recordfs.Kind{recordfs.Create, recordfs.Unnamed, recordfs.Mkdir, recordfs.Write, recordfs.Link}, o.Kind) {
				return unix.ENOSPC
			}
			return 0
		},
	}
	total, failed := 0, 0
	for i := range steps {
		s := &steps[i]
		s.lose(t, store)
		before := f.Disk()
		f.Before(func(int, *recordfs.Op) unix.Errno { return 0 })
		run(t, store, s.args...)
		ops := f.Asked()
		f.Before(nil)
		after := f.Disk()
		for name, fail := range fails {
			for at := i % share; at < ops; at += share {
				f.Reset(before)
				f.Before(func(n int, o *recordfs.Op) unix.Errno { return fail(n, at, o) })
				out, err := gofs(t, store, s.args...).CombinedOutput()
				f.Before(nil)
				total++
				if text := strings.TrimSuffix(string(out), "\n"); err != nil {
					failed++
					if !strings.HasPrefix(text, "gofs: ") || strings.Contains(text, "\n") || strings.Contains(text, "panic") {
						t.Errorf("%v, %s at %d of %d: says %q", s, name, at, ops, text)
					}
				}
				w := &want{trees: trees, sets: [][]string{s.after}, lost: s.lost}
				if err != nil {
					w.none = i == 0
					w.sets = append(w.sets, nil)
					if i > 0 {
						w.sets[1] = steps[i-1].after
					}
				}
				have := checkDisk(t, w, f.Disk(), scratch, s, name, at)
				if have == nil || slices.Equal(have, s.after) && s.args[0] == "rm" {
					continue
				}
				// Again, on the disk as it is.
				run(t, store, s.args...)
				w.sets = w.sets[:1]
				w.lost = false
				checkDisk(t, w, f.Disk(), scratch, s, name+", then repeated", at)
			}
		}
		f.Reset(after)
	}
	t.Logf("%d failures planned, %d commands failed", total, failed)
	if failed < total/3 {
		t.Errorf("of %d only %d failed", total, failed)
	}
}

// checkDisk checks a store on a disk, and returns its versions, nil if it has
// none or is not right.
func checkDisk(t *testing.T, w *want, d *recordfs.Disk, scratch string, s *step, name string, at int) []string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err == nil {
		err = d.Save(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	have, err := w.check(t, filepath.Join(dir, "store"), true)
	if err != nil {
		t.Errorf("%v, %s at %d: %v", s, name, at, err)
		return nil
	}
	if have == nil {
		have = []string{}
	}
	return have
}
