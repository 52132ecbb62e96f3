package blobstore

import (
	"container/list"
	"sync"
)

// Cache keeps decoded records, the least recently used out first. Many askers
// for one record share one decoding. It may serve several views, also of
// different generations, since a record never changes.
//
// Safe for concurrent use.
type Cache struct {
	limit int64

	mu      sync.Mutex
	entries map[recordKey]*list.Element // of *cacheEntry
	recent  list.List                   // front: used last
	size    int64
	flights map[recordKey]*flight

	stats CacheStats
}

// CacheStats counts what a cache has done.
type CacheStats struct {
	Hits    uint64 // answered from memory
	Shared  uint64 // waited for another asker's decoding
	Decodes uint64
	// DecodedBytes are the plain bytes that decoding has made.
	DecodedBytes uint64
	Bytes   int64 // held now
}

type recordKey struct {
	pack   uint32
	record int64
}

type cacheEntry struct {
	key    recordKey
	record *Decoded
}

type flight struct {
	done   chan struct{}
	record *Decoded
	err    error
}

// NewCache returns a cache that holds at most limit bytes of decoded records;
// with a limit of 0 it only lets askers share decodings under way.
func NewCache(limit int64) *Cache {
	return &Cache{limit: limit, entries: map[recordKey]*list.Element{}, flights: map[recordKey]*flight{}}
}

// Stats returns the counters.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Bytes = c.size
	return s
}

// Clear drops all records.
func (c *Cache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
	c.recent.Init()
	c.size = 0
}

// get returns the record from memory or from load, which runs once for all
// that ask meanwhile. Errors are not kept.
func (c *Cache) get(key recordKey, load func() (*Decoded, error)) (*Decoded, error) {
	c.mu.Lock()
	if e, ok := c.entries[key]; ok {
		c.recent.MoveToFront(e)
		c.stats.Hits++
		c.mu.Unlock()
		return e.Value.(*cacheEntry).record, nil
	}
	if f, ok := c.flights[key]; ok {
		c.stats.Shared++
		c.mu.Unlock()
		<-f.done
		return f.record, f.err
	}
	f := &flight{done: make(chan struct{})}
	c.flights[key] = f
	c.stats.Decodes++
	c.mu.Unlock()

	f.err = ErrDamaged // what the others see if load panics
	defer func() {
		c.mu.Lock()
		delete(c.flights, key)
		if f.err == nil {
			c.stats.DecodedBytes += uint64(len(f.record.Plain))
			c.keep(key, f.record)
		}
		c.mu.Unlock()
		close(f.done)
	}()
	f.record, f.err = load()
	return f.record, f.err
}

// keep adds a record; c.mu is held.
func (c *Cache) keep(key recordKey, r *Decoded) {
	if r.cost() > c.limit {
		return
	}
	c.entries[key] = c.recent.PushFront(&cacheEntry{key, r})
	c.size += r.cost()
	for c.size > c.limit {
		oldest := c.recent.Back()
		e := c.recent.Remove(oldest).(*cacheEntry)
		delete(c.entries, e.key)
		c.size -= e.record.cost()
	}
}
