package blobstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
)

// MaxChain bounds what is decoded for one record, in bytes: its own plain and
// filtered bytes and those of all its bases, and their stored ones. A record
// that needs more is not read.
const MaxChain = 512 << 20

// Bounds of the records that must be decoded for one: what a hostile store
// can make a reader do. The deepest chains that compaction writes take 300 MB.
const (
	maxLinks = 1 << 12

	// maxRoom bounds what chains under way at the same time hold, in bytes;
	// one that needs more is alone. Without it, 64 readers of different
	// programs in a compacted store took 438 MB instead of 260.
	maxRoom = 72 << 20
	// smallChain is up to how many bytes a chain does not count, since it has
	// its slot to wait for before it takes memory.
	smallChain = 2 << 20
	// hugeRecord is from how many bytes on a record, larger than any program of
	// a release but the compilers of Go 1.20 and before, is decoded while no other
	// chain is.
	hugeRecord = 40 << 20
)

// link is a record in a chain of bases, in the form that is needed of it:
// plain, or filtered as a program that others are deltas of.
type link struct {
	pack     *openPack
	key      recordKey
	header   *header
	filtered bool
	bases    []base // of the record, the same in both forms
	decoding []int  // the bases in the order in which they are decoded
	users    int    // bases of the chain's records that still need it
	need     int64  // bytes that are held at most while it is decoded
	decoded  *Decoded
}

// base is a blob that a record of a chain needs.
type base struct {
	*link
	id  ID
	loc Location
}

type linkKey struct {
	recordKey
	filtered bool
}

// chain is a record and what it needs, planned before anything is decoded: its
// depths fall, so it has no loops, and its bounds are kept.
type chain struct {
	view  *View
	last  *link
	links map[linkKey]*link
	bytes int64 // that are decoded for it, its own included
	huge  bool  // one of its records is a hugeRecord
	once  bool  // last is not to be kept
}

// plan reads the headers of all that a record needs.
func (v *View) plan(p *openPack, loc Location, h *header) (*chain, error) {
	c := &chain{view: v, last: newLink(p, loc, h, false)}
	c.count(h)
	if !h.enc.based() {
		return c, nil
	}
	c.links = map[linkKey]*link{}
	return c, c.addBases(c.last)
}

func newLink(p *openPack, loc Location, h *header, filtered bool) *link {
	return &link{pack: p, key: recordKey{loc.Pack, loc.Record}, header: h, filtered: filtered, need: h.room()}
}

func (c *chain) count(h *header) {
	c.bytes += int64(h.plain) + int64(h.inner)
	c.huge = c.huge || max(h.plain, h.inner) >= hugeRecord
}

func (c *chain) addBases(l *link) error {
	h := l.header
	filtered := h.enc == encProgramDelta
	total := int64(0)
	for _, id := range h.bases {
		b, err := c.base(l, id, filtered)
		if err != nil {
			return fmt.Errorf("base %s: %w", id, err)
		}
		b.users++
		l.bases = append(l.bases, b)
		total += b.size()
	}
	if total > MaxBases {
		return fmt.Errorf("bases of %d bytes: %w", total, ErrDamaged)
	}
	l.order()
	return nil
}

// order finds out in which order the bases take the least memory: the one that
// needs most while it is decoded comes first, when no other is held yet. In the
// order of the record, a hostile chain of 16 could have 16 times MaxBases held.
func (l *link) order() {
	for i := range l.bases {
		l.decoding = append(l.decoding, i)
	}
	slices.SortStableFunc(l.decoding, func(a, b int) int { return cmp.Compare(l.bases[b].need, l.bases[a].need) })
	held := int64(0)
	for _, i := range l.decoding {
		b := l.bases[i]
		l.need = max(l.need, held+b.need)
		held += b.size()
	}
	l.need = max(l.need, held+l.header.room())
}

// room is how many bytes a record is decoded into: a filtered program becomes the
// plain one in its place.
func (h *header) room() int64 { return int64(max(h.plain, h.inner)) }

// size is how many bytes of a base are held.
func (b base) size() int64 {
	if b.filtered {
		return int64(b.header.inner)
	}
	return int64(b.loc.Length)
}

// base returns the link of a base of l.
func (c *chain) base(l *link, id ID, filtered bool) (base, error) {
	loc, ok := c.view.loc.Locate(id)
	if !ok {
		return base{}, fmt.Errorf("%w: %w", ErrNotFound, ErrDamaged)
	}
	key := linkKey{recordKey{loc.Pack, loc.Record}, filtered}
	b, known := base{c.links[key], id, loc}, true
	if b.link == nil {
		p, err := c.view.pack(loc.Pack)
		if err != nil {
			return b, err
		}
		h, err := readHeader(p.f, loc.Record, p.ref.Size)
		if err != nil {
			return b, err
		}
		known = false
		b.link = newLink(p, loc, h, filtered)
		c.links[key] = b.link
		c.count(h)
		c.bytes += int64(h.size())
	}
	switch {
	case b.header.depth >= l.header.depth:
		return b, fmt.Errorf("its depth is %d: %w", b.header.depth, ErrDamaged)
	case filtered && (!b.header.enc.filtered() || b.header.blobs[0].id != id):
		return b, fmt.Errorf("it is no program: %w", ErrDamaged)
	case len(c.links) > maxLinks || c.bytes > MaxChain:
		return b, fmt.Errorf("a chain of %d records with %d bytes: %w", len(c.links), c.bytes, ErrDamaged)
	case !known && b.header.enc.based():
		return b, c.addBases(b.link)
	}
	return b, nil
}

// pack returns the pack with a number, if it can be read.
func (v *View) pack(number uint32) (*openPack, error) {
	p := v.packs[number]
	switch {
	case p == nil:
		return nil, fmt.Errorf("pack number %d: %w", number, ErrNotFound)
	case p.err != nil:
		return nil, p.err
	}
	return p, nil
}

// decoded returns the decoded record at a location.
func (v *View) decoded(ctx context.Context, loc Location, keep bool) (*Decoded, error) {
	if d := v.cache.peek(recordKey{loc.Pack, loc.Record}, keep); d != nil {
		return d, nil
	}
	p, err := v.pack(loc.Pack)
	if err != nil {
		return nil, err
	}
	h, err := readHeader(p.f, loc.Record, p.ref.Size)
	var c *chain
	if err == nil {
		c, err = v.plan(p, loc, h)
	}
	if err != nil {
		return nil, fmt.Errorf("pack %s at %d: %w", p.ref.Name, loc.Record, err)
	}
	// Before anybody can wait for this decoding: who holds a slot may wait
	// only for those that have theirs.
	leave, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer c.drop()
	c.once = !keep
	return c.decode(ctx, c.last)
}

// enter waits for room for what a chain decodes.
func (c *chain) enter(ctx context.Context) (leave func(), err error) {
	if c.bytes <= smallChain {
		return func() {}, nil
	}
	n := min(c.last.need, maxRoom)
	if c.huge {
		n = maxRoom
	}
	if err := c.view.room.Acquire(ctx, n); err != nil {
		return nil, err
	}
	if c.huge {
		// The last one need not be collected yet: an export of a hostile store
		// took 269 MiB at times, and 205 so.
		runtime.GC()
	}
	return func() { c.view.room.Release(n) }, nil
}

// decode returns a link in its form, from memory where that has it.
func (c *chain) decode(ctx context.Context, l *link) (*Decoded, error) {
	if l.decoded != nil {
		return l.decoded, nil
	}
	if l != c.last && max(l.header.plain, l.header.inner) >= hugeRecord {
		// Nobody else decodes one now, and none is worth keeping.
		d, err := c.load(ctx, l)
		if err == nil {
			d.refs.Store(1)
		}
		l.decoded = d
		return d, err
	}
	cache := c.view.cache
	if l.filtered {
		cache = cache.filtered
	}
	for {
		d, err := cache.get(l.key, l != c.last || !c.once, func() (*Decoded, error) { return c.load(ctx, l) })
		gaveUp := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if !gaveUp || ctx.Err() != nil {
			l.decoded = d
			return d, err
		}
		// The asker that did the work gave up; this one has not.
	}
}

func (c *chain) load(ctx context.Context, l *link) (*Decoded, error) {
	from := c.view.cache.buffers
	room := from.get(int(l.header.stored))
	r, err := readStored(room, l.pack.f, l.key.record, l.header)
	var d *Decoded
	if err == nil {
		d, err = c.decodeRecord(ctx, r, l)
	}
	if err == nil && l.header.enc == encRaw {
		d.room, d.buffers = room, from
	} else {
		from.put(room)
	}
	if err != nil {
		return nil, fmt.Errorf("pack %s at %d: %w", l.pack.ref.Name, l.key.record, err)
	}
	return d, nil
}

// decodeRecord decodes a record that has been read, and before it its bases.
func (c *chain) decodeRecord(ctx context.Context, r *Record, l *link) (*Decoded, error) {
	bases, release, err := c.bases(ctx, l)
	if err != nil {
		return nil, err
	}
	defer release()
	// Decoding is all computation: more at once than there are processors
	// would only take memory. The bases are decoded before a slot is taken,
	// so that nobody waits for one while holding one.
	select {
	case c.view.slots <- struct{}{}:
		defer func() { <-c.view.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if !r.header.enc.filtered() {
		return r.decode(c.view.dec, bases, c.view.cache.buffers)
	}
	filtered, err := r.unpack(c.view.dec, bases, c.view.cache.buffers)
	if err != nil || l.filtered {
		return filtered, err
	}
	return r.restore(filtered)
}

// bases returns the bytes of the bases of a link, and how to let go of them.
// Those of a dictionary are one piece.
func (c *chain) bases(ctx context.Context, l *link) (all [][]byte, release func(), err error) {
	from := c.view.cache.buffers
	all = make([][]byte, len(l.bases))
	var held []*Decoded
	starts := l.starts()
	total := starts[len(l.bases)]
	var room []byte // for those that are copied out of records, each at its place
	release = func() {
		for _, d := range held {
			d.Release()
		}
		from.put(room)
	}
	for _, i := range l.decoding {
		b := l.bases[i]
		d, err := c.decode(ctx, b.link)
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("base: %w", err)
		}
		if b.users--; b.users <= 0 {
			b.decoded = nil // and what was the link's to release is this one's
		} else {
			d.refs.Add(1)
		}
		held = append(held, d)
		if b.filtered {
			all[i] = d.Plain
			continue
		}
		k, err := d.at(b.id, b.loc)
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("base: %w", err)
		}
		all[i] = d.Bytes(k)
		if l.header.enc != encDict && len(all[i]) >= len(d.Plain)/2 {
			continue
		}
		// The rest of the record need not be held for it.
		if room == nil {
			room = from.get(total)
		}
		all[i] = append(room[starts[i]:starts[i]:starts[i+1]], all[i]...)
		held = held[:len(held)-1]
		d.Release()
	}
	if l.header.enc == encDict {
		all = [][]byte{room[:total]}
	}
	return all, release, nil
}

// starts returns where each base begins when they lie one after the other, and
// where the last one ends.
func (l *link) starts() []int {
	starts := make([]int, 1, len(l.bases)+1)
	for i, b := range l.bases {
		starts = append(starts, starts[i]+int(b.loc.Length))
	}
	return starts
}

// drop lets go of the bases that were decoded and not used up: their users
// were in memory, or one could not be read.
func (c *chain) drop() {
	for _, l := range c.links {
		if l.decoded != nil {
			l.decoded.Release()
			l.decoded = nil
		}
	}
}

// at returns the index of a blob that has been found to be what its ID says.
func (d *Decoded) at(id ID, loc Location) (int, error) {
	i := d.find(id, loc.Offset)
	if i < 0 || d.Blobs[i].Length != loc.Length {
		return 0, fmt.Errorf("blob %s: the record does not hold it: %w", id, ErrDamaged)
	}
	if !d.Sound(i) {
		return 0, fmt.Errorf("blob %s: checksum: %w", id, ErrDamaged)
	}
	return i, nil
}

// decode decodes a record that was read with its content.
func (v *View) decode(ctx context.Context, r *Record) (*Decoded, error) {
	c, err := v.plan(nil, Location{}, r.header)
	if err != nil {
		return nil, err
	}
	leave, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer c.drop()
	d, err := c.decodeRecord(ctx, r, c.last)
	if err != nil {
		return nil, err
	}
	d.refs.Store(1)
	return d, nil
}
