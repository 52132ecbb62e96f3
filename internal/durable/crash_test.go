package durable

import (
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"testing"

	"gofs/internal/recordfs"
)

// Whatever a crash of the machine leaves of what was under way, the store opens
// with what had been announced, all of it whole.
func TestCrash(t *testing.T) {
	for name, o := range map[string]recordfs.Options{"unnamed files": {}, "named files": {NoUnnamed: true}} {
		t.Run(name, func(t *testing.T) {
			crash(t, o)
		})
	}
}

func crash(t *testing.T, fo recordfs.Options) {
	f, dir := record(t, fo)
	store := filepath.Join(dir, "store")
	steps := script(t)
	trees := treesOf(t, "1.22.0", "1.22.1", "1.23.0")
	// ends[i] is the length of the log after step i.
	var ends []int
	lostAt := 0 // where the index is removed
	for i := range steps {
		if steps[i].lost {
			lostAt = len(f.Log())
			steps[i].lose(t, store)
		}
		run(t, store, steps[i].args...)
		ends = append(ends, len(f.Log()))
	}
	log := f.Log()
	stepAt := func(at int) int { return sort.Search(len(ends), func(i int) bool { return ends[i] > at }) }

	o := recordfs.Cases{Random: 5, Share: 4, Epoch: stepAt}
	if os.Getenv("GOFS_CRASH") == "all" {
		o.Random, o.Share = 50, 1
	}
	type job struct {
		recordfs.Crash
		n int
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	var cases, failed atomic.Int64
	scratch := memory(t)
	for range 2 {
		wg.Go(func() {
			for j := range jobs {
				cases.Add(1)
				w := &want{trees: trees, lost: j.At > lostAt}
				i := stepAt(j.At)
				if i < len(steps) {
					w.sets = append(w.sets, steps[i].after)
				}
				switch {
				case i > 0:
					w.sets = append(w.sets, steps[i-1].after)
				default:
					w.none = true
					w.sets = append(w.sets, nil)
				}
				if w.lost && j.What != recordfs.NothingLost {
					// Without index and announcement both, what was removed and not
					// collected comes back.
					w.sets = append(w.sets, steps[len(steps)-3].after)
				}
				d, err := os.MkdirTemp(scratch, "")
				if err == nil {
					err = j.Disk.Save(d)
				}
				if err != nil {
					t.Error(err)
					continue
				}
				if _, err = w.check(t, filepath.Join(d, "store"), j.n%10 == 0); err != nil && failed.Add(1) <= 10 {
					t.Errorf("crash after %d of %d operations, %s: %v", j.At, len(log), j.What, err)
					for k := max(0, j.At-12); k < j.At; k++ {
						t.Logf("%4d %v", k, &log[k])
					}
				}
				os.RemoveAll(d)
			}
		})
	}
	n := 0
	recordfs.Crashes(log, o, func(c recordfs.Crash) {
		n++
		jobs <- job{c, n}
	})
	close(jobs)
	wg.Wait()
	t.Logf("%d operations, %d different disks, %d wrong", len(log), cases.Load(), failed.Load())
}
