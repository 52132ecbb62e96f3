package durable

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gofs/internal/recordfs"
)

// A process that is killed at any operation leaves the store as it was or as
// it was to be, and the work can be done again.
func TestKilledAtOperation(t *testing.T) {
	f, dir := record(t, recordfs.Options{})
	store := filepath.Join(dir, "store")
	scratch := memory(t)
	steps := script(t)
	trees := treesOf(t, "1.22.0", "1.22.1", "1.23.0")
	points := number("GOFS_KILL_POINTS", 40)
	killed := 0
	for i := range steps {
		s := &steps[i]
		s.lose(t, store)
		before := f.Disk()
		f.Before(func(int, *recordfs.Op) unix.Errno { return 0 })
		run(t, store, s.args...)
		ops := f.Asked()
		f.Before(nil)
		after := f.Disk()
		mine := min(ops, max(1, points/len(steps)))
		for k := range mine {
			at := k * ops / mine
			f.Reset(before)
			cmd := gofs(t, store, s.args...)
			started := make(chan int, 1)
			f.Before(func(n int, _ *recordfs.Op) unix.Errno {
				if n == at {
					_ = unix.Kill(<-started, unix.SIGKILL) // it may have ended; then it is not counted
				}
				return 0
			})
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			started <- cmd.Process.Pid
			if cmd.Wait() != nil {
				killed++
			}
			f.Before(nil)
			w := &want{trees: trees, sets: [][]string{s.after, nil}, none: i == 0, lost: s.lost}
			if i > 0 {
				w.sets[1] = steps[i-1].after
			}
			have := checkDisk(t, w, f.Disk(), scratch, s, "killed", at)
			if have == nil || slices.Equal(have, s.after) && s.args[0] == "rm" {
				continue
			}
			run(t, store, s.args...)
			w.sets, w.lost = w.sets[:1], false
			checkDisk(t, w, f.Disk(), scratch, s, "killed, then repeated", at)
		}
		f.Reset(after)
	}
	t.Logf("%d killed", killed)
	if killed < len(steps) {
		t.Errorf("only %d were killed", killed)
	}
}

// The same, at any time, on a real file system.
func TestKilledAtTime(t *testing.T) {
	scratch := memory(t)
	store := filepath.Join(scratch, "store")
	steps := script(t)
	trees := treesOf(t, "1.22.0", "1.22.1", "1.23.0")
	points := number("GOFS_KILL_POINTS", 40)
	killed, all := 0, 0
	for i := range steps {
		s := &steps[i]
		s.lose(t, store)
		before, after := filepath.Join(scratch, "before"), filepath.Join(scratch, "after")
		replace(t, before, store)
		start := time.Now()
		run(t, store, s.args...)
		whole := time.Since(start)
		replace(t, after, store)
		mine := max(1, points/len(steps))
		for k := range mine {
			replace(t, store, before)
			cmd := gofs(t, store, s.args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(whole*time.Duration(k+1)/time.Duration(mine), func() { _ = cmd.Process.Kill() })
			if cmd.Wait() != nil {
				killed++
			}
			timer.Stop()
			all++
			w := &want{trees: trees, sets: [][]string{s.after, nil}, none: i == 0, lost: s.lost}
			if i > 0 {
				w.sets[1] = steps[i-1].after
			}
			copied := filepath.Join(scratch, "copy")
			replace(t, copied, store)
			have, err := w.check(t, copied, true)
			if err != nil {
				t.Errorf("%v, killed at %d of %d: %v", s, k, mine, err)
				continue
			}
			if slices.Equal(have, s.after) && s.args[0] == "rm" {
				continue
			}
			run(t, store, s.args...)
			w.sets, w.lost = w.sets[:1], false
			if _, err := w.check(t, store, true); err != nil {
				t.Errorf("%v, killed at %d of %d and repeated: %v", s, k, mine, err)
			}
		}
		replace(t, store, after)
	}
	t.Logf("%d of %d killed", killed, all)
}

// replace makes to a copy of from, which may not be there.
func replace(t testing.TB, to, from string) {
	t.Helper()
	err := os.RemoveAll(to)
	if _, serr := os.Stat(from); err == nil && serr == nil {
		err = os.CopyFS(to, os.DirFS(from))
	}
	if err != nil {
		t.Fatal(err)
	}
}
