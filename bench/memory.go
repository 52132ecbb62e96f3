package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const readers = 64

// measureMemory reads all releases through the mount with many readers, and
// measures the daemon's memory and what the page cache holds of them.
func (b *bench) measureMemory(ctx context.Context) error {
	p := b.peer(peerGofs)
	for range b.coldRounds {
		if err := p.fresh(ctx); err != nil {
			return err
		}
		if err := b.dropCaches(); err != nil {
			return err
		}
		rss, _, err := memory(p.pid())
		if err != nil {
			return err
		}
		b.results.figure("rss after mount", "B", float64(rss))
		start := time.Now()
		cpu := cpuTime(p.pid())
		files, err := readAll(ctx, p.base, b.releases, readers)
		if err != nil {
			return err
		}
		b.results.figure("read of all releases", "s", time.Since(start).Seconds())
		b.results.figure("read of all releases, daemon cpu", "s", (cpuTime(p.pid()) - cpu).Seconds())
		rss, peak, err := memory(p.pid())
		if err != nil {
			return err
		}
		b.results.figure("rss after 64 readers", "B", float64(rss))
		b.results.figure("rss at most, 64 readers", "B", float64(peak))
		cached, err := cachedBytes(files)
		if err != nil {
			return err
		}
		b.results.figure("page cache", "B", float64(cached))
	}
	return nil
}

// readAll reads every file of the releases below base, in an order that mixes
// them, many at a time, and returns their names.
func readAll(ctx context.Context, base string, releases []string, readers int) ([]string, error) {
	var files []string
	for _, r := range releases {
		err := filepath.WalkDir(filepath.Join(base, r), func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				files = append(files, name)
			}
			return errors.Join(err, ctx.Err())
		})
		if err != nil {
			return nil, err
		}
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(files))
	next := make(chan string)
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			buf := make([]byte, 128<<10)
			for name := range next {
				errs[i] = errors.Join(errs[i], readFile(name, buf))
			}
		})
	}
	for _, i := range order {
		if ctx.Err() != nil {
			break
		}
		next <- files[i]
	}
	close(next)
	wg.Wait()
	return files, errors.Join(append(errs, ctx.Err())...)
}

func readFile(name string, buf []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// cachedBytes is how much of files lies in the page cache, each inode counted
// once, in whole pages but for a file's last, of which the file's own bytes
// count.
func cachedBytes(files []string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var total int64
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		if id := (inode{st.Dev, st.Ino}); err == nil && st.Size > 0 && !seen[id] {
			seen[id] = true
			var n int64
			n, err = cachedOf(f, st.Size)
			total += n
		}
		f.Close()
		if err != nil {
			return 0, fmt.Errorf("page cache of %s: %w", name, err)
		}
	}
	return total, nil
}

func cachedOf(f *os.File, size int64) (int64, error) {
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(m)
	page := int64(os.Getpagesize())
	vec := make([]byte, (size+page-1)/page)
	if err := mincore(m, vec); err != nil {
		return 0, err
	}
	var n int64
	for i, v := range vec {
		if v&1 != 0 {
			n += min(page, size-int64(i)*page)
		}
	}
	return n, nil
}
