package blobstore

import (
	"errors"
	"runtime"
	"sync"
	"testing"
)

// until waits for what another goroutine is about to do.
func until(done func() bool) {
	for !done() {
		runtime.Gosched()
	}
}

func decodedBytes(n int) *Decoded { return &Decoded{Plain: make([]byte, n)} }

// loads asks for a record of n bytes, and says whether that had to be loaded.
func loads(t *testing.T, c *Cache, record int64, n int) (loaded bool) {
	t.Helper()
	_, err := c.get(recordKey{1, record}, true, func() (*Decoded, error) {
		loaded = true
		return decodedBytes(n), nil
	})
	if err != nil {
		t.Error(err)
	}
	return loaded
}

func TestCacheShares(t *testing.T) {
	const askers = 20
	c := NewCache(1 << 20)
	key := recordKey{1, 16}
	release := make(chan struct{})
	want := decodedBytes(10)
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			got, err := c.get(key, true, func() (*Decoded, error) {
				<-release
				return want, nil
			})
			if got != want || err != nil {
				t.Errorf("%p, %v", got, err)
			}
		})
	}
	until(func() bool { return c.Stats().Shared == askers-1 })
	close(release)
	wg.Wait()
	if _, err := c.get(key, true, nil); err != nil {
		t.Error(err)
	}
	if st := c.Stats(); st.Decodes != 1 || st.Hits != 1 {
		t.Errorf("%+v", st)
	}
}

func TestCacheLimit(t *testing.T) {
	load := func(c *Cache, record int64, n int) bool { return loads(t, c, record, n) }
	c := NewCache(4 * decodedBytes(1000).cost())
	for i := range int64(4) {
		load(c, i, 1000)
	}
	if load(c, 0, 1000) {
		t.Error("0 was not kept")
	}
	load(c, 4, 1000) // 1 is the least recently used
	for _, kept := range []int64{0, 2, 3} {
		if load(c, kept, 1000) {
			t.Errorf("%d was not kept", kept)
		}
	}
	if !load(c, 1, 1000) {
		t.Error("1 was kept beyond the limit")
	}
	load(c, 9, 100_000) // larger than all
	if st := c.Stats(); st.Bytes > c.limit || st.Bytes != 4*decodedBytes(1000).cost() {
		t.Errorf("%d of %d bytes", st.Bytes, c.limit)
	}
	none := NewCache(0)
	first, second := load(none, 1, 0), load(none, 1, 0)
	if !first || !second || none.Stats().Bytes != 0 {
		t.Error("a cache without room keeps something")
	}
}

func TestCacheKeepsNoErrors(t *testing.T) {
	c := NewCache(1 << 20)
	key := recordKey{1, 16}
	bad := errors.New("bad")
	if _, err := c.get(key, true, func() (*Decoded, error) { return nil, bad }); err != bad {
		t.Errorf("error %v", err)
	}
	if d, err := c.get(key, true, func() (*Decoded, error) { return decodedBytes(1), nil }); d == nil || err != nil {
		t.Errorf("%v, %v", d, err)
	}
}

func TestCachePanic(t *testing.T) {
	c := NewCache(1 << 20)
	key := recordKey{1, 16}
	release, other := make(chan struct{}), make(chan error)
	panicked := make(chan any)
	go func() {
		defer func() { panicked <- recover() }()
		_, _ = c.get(key, true, func() (*Decoded, error) {
			<-release
			panic("a bug")
		})
	}()
	until(func() bool { return c.Stats().Decodes == 1 })
	go func() {
		_, err := c.get(key, true, nil)
		other <- err
	}()
	until(func() bool { return c.Stats().Shared == 1 })
	close(release)
	if p := <-panicked; p != "a bug" {
		t.Errorf("recovered %v", p)
	}
	if err := <-other; !errors.Is(err, ErrDamaged) {
		t.Errorf("the other asker: %v", err)
	}
	if d, err := c.get(key, true, func() (*Decoded, error) { return decodedBytes(1), nil }); d == nil || err != nil {
		t.Errorf("afterwards: %v, %v", d, err)
	}
}

// TestCacheRetires reads small records after programs, which stay for a while.
func TestCacheRetires(t *testing.T) {
	c := NewCache(64 << 20)
	load := func(c *Cache, record int64, n int) bool { return loads(t, c, record, n) }
	const program = 0
	small := int64(0)
	read := func(bytes int) {
		for ; bytes > 0; bytes -= 1 << 20 {
			small++
			load(c, small, 1<<20)
		}
	}
	for _, from := range []*Cache{c, c.filtered} {
		load(from, program, largeRecord)
		read(staleAfter - 2<<20)
		if load(from, program, largeRecord) {
			t.Error("dropped too early")
		}
		read(staleAfter - 2<<20)
		if load(from, program, largeRecord) {
			t.Error("dropped though it was used meanwhile")
		}
		read(staleAfter + 2<<20)
		if !load(from, program, largeRecord) {
			t.Error("still there")
		}
	}
	for small < 200 {
		read(1 << 20)
	}
	if st := c.Stats(); st.Bytes < 60<<20 || st.Bytes > 64<<20 {
		t.Errorf("%d bytes of small records, with 64 MiB of room", st.Bytes)
	}
}
