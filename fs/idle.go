package fs

import (
	"runtime"
	"runtime/debug"
	"time"
)

// idleAfter is how long a mount that nobody asks keeps what it has decoded.
// The kernel has the bytes by then; without this, a mount that has served a
// build would keep 150 MB for ever.
const idleAfter = 20 * time.Second

// idleness is what the watcher knows of the requests.
type idleness struct {
	requests uint64
	since    time.Time
	done     bool
}

// rest gives memory back when nothing has been asked for a while.
func (s *Server) rest(now time.Time) {
	var requests uint64
	for _, o := range []op{opLookup, opRead, opReadDirPlus, opOpen} {
		requests += s.counters.requests[o].Load()
	}
	i := &s.idle
	switch {
	case requests != i.requests || i.since.IsZero():
		*i = idleness{requests: requests, since: now}
	case !i.done && now.Sub(i.since) >= idleAfter:
		i.done = true
		s.cache.Clear()
		// A sync.Pool lets go of its buffers with the second collection.
		runtime.GC()
		debug.FreeOSMemory()
	}
}
