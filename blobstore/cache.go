package blobstore

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// Cache keeps decoded records, the least recently used out first. Many askers
// for one record share one decoding. It may serve several views, also of
// different generations, since a record never changes.
//
// Safe for concurrent use.
type Cache struct {
	limit int64
	kept  int           // large records at least, until they are stale
	clock *atomic.Int64 // bytes of the small records that were ever kept, also of the cache that this is part of

	mu      sync.Mutex
	entries map[recordKey]*list.Element // of *cacheEntry
	recent  list.List                   // front: used last
	large   list.List                   // the same for large records
	size    int64                       // of those in recent
	sizeL   int64                       // of those in large
	flights map[recordKey]*flight
	parts   map[ID]*list.Element // of the programs among entries

	stats CacheStats

	buffers  buffers
	filtered *Cache       // of programs, as bases of others
	held     atomic.Int64 // size and sizeL, for who does not have mu
}

// CacheStats counts what a cache has done.
type CacheStats struct {
	Hits    uint64 // answered from memory
	Shared  uint64 // waited for another asker's decoding
	Decodes uint64
	// DecodedBytes are the plain bytes that decoding has made.
	DecodedBytes uint64
	Bytes        int64 // held now
}

type recordKey struct {
	pack   uint32
	record int64
}

type cacheEntry struct {
	key    recordKey
	record *Decoded
	used   int64 // by the clock
}

type flight struct {
	done    chan struct{}
	sharers int32 // who wait for it, besides the asker that decodes
	keep    bool
	record  *Decoded
	err     error
}

// NewCache returns a cache that holds at most limit bytes of decoded records,
// but always the last few programs until they are stale; with a limit of 0 it
// only lets askers share decodings under way.
func NewCache(limit int64) *Cache {
	clock := new(atomic.Int64)
	c := newCache(limit, keptLarge, clock)
	c.filtered = newCache(limit/4, keptFiltered, clock)
	c.buffers = newBuffers(limit)
	return c
}

func newCache(limit int64, kept int, clock *atomic.Int64) *Cache {
	return &Cache{limit: limit, kept: kept, clock: clock, entries: map[recordKey]*list.Element{}, flights: map[recordKey]*flight{}, parts: map[ID]*list.Element{}}
}

// Stats returns the counters.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Bytes = c.size + c.sizeL
	if c.filtered != nil {
		f := c.filtered.Stats()
		s.Bytes += f.Bytes
		s.DecodedBytes += f.DecodedBytes
	}
	return s
}

// Used returns how much memory decoded records take, in bytes: those that the
// cache keeps and those that somebody has not released.
func (c *Cache) Used() int { return c.buffers.used() }

// Clear drops all records.
func (c *Cache) Clear() {
	if c.filtered != nil {
		c.filtered.Clear() // first: what it holds goes back to the buffers
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		e.Value.(*cacheEntry).record.Release()
	}
	clear(c.entries)
	clear(c.parts)
	c.buffers.trim()
	c.recent.Init()
	c.large.Init()
	c.size, c.sizeL = 0, 0
	c.held.Store(0)
}

// peek returns the record if it is in memory, else nil. One that nobody asks to
// keep is dropped, so that its memory serves the next, unless it is a program.
func (c *Cache) peek(key recordKey, keep bool) *Decoded {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return nil
	}
	r := c.hit(e)
	if !keep && !r.whole && !r.large() {
		c.drop(&c.recent, &c.size, e)
		c.held.Store(c.size + c.sizeL)
	}
	return r
}

// holds returns a program in memory that a blob is a part of, and the part;
// else nil. A part may lie in the programs of several releases, and the
// index names only one of them: without this, reading all of 1.23.12 out of
// twelve compacted releases decoded 562 MB instead of 356.
func (c *Cache) holds(id ID) (*Decoded, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.parts[id]
	if !ok {
		return nil, 0
	}
	for i, m := range e.Value.(*cacheEntry).record.Blobs {
		if i > 0 && m.ID == id {
			return c.hit(e), i
		}
	}
	return nil, 0
}

// hit returns the record of an entry; c.mu is held.
func (c *Cache) hit(e *list.Element) *Decoded {
	c.stats.Hits++
	entry := e.Value.(*cacheEntry)
	entry.used = c.clock.Load()
	r := entry.record
	r.refs.Add(1)
	if r.large() {
		c.large.MoveToFront(e)
	} else {
		c.recent.MoveToFront(e)
	}
	return r
}

// get returns the record from memory or from load, which runs once for all
// that ask meanwhile. One that nobody asks to keep is not kept, unless it is a
// program, which takes 100 ms to decode; errors never are.
func (c *Cache) get(key recordKey, keep bool, load func() (*Decoded, error)) (*Decoded, error) {
	c.mu.Lock()
	if e, ok := c.entries[key]; ok {
		defer c.mu.Unlock()
		return c.hit(e), nil
	}
	if f, ok := c.flights[key]; ok {
		c.stats.Shared++
		f.sharers++
		f.keep = f.keep || keep
		c.mu.Unlock()
		<-f.done
		return f.record, f.err
	}
	f := &flight{done: make(chan struct{}), keep: keep}
	c.flights[key] = f
	c.stats.Decodes++
	c.mu.Unlock()

	f.err = ErrDamaged // what the others see if load panics
	defer func() {
		c.mu.Lock()
		delete(c.flights, key)
		if f.err == nil {
			c.stats.DecodedBytes += uint64(len(f.record.Plain))
			f.record.refs.Store(1 + f.sharers)
			if f.keep || f.record.whole || f.record.large() {
				c.keep(key, f.record)
			}
		}
		c.mu.Unlock()
		close(f.done)
	}()
	f.record, f.err = load()
	return f.record, f.err
}

// keep adds a record; c.mu is held.
func (c *Cache) keep(key recordKey, r *Decoded) {
	if c.limit == 0 {
		return
	}
	kept, size := &c.recent, &c.size
	if r.large() {
		kept, size = &c.large, &c.sizeL
	} else if r.cost() > c.limit/4 {
		return
	}
	r.refs.Add(1)
	if !r.large() {
		c.clock.Add(r.cost())
	}
	e := kept.PushFront(&cacheEntry{key, r, c.clock.Load()})
	c.entries[key] = e
	if r.whole {
		for _, m := range r.Blobs[1:] {
			c.parts[m.ID] = e
		}
	}
	*size += r.cost()
	c.retire()
	c.trim(&c.large, &c.sizeL, c.limit/4, c.kept)
	// What programs leave of the room is that of the small ones.
	room := c.limit - c.sizeL
	if c.filtered != nil {
		room -= c.filtered.held.Load()
	}
	c.trim(&c.recent, &c.size, max(room, c.limit/4), 0)
	c.held.Store(c.size + c.sizeL)
}

// retire drops large records that nobody has used for long: who has read the
// programs of a release goes on to its sources, and decoded bases of these up to
// ten times in what programs had left. c.mu is held.
func (c *Cache) retire() {
	stale := c.clock.Load() - staleAfter
	for last := c.large.Back(); last != nil && last.Value.(*cacheEntry).used < stale; last = c.large.Back() {
		c.drop(&c.large, &c.sizeL, last)
	}
	if c.filtered != nil {
		c.filtered.mu.Lock()
		c.filtered.retire()
		c.filtered.held.Store(c.filtered.size + c.filtered.sizeL)
		c.filtered.mu.Unlock()
	}
}

// trim drops what was used least recently until a list takes at most limit
// bytes or has least entries; c.mu is held.
func (c *Cache) trim(kept *list.List, size *int64, limit int64, least int) {
	for *size > limit && kept.Len() > least {
		c.drop(kept, size, kept.Back())
	}
}

// drop takes an entry out of a list; c.mu is held.
func (c *Cache) drop(kept *list.List, size *int64, e *list.Element) {
	entry := kept.Remove(e).(*cacheEntry)
	delete(c.entries, entry.key)
	for _, m := range entry.record.Blobs {
		if c.parts[m.ID] == e {
			delete(c.parts, m.ID)
		}
	}
	*size -= entry.record.cost()
	entry.record.Release()
}

// Large records are programs. They have at most a quarter of the room, so that
// one program does not drive a hundred groups of source files out.
const (
	largeRecord = 4 << 20
	// staleAfter is how many bytes of other records are kept until a program that
	// nobody uses is not.
	staleAfter = 32 << 20
	// keptLarge are kept whatever the limit: a kernel that reads a program in pieces
	// of 128 KiB would have it decoded 150 times.
	keptLarge = 1
	// keptFiltered is one more than the bases of a tool, the go command and the
	// compiler: the base of the compiler from another release comes in between.
	keptFiltered = 3
)
