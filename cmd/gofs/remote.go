package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"gofs/importer/source"
	"gofs/index"
	"gofs/resolve"
)

// remoteReleases lists what can be imported for this machine. Only Version
// and Platform of a release are used.
var remoteReleases = func(ctx context.Context, g *globals) ([]resolve.Release, error) {
	remote, err := source.List(ctx, source.Options{})
	if err != nil {
		return nil, err
	}
	var list []resolve.Release
	for _, r := range remote {
		list = append(list, resolve.Release{Name: index.VersionName(r.Version, r.Platform), Version: r.Version, Platform: r.Platform})
	}
	return list, nil
}

// removeReleases takes releases out of the store, by their names.
var removeReleases = func(ctx context.Context, g *globals, names []string) error {
	s, err := g.openStore()
	if err != nil {
		return err
	}
	w, err := s.Lock(ctx, index.LockOptions{Verb: "prune"})
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Commit(index.Change{Remove: names}); err != nil {
		return err
	}
	showChange(ctx, s.Dir())
	return nil
}

// importTimes takes the times of the imports from the store, where it can be
// read; a mount only shows when a release was made.
func importTimes(g *globals, list []resolve.Release) {
	s, err := g.openStore()
	if err != nil {
		return
	}
	versions, err := s.Versions()
	if err != nil {
		return
	}
	for i := range list {
		if v, ok := index.Resolve(versions, list[i].Name); ok {
			list[i].Imported = v.Imported
		}
	}
}

// present lists the releases of the mount or, where nothing is mounted yet,
// those of the store: for verbs that run none of them.
func (c *chooser) present() (resolve.Installed, error) {
	in, err := listInstalled(c.g, c.mount)
	if !errors.Is(err, resolve.ErrNoMount) && !errors.Is(err, fs.ErrNotExist) {
		return in, err
	}
	s, err := c.g.openStore()
	if errors.Is(err, index.ErrNoStore) {
		return resolve.Installed{}, nil
	}
	if err != nil {
		return resolve.Installed{}, err
	}
	versions, err := s.Versions()
	if err != nil {
		return resolve.Installed{}, err
	}
	in = resolve.Installed{}
	for _, v := range versions {
		in.Releases = append(in.Releases, resolve.Release{Name: v.Name, Version: v.Release, Platform: v.Platform, Imported: v.Imported})
	}
	return in, nil
}

// neededRelease returns what has to be imported for the working directory, ""
// when the rules pick a release that is here.
func neededRelease(g *globals, mount string) (string, error) {
	in, err := (&chooser{g: g, mount: mount}).present()
	if err != nil {
		return "", err
	}
	r, err := resolve.Here(in)
	if err != nil {
		return "", err
	}
	_, err = r.Resolve()
	var missing *resolve.NotImportedError
	if errors.As(err, &missing) {
		return missing.Import, nil
	}
	return "", err
}

// supported returns the minors that the Go team supports, the newest two,
// given the releases there are. Prereleases do not count.
func supported(releases []resolve.Release) []string {
	var minors []string
	for _, r := range releases {
		if m := resolve.Minor(r.Version); !resolve.Prerelease(r.Version) && !slices.Contains(minors, m) {
			minors = append(minors, m)
		}
	}
	slices.SortFunc(minors, func(a, b string) int { return resolve.Compare(b, a) })
	return minors[:min(2, len(minors))]
}

// newestPatches maps each minor to its newest patch, prereleases left out.
func newestPatches(releases []resolve.Release) map[string]string {
	newest := map[string]string{}
	for _, r := range releases {
		if resolve.Prerelease(r.Version) || r.Platform != resolve.HostPlatform {
			continue
		}
		if m := resolve.Minor(r.Version); newest[m] == "" || resolve.Compare(r.Version, newest[m]) > 0 {
			newest[m] = r.Version
		}
	}
	return newest
}

// now is the clock of verbs that look at ages.
var now = time.Now
