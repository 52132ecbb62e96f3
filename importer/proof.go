package importer

import (
	"context"
	"errors"
	"fmt"

	"gofs/blobstore"
	"gofs/importer/provenance"
	"gofs/index"
)

// proof looks a release up in the checksum database while it is read. One
// goroutine uses it.
type proof struct {
	db      *provenance.Database // nil: nobody is asked
	require bool
	ctx     context.Context
	asked   *question
}

// question is a lookup under way. What it found is there once done is closed.
type question struct {
	version, platform string
	cancel            context.CancelFunc
	done              chan struct{}
	h1                string
	err               error
}

func newProof(ctx context.Context, o Options) *proof {
	return &proof{db: o.Checksums, require: o.Require, ctx: ctx}
}

// ask begins to look a release up, unless that has begun. It gives up what it
// was asked for before.
func (p *proof) ask(version, platform string) {
	if p.db == nil || p.asked != nil && p.asked.version == version && p.asked.platform == platform {
		return
	}
	p.stop()
	ctx, cancel := context.WithCancel(p.ctx)
	q := &question{version: version, platform: platform, cancel: cancel, done: make(chan struct{})}
	p.asked = q
	go func() {
		defer close(q.done)
		q.h1, q.err = p.db.Lookup(ctx, version, platform)
	}()
}

// stop gives up what is under way and waits for its end.
func (p *proof) stop() {
	if p.asked != nil {
		p.asked.cancel()
		<-p.asked.done
	}
}

// answer says whether the database has signed this h1 for a release. foreign
// is why there is none.
func (p *proof) answer(version, platform, h1 string, foreign error) error {
	p.ask(version, platform)
	<-p.asked.done
	if p.asked.err != nil {
		return p.asked.err
	}
	return p.db.Compare(version, platform, h1, foreign, p.asked.h1)
}

// claim asks for the release as soon as the files read so far say which it is.
func (in *intake) claim() {
	if in.proof == nil || in.proof.asked != nil || in.version == nil || len(in.platforms) != 1 {
		return
	}
	if version, ok := provenance.Release(in.version); ok {
		in.proof.ask(version, in.platforms[0])
	}
}

// prove fills in what is known of the version's provenance. The warning says
// why that is nothing, where more was asked for.
func (in *intake) prove(ctx context.Context, v *index.Version) (warning string, err error) {
	version, official := provenance.Release(in.version)
	files := in.files()
	foreign := error(nil)
	v.Provenance = provenance.Unverified
	if !official {
		foreign = fmt.Errorf("its VERSION is none of the Go project's: %w", provenance.ErrForeign)
	} else {
		v.H1, foreign = files.H1(version, v.Platform)
	}
	p := in.proof
	if p.db == nil {
		return "", nil
	}
	err = foreign
	if official {
		err = p.answer(version, v.Platform, v.H1, foreign)
	}
	switch {
	case err == nil:
		v.Provenance = p.db.Proof()
		return "", nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, provenance.ErrMismatch):
		return "", fmt.Errorf("%w (--verify=off imports it all the same)", err)
	case errors.Is(err, provenance.ErrDatabase):
		return "", err
	case p.require:
		return "", fmt.Errorf("unverified: %w", err)
	}
	return fmt.Sprintf("%s is unverified: %v", v.Name, err), nil
}

// files gathers what was read for the h1.
func (in *intake) files() *provenance.Files {
	f := &provenance.Files{}
	for i := range in.items {
		it := &in.items[i]
		switch it.Kind {
		case index.Symlink:
			f.AddLink(it.Path)
		case index.File:
			f.Add(it.Path, in.sum(i))
		}
	}
	return f
}

// sum is the SHA-256 of a file that was read.
func (in *intake) sum(item int) [32]byte {
	switch blobs := in.items[item].Blobs; {
	case in.sums[item] != nil:
		return [32]byte(in.sums[item].Sum(nil))
	case len(blobs) == 1:
		return blobs[0].ID
	}
	return blobstore.Sum(nil)
}
