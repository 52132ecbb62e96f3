// Package importer brings releases into a store.
//
// A source passes through once: its files are cut into blobs, hashed, left
// out where the store has them, gathered into groups, compressed, and
// published in one commit at the end. Nothing is unpacked to disk, memory
// does not grow with the input, and an import that ends early, in whatever
// way, leaves the store as it was.
//
// A file of up to [MaxSmall] bytes is one blob; a larger one is cut by
// FastCDC, so that files that differ in places share the rest. The cutting
// is part of what makes two files one inode, so its parameters belong to the
// store's format.
package importer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"gofs/blobstore"
	"gofs/importer/provenance"
	"gofs/importer/source"
	"gofs/index"
)

// Options say how a release is imported. The zero value is ready to use.
type Options struct {
	As      string // name of the version instead of the one its files say
	Level   blobstore.Level
	NoWait  bool                // fail with index.ErrLocked instead of waiting
	Waiting func(holder string) // called once when another process writes to the store

	// Checksums is asked whether the release is what the Go project released.
	// What it has another hash for is never imported; what it does not know or
	// gives no answer for is, as unverified, unless Require is set. If nil,
	// nobody is asked.
	Checksums *provenance.Database
	Require   bool
}

// Result is what an import did.
type Result struct {
	Version index.Version
	Existed bool  // the store had it already; nothing was changed
	Proved  bool  // Existed, but that it was proved is new
	Bytes   int64 // of all files
	New     int64 // of these, bytes that the store did not have
	Stored  int64 // what it added to the packs
	Elapsed time.Duration
	Warning string // why Version could not be proved although it should have been, "" if it was
}

// Import reads a source to its end and publishes it. The error is one of
// package source's, one of package provenance's, index.ErrExists, index.ErrLocked, or that of
// the file system; the store is then as it was.
func Import(ctx context.Context, store *index.Store, src source.Source, o Options) (*Result, error) {
	start := time.Now()
	lock, err := store.Lock(ctx, index.LockOptions{Verb: "import", NoWait: o.NoWait, Waiting: o.Waiting})
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	snap, view, err := store.OpenView(blobstore.NewCache(0))
	if err != nil {
		return nil, err
	}
	defer view.Close()
	w, err := blobstore.NewWriter(store.PackDir(), blobstore.WriterOptions{Level: o.Level})
	if err != nil {
		return nil, err
	}
	defer w.Abort()

	if old := fetched(snap, src, o); old != nil {
		return &Result{Version: *old, Existed: true, Bytes: old.Bytes, Elapsed: time.Since(start)}, nil
	}
	in := newIntake(snap, view, w)
	in.proof = newProof(ctx, o)
	defer in.proof.stop()
	r, err := in.release(ctx, src, o)
	if err != nil {
		return nil, err
	}
	r.Version.Generation = snap.Generation + 1
	old, err := existing(snap, &r.Version)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.Label(), err)
	}
	c := index.Change{Add: []index.Addition{{Version: r.Version, Tree: in.tree}}}
	if old != nil {
		r.Existed, r.New = true, 0
		r.Proved = provenance.Proved(&r.Version) && !provenance.Proved(old)
		h1, proof := r.Version.H1, r.Version.Provenance
		r.Version = *old
		if !r.Proved {
			r.Elapsed = time.Since(start)
			return r, nil
		}
		r.Version.H1, r.Version.Provenance = h1, proof
		c = index.Change{Describe: []index.Version{r.Version}}
	}
	packs, err := in.publish(ctx, lock, &r.Version, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.Label(), err)
	}
	for _, p := range packs {
		r.Stored += p.Size
	}
	r.Elapsed = time.Since(start)
	return r, nil
}

// release takes a whole source in and says which proved release it is.
func (in *intake) release(ctx context.Context, src source.Source, o Options) (*Result, error) {
	if version, platform, known := src.Release(); known {
		in.proof.ask(version, platform)
	}
	if err := in.read(ctx, src); err != nil {
		return nil, err
	}
	r, err := in.result(src, o)
	if err == nil {
		r.Warning, err = in.prove(ctx, &r.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.Label(), err)
	}
	return r, nil
}

// fetched returns the version that came from the very module that src is: a
// module never changes, so it need not be fetched again.
func fetched(snap *index.Snapshot, src source.Source, o Options) *index.Version {
	if _, _, ok := src.Module(); !ok {
		return nil
	}
	release, platform, known := src.Release()
	i := slices.IndexFunc(snap.Versions, func(v index.Version) bool {
		return v.Release == release && v.Platform == platform && v.Source == src.Origin() &&
			v.Name == cmp.Or(o.As, index.VersionName(release, platform))
	})
	if !known || i < 0 || o.Require && !provenance.Proved(&snap.Versions[i]) {
		return nil
	}
	return &snap.Versions[i]
}

// existing returns the version of the same name when it has the same tree.
func existing(snap *index.Snapshot, v *index.Version) (*index.Version, error) {
	i := slices.IndexFunc(snap.Versions, func(old index.Version) bool { return old.Name == v.Name })
	if i < 0 {
		return nil, nil
	}
	old := &snap.Versions[i]
	if old.Tree != v.Tree {
		return nil, fmt.Errorf("version %s %w (gofs rm %s, or import it --as another name)", v.Name, index.ErrExists, v.Name)
	}
	return old, nil
}

// result describes what was read.
func (in *intake) result(src source.Source, o Options) (*Result, error) {
	v, err := in.identify(src, o.As)
	if err != nil {
		return nil, err
	}
	if err := index.CheckName(v.Name); err != nil {
		return nil, err
	}
	if in.encoded, err = index.EncodeTree(in.items); err != nil {
		return nil, err
	}
	if in.tree, err = index.DecodeTree(in.encoded); err != nil {
		return nil, err
	}
	v.Tree = blobstore.Sum(in.encoded)
	v.Folders = len(in.tree.Folders)
	v.Files = len(in.tree.Entries) - v.Folders + 1
	for _, it := range in.items {
		v.Bytes += it.Size
	}
	v.New = in.newBytes
	return &Result{Version: v, Bytes: v.Bytes, New: v.New}, nil
}

// identify says which release was read, by its own files; what the source's
// name claims only fills in and is checked.
func (in *intake) identify(src source.Source, as string) (index.Version, error) {
	v := index.Version{Name: as, Source: src.Origin(), Imported: time.Now().UTC().Truncate(time.Second)}
	release, err := source.ParseVersion(in.version)
	switch {
	case in.version == nil:
		return v, fmt.Errorf("has no VERSION file: %w", source.ErrNotRelease)
	case err != nil && as == "":
		return v, err
	case err == nil:
		v.Release = release
	default:
		v.Release = as
	}
	if !in.goCommand {
		return v, fmt.Errorf("has no bin/go: %w", source.ErrNotRelease)
	}
	claimed, platform, known := src.Release()
	switch {
	case len(in.platforms) == 1:
		v.Platform = in.platforms[0]
	case known && (len(in.platforms) == 0 || slices.Contains(in.platforms, platform)):
		v.Platform = platform
	case slices.Contains(in.platforms, index.HostPlatform()):
		v.Platform = index.HostPlatform()
	default:
		return v, fmt.Errorf("has no pkg/tool folder that says its platform: %w", source.ErrNotRelease)
	}
	if known && err == nil && (claimed != release || platform != v.Platform) {
		return v, fmt.Errorf("is go%s for %s and not go%s for %s: %w", release, v.Platform, claimed, platform, source.ErrNotRelease)
	}
	if v.Name == "" {
		v.Name = index.VersionName(v.Release, v.Platform)
	}
	v.Time = in.versionTime.Unix()
	if t, ok := source.VersionTime(in.version); ok {
		v.Time = t.Unix()
	}
	return v, nil
}

// publish stores the tree and the description of a version and commits.
func (in *intake) publish(ctx context.Context, lock *index.Writer, v *index.Version, c index.Change) (_ []blobstore.Pack, err error) {
	if !in.view.Has(v.Tree) {
		g := blobstore.Group{Kind: blobstore.Tree, Blobs: []blobstore.Blob{{ID: v.Tree, Data: in.encoded}}}
		in.addBase(ctx, &g, v)
		if err := in.w.Add(ctx, g); err != nil {
			return nil, err
		}
	}
	record, err := index.VersionRecord(v)
	if err != nil {
		return nil, err
	}
	g := blobstore.Group{Kind: blobstore.Version, Blobs: []blobstore.Blob{{ID: blobstore.Sum(record), Data: record}}}
	if err := in.w.Add(ctx, g); err != nil {
		return nil, err
	}
	if c.Packs, err = in.w.Finish(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		// Interrupted after the packs got their names: they are garbage.
		return nil, errors.Join(context.Cause(ctx), lock.Discard(c.Packs))
	}
	if err := lock.Commit(c); err != nil {
		return nil, errors.Join(err, lock.Discard(c.Packs))
	}
	return c.Packs, nil
}

// addBase names the tree of the nearest release as base for a new one: the
// trees of two patch releases share most names and blobs, and stored so the
// second takes a tenth.
func (in *intake) addBase(ctx context.Context, g *blobstore.Group, v *index.Version) {
	var base *index.Version
	for i := range in.snap.Versions {
		old := &in.snap.Versions[i]
		if base == nil || old.Platform == v.Platform && index.CompareNames(old.Release, v.Release) <= 0 {
			base = old
		}
	}
	if base == nil {
		return
	}
	plain, err := in.view.Blob(ctx, base.Tree)
	if err != nil {
		return // a damaged base is for verify to report; this tree does without
	}
	if g.Depth, err = in.view.Depth(ctx, base.Tree); err == nil {
		g.Bases = []blobstore.Blob{{ID: base.Tree, Data: plain}}
	}
}

var platformForm = regexp.MustCompile(`^[a-z0-9]+-[a-z0-9]+$`)

// note remembers what identifies the release in an entry's path.
func (in *intake) note(e *source.Entry) {
	switch e.Path {
	case "bin/go", "bin/go.exe":
		in.goCommand = e.Kind == source.File
	case "VERSION":
		in.versionTime = e.ModTime
	}
	if rest, ok := strings.CutPrefix(e.Path, "pkg/tool/"); ok {
		dir, base := path.Split(rest)
		goos, goarch, ok := strings.Cut(strings.TrimSuffix(dir, "/"), "_")
		platform := goos + "-" + goarch
		if ok && strings.TrimSuffix(base, ".exe") == "compile" && platformForm.MatchString(platform) && !slices.Contains(in.platforms, platform) {
			in.platforms = append(in.platforms, platform)
		}
	}
}

func workers() int { return runtime.GOMAXPROCS(0) }
