package recordfs

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
)

// What became of what was not durable, in the plainest cases.
const (
	NothingLost = "nothing lost"
	AllLost     = "all lost that is not synced"
)

// Crash is a disk that a crash may leave.
type Crash struct {
	At   int    // operations of the log that had been asked for
	What string // became of those that were not durable
	Disk *Disk
}

// Cases are the options of Crashes.
type Cases struct {
	Random int // subsets at each point of what is not durable
	Share  int // only one of so many cases is made, but all where nothing or all is lost
	// Epoch numbers points of the log at which the same disk is judged alike,
	// so that it need not be made twice.
	Epoch func(at int) int
}

// Crashes calls fn for the disks that a crash amidst the log may leave, which
// begins with an empty one. Of the subsets of what is not durable, these are
// all, none, all of one kind, all but one, only one, with each of the writes
// torn, and random ones. fn must not change the disk.
func Crashes(log []Op, o Cases, fn func(Crash)) {
	c := &crashes{log: log, Cases: o, fn: fn, seed: maphash.MakeSeed(), seen: map[[2]uint64]bool{}}
	r := rand.New(rand.NewPCG(1, 2))
	for at := range len(log) + 1 {
		c.point(at, r)
	}
}

type crashes struct {
	Cases
	log  []Op
	fn   func(Crash)
	seed maphash.Seed
	seen map[[2]uint64]bool
	n    int

	at   int
	base *Disk // all that is durable
	open []int // operations that are not
}

// point makes the crashes at one point of the log.
func (c *crashes) point(at int, r *rand.Rand) {
	c.at, c.base, c.open = at, NewDisk(), nil
	for i := range c.log[:at] {
		switch o := &c.log[i]; {
		case o.Kind == Sync || o.Kind == SyncDir || o.Kind == Unnamed:
		case c.durable(i):
			c.base.Apply(o)
		default:
			c.open = append(c.open, i)
		}
	}
	all := func(int) bool { return true }
	none := func(int) bool { return false }
	c.make(NothingLost, all, nil)
	c.make(AllLost, none, nil)
	c.emit("names lost", func(i int) bool { return c.log[i].Kind == Write || c.log[i].Kind == Truncate }, nil)
	c.emit("bytes lost", func(i int) bool { return c.log[i].Kind != Write && c.log[i].Kind != Truncate }, nil)
	c.emit("writes lost, lengths kept", func(i int) bool { return c.log[i].Kind != Write }, c.zeros)
	for _, lost := range c.open {
		c.emit(fmt.Sprintf("%d lost: %v", lost, &c.log[lost]), func(i int) bool { return i != lost }, nil)
		c.emit(fmt.Sprintf("only %d kept: %v", lost, &c.log[lost]), func(i int) bool { return i == lost }, nil)
	}
	for n := range c.Random {
		kept := map[int]bool{}
		share := r.Float64()
		for _, i := range c.open {
			kept[i] = r.Float64() < share
		}
		c.emit(fmt.Sprintf("random subset %d", n), func(i int) bool { return kept[i] }, nil)
	}
	// A write is torn while it is under way, or when the sync that was to make
	// it durable is.
	for _, i := range c.open {
		if o := &c.log[i]; o.Kind == Write && (i == at-1 || at < len(c.log) && c.log[at].Kind == Sync && c.log[at].Node == o.Node) {
			c.torn(i, all, r)
			c.torn(i, none, r)
		}
	}
}

// durable says whether operation i is at c.at.
func (c *crashes) durable(i int) bool {
	o := &c.log[i]
	from, to := false, o.Kind != Rename || o.Dir == o.ToDir
	for k := i + 1; k < c.at; k++ {
		s := &c.log[k]
		switch {
		case o.Kind == Write || o.Kind == Truncate:
			if s.Kind == Sync && s.Node == o.Node {
				return true
			}
		case s.Kind == SyncDir:
			from = from || s.Node == o.Dir
			to = to || s.Node == o.ToDir && o.Kind == Rename
			if from && to {
				return true
			}
		}
	}
	return false
}

// zeros is what a write leaves of which only the length came to the disk.
func (c *crashes) zeros(d *Disk) {
	for _, i := range c.open {
		if o := &c.log[i]; o.Kind == Write {
			if end := o.Offset + int64(len(o.Data)); end > int64(len(d.files[o.Node])) {
				d.Apply(&Op{Kind: Truncate, Node: o.Node, Size: end})
			}
		}
	}
}

// torn emits what parts of a write make, with others kept or not.
func (c *crashes) torn(i int, others func(int) bool, r *rand.Rand) {
	o := &c.log[i]
	const sector, page = 512, 4096
	cuts := map[int]bool{}
	for k := 1; k <= 4; k++ {
		cuts[k*sector] = true
		cuts[k*page] = true
	}
	for k := 1; k < 6; k++ {
		cuts[len(o.Data)*k/6/page*page] = true
	}
	cuts[(len(o.Data)-1)/sector*sector] = true
	for _, cut := range slices.Sorted(maps.Keys(cuts)) {
		if cut <= 0 || cut >= len(o.Data) {
			continue
		}
		head := Op{Kind: Write, Node: o.Node, Offset: o.Offset, Data: o.Data[:cut]}
		tail := Op{Kind: Write, Node: o.Node, Offset: o.Offset + int64(cut), Data: o.Data[cut:]}
		c.emit(fmt.Sprintf("%d torn, the first %d bytes are there: %v", i, cut, o), func(k int) bool { return k != i && others(k) }, func(d *Disk) { d.Apply(&head) })
		c.emit(fmt.Sprintf("%d torn, the first %d bytes are not: %v", i, cut, o), func(k int) bool { return k != i && others(k) }, func(d *Disk) { d.Apply(&tail) })
	}
	for range 2 {
		var parts []Op
		for at := 0; at < len(o.Data); at += sector {
			if r.IntN(2) == 0 {
				parts = append(parts, Op{Kind: Write, Node: o.Node, Offset: o.Offset + int64(at), Data: o.Data[at:min(at+sector, len(o.Data))]})
			}
		}
		c.emit(fmt.Sprintf("%d torn, random sectors: %v", i, o), func(k int) bool { return k != i && others(k) }, func(d *Disk) {
			for k := range parts {
				d.Apply(&parts[k])
			}
		})
	}
}

// emit makes a share of the disks.
func (c *crashes) emit(what string, kept func(int) bool, more func(*Disk)) {
	if c.n++; c.n%max(c.Share, 1) == 0 {
		c.make(what, kept, more)
	}
}

// make makes the disk that has the durable operations, those kept, and more.
func (c *crashes) make(what string, kept func(int) bool, more func(*Disk)) {
	d := c.base.Clone()
	for _, i := range c.open {
		if kept(i) {
			d.Apply(&c.log[i])
		}
	}
	if more != nil {
		more(d)
	}
	key := [2]uint64{d.Sum(c.seed), uint64(c.Epoch(c.at))}
	if c.seen[key] {
		return
	}
	c.seen[key] = true
	c.fn(Crash{c.at, what, d})
}
