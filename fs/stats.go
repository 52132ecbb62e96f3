package fs

import (
	"os"
	"sync/atomic"
	"time"
)

// op is a kind of request.
type op int

const (
	opLookup op = iota
	opForget
	opGetAttr
	opReadlink
	opOpen
	opRelease
	opOpenDir
	opRead
	opReadDir
	opReadDirPlus
	opFlush
	opAccess
	opStatFs
	opGetXAttr
	opListXAttr
	ops
)

var opNames = [ops]string{
	"lookup", "forget", "getattr", "readlink", "open", "release", "opendir",
	"read", "readdir", "readdirplus", "flush", "access", "statfs", "getxattr", "listxattr",
}

type counters struct {
	requests      [ops]atomic.Uint64
	readBytes     atomic.Uint64
	stores        atomic.Uint64
	storedBytes   atomic.Uint64
	storesUnknown atomic.Uint64
	storesFailed  atomic.Uint64
	damaged       atomic.Uint64
	failures      atomic.Uint64
	reloads       atomic.Uint64
	reloadErrors  atomic.Uint64
	refused       atomic.Uint64
}

func (c *counters) add(o op) { c.requests[o].Add(1) }

// pushed counts a file of so many bytes that the kernel was given ahead.
func (c *counters) pushed(size int64) {
	c.stores.Add(1)
	c.storedBytes.Add(uint64(size))
}

// Stats counts what a mount has done since it began.
type Stats struct {
	Generation uint64        `json:"generation"` // of the store that is shown
	Versions   int           `json:"versions"`
	Trees      int           `json:"trees"` // in memory
	Uptime     time.Duration `json:"uptime_ns"`
	// The process that serves now, which has done what the rest counts; its
	// program; whether a supervisor keeps the mount, and how often it had to
	// start another process.
	PID        int    `json:"pid"`
	Program    string `json:"program"`
	Supervised bool   `json:"supervised"`
	Restarts   int    `json:"restarts"`
	// Requests of the kernel by kind, "lookup" and so on. "forget" counts
	// inodes.
	Requests map[string]uint64 `json:"requests"`
	// ReadBytes is what READ was answered with.
	ReadBytes uint64        `json:"read_bytes"`
	IO        IOStats       `json:"io"`
	Hot       *HotStats     `json:"hot,omitempty"`
	Cache     CacheStats    `json:"cache"`
	Prefetch  PrefetchStats `json:"prefetch"`
	// Damaged is how often a blob was asked for that is not what its name
	// says; Failures, how often one could not be read for other reasons.
	Damaged      uint64 `json:"damaged"`
	Failures     uint64 `json:"failures"`
	Reloads      uint64 `json:"reloads"`
	ReloadErrors uint64 `json:"reload_errors"`
	// Refused counts users who asked on the socket and may not.
	Refused uint64 `json:"refused"`
}

// CacheStats counts the use of the cache of decoded records.
type CacheStats struct {
	Hits    uint64 `json:"hits"`
	Shared  uint64 `json:"shared"` // waited for another's decoding
	Decodes uint64 `json:"decodes"`
	Decoded uint64 `json:"decoded_bytes"` // plain bytes that decoding has made
	Bytes   int64  `json:"bytes"`         // held now
}

// IOStats says how the kernel gets at the bytes.
type IOStats struct {
	Mode        string `json:"mode"`        // "cache" or "passthrough"
	Passthrough uint64 `json:"passthrough"` // opens that were answered with a file to read
	Cached      uint64 `json:"cached"`      // and without one
}

// PrefetchStats counts files pushed into the page cache.
type PrefetchStats struct {
	Stores  uint64 `json:"stores"`
	Bytes   uint64 `json:"bytes"`
	Unknown uint64 `json:"unknown"` // the kernel did not know the file any more
	Failed  uint64 `json:"failed"`
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	e, c, cache := s.now.Load(), &s.counters, s.cache.Stats()
	st := Stats{
		Generation: e.generation,
		Versions:   len(e.releases) - len(e.removed),
		Uptime:     time.Since(s.started),
		PID:        os.Getpid(),
		Restarts:   s.restarts,
		Requests:   make(map[string]uint64, ops),
		ReadBytes:  c.readBytes.Load(),
		Cache:      CacheStats{cache.Hits, cache.Shared, cache.Decodes, cache.DecodedBytes, cache.Bytes},
		IO:         IOStats{Mode: "cache"},
		Hot:        s.hot.stats(),
		Prefetch: PrefetchStats{
			Stores: c.stores.Load(), Bytes: c.storedBytes.Load(),
			Unknown: c.storesUnknown.Load(), Failed: c.storesFailed.Load(),
		},
		Damaged: c.damaged.Load(), Failures: c.failures.Load(),
		Reloads: c.reloads.Load(), ReloadErrors: c.reloadErrors.Load(),
		Refused: c.refused.Load(),
	}
	if p := s.through; p != nil {
		st.IO = IOStats{"passthrough", p.opens.Load(), p.cached.Load()}
	}
	st.Program, _ = os.Executable() // "" where /proc is missing
	if s.device != nil {
		st.Supervised = s.device.line != nil
	}
	for i := range c.requests {
		st.Requests[opNames[i]] = c.requests[i].Load()
	}
	for _, r := range e.releases {
		if r.tree.Load() != nil {
			st.Trees++
		}
	}
	return st
}
