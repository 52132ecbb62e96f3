package importer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers "fastcdc"

	"gofs/blobstore"
	"gofs/importer/source"
	"gofs/index"
)

// How files become blobs. All four belong to the store's format. The chunker has
// masks of its own for chunks of 8 KiB, so that it cuts soon after minChunk, as a
// rule, whatever meanChunk says: those of programs have 290 KB in the mean. Longer
// ones would take more room: 12 releases 2.1 MB with a minChunk of 768 KiB, 3.3 MB
// with the masks for 1 MiB (fastcdc-v1.0.0).
const (
	MaxSmall  = 512 << 10 // bytes of a file that is one blob; larger ones are cut
	minChunk  = 256 << 10
	meanChunk = 1 << 20
	maxChunk  = 2 << 20
)

// groupSize is how many plain bytes of small files are compressed as one. What
// builds read is decoded in less than a millisecond for the first file of a
// package: for a net/http program out of a store of 12 releases it comes to 31
// MB, where groups of 1 MiB come to 54. Larger groups for the rest make up for
// the room that this takes.
var groupSize = [index.Classes]int{
	index.ForBuild:  256 << 10,
	index.ForTest:   2 << 20,
	index.ForOthers: 2 << 20,
}

// maxVersion bounds the VERSION file, which has two lines.
const maxVersion = 4096

// intake takes a source in. Three stages run side by side: the source is read
// into batches of pieces, in its order; batches are hashed, several at once;
// and in order again, pieces that the store does not have are gathered into
// groups for the writer, which compresses several at once.
type intake struct {
	snap *index.Snapshot
	view *blobstore.View
	w    *blobstore.Writer // nil if nothing is to be stored

	// What was read. The reading stage appends items, the gathering stage
	// fills in their blobs; each looks at its own part only, and both are
	// done before anything else looks.
	items       []index.Item
	blobs       [][]index.Ref     // of items
	sums        map[int]hash.Hash // SHA-256 of those items that have several blobs
	version     []byte
	versionTime time.Time
	goCommand   bool
	platforms   []string
	encoded     []byte // the tree
	tree        *index.Tree

	proof  *proof                // asked as soon as it is known which release this is
	mine   map[blobstore.ID]bool // blobs that this import has queued
	wanted map[blobstore.ID]bool // all that is to be stored; nil: what the store lacks
	// Small files are gathered in a group for each class at a time, so that what a
	// build reads is decoded without what is beside it: 29.5 MB lie in the folders
	// of the packages under a net/http program, of which a build needs 9.6.
	groups   [index.Classes]blobstore.Group
	newBytes int64
}

func newIntake(snap *index.Snapshot, view *blobstore.View, w *blobstore.Writer) *intake {
	return &intake{snap: snap, view: view, w: w, mine: map[blobstore.ID]bool{}, sums: map[int]hash.Hash{}}
}

// piece is a blob on its way: a small file or a chunk of a large one.
type piece struct {
	item  int
	chunk bool        // of a large file
	class index.Class // of a small one
	data  []byte
	id    blobstore.ID
	open  source.Opener // instead of data, where the source can be read at random
	size  int64         // of data, when there is open
}

// batch is a run of pieces that are hashed by one goroutine.
type batch struct {
	pieces []piece
	bytes  int64
	err    error
	hashed chan struct{}
}

// batchSize keeps the cost of passing a batch on far below that of hashing it.
const batchSize = 256 << 10

// read takes the whole source in.
func (in *intake) read(ctx context.Context, src source.Source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	toHash := make(chan *batch)
	toGather := make(chan *batch, min(4*workers(), workers()+8))
	var wg sync.WaitGroup
	for range workers() {
		wg.Go(func() {
			for b := range toHash {
				b.hash(ctx)
			}
		})
	}
	var gathered error
	wg.Go(func() {
		if gathered = in.gather(ctx, src.Label(), toGather); gathered != nil {
			cancel(gathered)
		}
		for range toGather { // what is under way when gathering has failed
		}
	})
	rd := &reader{in: in, ctx: ctx, src: src, toHash: toHash, toGather: toGather}
	err := src.Walk(ctx, rd.entry)
	if err == nil {
		err = rd.flush()
	}
	if err != nil {
		cancel(err)
	}
	close(toHash)
	close(toGather)
	wg.Wait()
	// The first error is the cause: the other stages only saw that it had
	// ended them.
	if gathered != nil && (err == nil || errors.Is(context.Cause(ctx), gathered)) {
		return gathered
	}
	if err != nil {
		return err
	}
	for i := range in.blobs {
		in.items[i].Blobs = in.blobs[i]
	}
	return nil
}

// reader is the first stage.
type reader struct {
	in       *intake
	ctx      context.Context
	src      source.Source
	toHash   chan<- *batch
	toGather chan<- *batch
	batch    *batch
	chunker  *chunkers.Chunker
}

func (r *reader) entry(e source.Entry, open source.Opener) error {
	in := r.in
	in.note(&e)
	it := index.Item{Path: e.Path, Mode: uint16(e.Mode), Target: e.Target}
	switch e.Kind {
	case source.Dir:
		it.Kind = index.Folder
	case source.Symlink:
		it.Kind = index.Symlink
	default:
		it.Size = e.Size
	}
	in.items = append(in.items, it)
	if e.Kind != source.File || e.Size == 0 {
		return nil
	}
	item := len(in.items) - 1
	if e.Size > MaxSmall {
		return r.large(item, open)
	}
	p := piece{item: item, class: index.ClassOf(e.Path), open: open, size: e.Size}
	if r.src.Sequential() || e.Path == "VERSION" {
		if err := p.load(); err != nil {
			return err
		}
	}
	if e.Path == "VERSION" {
		if e.Size > maxVersion {
			return fmt.Errorf("%s: VERSION has %d bytes: %w", r.src.Label(), e.Size, source.ErrNotRelease)
		}
		in.version = p.data
	}
	in.claim()
	return r.add(p)
}

// load reads the piece's bytes.
func (p *piece) load() error {
	rc, err := p.open()
	if err != nil {
		return err
	}
	defer rc.Close()
	p.data = make([]byte, p.size)
	if _, err := io.ReadFull(rc, p.data); err != nil {
		return err
	}
	p.open = nil
	return nil
}

// large cuts a file into chunks.
func (r *reader) large(item int, open source.Opener) error {
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	if r.chunker == nil {
		r.chunker, err = chunkers.NewChunker("fastcdc", rc, &chunkers.ChunkerOpts{MinSize: minChunk, NormalSize: meanChunk, MaxSize: maxChunk})
		if err != nil {
			return err
		}
	} else {
		r.chunker.Reset(rc)
	}
	for {
		chunk, err := r.chunker.Next()
		if len(chunk) > 0 {
			// The chunker uses its buffer again.
			if err := r.add(piece{item: item, chunk: true, data: append([]byte(nil), chunk...)}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *reader) add(p piece) error {
	if r.batch == nil {
		r.batch = &batch{hashed: make(chan struct{})}
	}
	r.batch.pieces = append(r.batch.pieces, p)
	r.batch.bytes += max(int64(len(p.data)), p.size)
	if r.batch.bytes < batchSize {
		return nil
	}
	return r.flush()
}

func (r *reader) flush() error {
	b := r.batch
	if b == nil {
		return nil
	}
	r.batch = nil
	select {
	case r.toGather <- b:
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	r.toHash <- b // its readers stay until the channel is closed
	return nil
}

func (b *batch) hash(ctx context.Context) {
	defer close(b.hashed)
	for i := range b.pieces {
		p := &b.pieces[i]
		if p.open != nil {
			if b.err = ctx.Err(); b.err == nil {
				b.err = p.load()
			}
			if b.err != nil {
				return
			}
		}
		p.id = blobstore.Sum(p.data)
	}
}

// gather is the last stage. Its errors name the source, as the source's own do.
func (in *intake) gather(ctx context.Context, label string, batches <-chan *batch) error {
	for b := range batches {
		<-b.hashed
		if b.err != nil {
			return b.err
		}
		for _, p := range b.pieces {
			if err := in.take(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", label, err)
			}
		}
	}
	for i := range in.groups {
		if err := in.closeGroup(ctx, &in.groups[i]); err != nil {
			return fmt.Errorf("%s: %w", label, err)
		}
	}
	return nil
}

func (in *intake) take(ctx context.Context, p piece) error {
	for len(in.blobs) <= p.item {
		in.blobs = append(in.blobs, nil)
	}
	in.blobs[p.item] = append(in.blobs[p.item], index.Ref{ID: p.id, Length: uint32(len(p.data))})
	if p.chunk {
		if in.sums[p.item] == nil {
			in.sums[p.item] = sha256.New()
		}
		in.sums[p.item].Write(p.data)
	}
	if in.w == nil {
		return nil
	}
	// What lies in a pack that is lost is stored again.
	if in.mine[p.id] || in.wanted == nil && in.view.Has(p.id) || in.wanted != nil && !in.wanted[p.id] {
		return nil
	}
	in.mine[p.id] = true
	in.newBytes += int64(len(p.data))
	if p.chunk {
		// Large enough on its own; the group under way stays open for the
		// small files that follow.
		return in.w.Add(ctx, blobstore.Group{Blobs: []blobstore.Blob{{ID: p.id, Data: p.data}}, Plain: p.data})
	}
	g := &in.groups[p.class]
	if len(g.Plain)+len(p.data) > groupSize[p.class] || len(g.Blobs) == blobstore.MaxGroup {
		if err := in.closeGroup(ctx, g); err != nil {
			return err
		}
	}
	if g.Plain == nil {
		g.Plain = make([]byte, 0, max(groupSize[p.class], len(p.data)))
	}
	from := len(g.Plain)
	g.Plain = append(g.Plain, p.data...)
	g.Blobs = append(g.Blobs, blobstore.Blob{ID: p.id, Data: g.Plain[from:]})
	return nil
}

// closeGroup hands a group to the writer and begins a new one.
func (in *intake) closeGroup(ctx context.Context, g *blobstore.Group) error {
	if len(g.Blobs) == 0 {
		return nil
	}
	full := *g
	*g = blobstore.Group{}
	return in.w.Add(ctx, full)
}
