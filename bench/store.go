package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// measureMount measures the command gofs mount until ls answers, on the store
// of all releases.
func (b *bench) measureMount(ctx context.Context) error {
	for range b.rounds {
		if err := b.mountOnce(ctx, "mount", b.store, len(b.releases)); err != nil {
			return err
		}
	}
	return nil
}

// mountOnce mounts a store as a user does, lists it, and adds the figures
// "NAME to ls" and "NAME rss".
func (b *bench) mountOnce(ctx context.Context, name, store string, versions int) error {
	dir := b.path("m", "once")
	start := time.Now()
	if err := b.run(ctx, b.gofs, "--store", store, "-q", "mount", "--log", "/dev/null", dir); err != nil {
		return err
	}
	names, err := os.ReadDir(dir)
	elapsed := time.Since(start)
	if err != nil {
		return err
	}
	if len(names) < versions {
		return fmt.Errorf("mount of %d versions lists %d names", versions, len(names))
	}
	b.results.figure(name+" to ls", "s", elapsed.Seconds())
	rss, err := servingMemory(dir)
	if err != nil {
		return err
	}
	b.results.figure(name+" rss", "B", float64(rss))
	return b.run(ctx, b.gofs, "umount", dir)
}

// servingMemory is what the background processes of a mount take: the one
// that serves and its supervisor, found by their last argument.
func servingMemory(dir string) (rss int64, err error) {
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, name := range cmdlines {
		data, _ := os.ReadFile(name) // it may have ended
		if n := len(data) - len(dir) - 1; n > 0 && string(data[n:]) == dir+"\x00" {
			var pid int
			if _, err := fmt.Sscanf(name, "/proc/%d/", &pid); err == nil {
				n, _, err := memory(pid)
				if err != nil {
					return 0, err
				}
				rss += n
			}
		}
	}
	if rss == 0 {
		return 0, fmt.Errorf("nobody serves %s", dir)
	}
	return rss, nil
}

// importPair are a release and its neighbour, the second imported after the
// first.
var importPair = [2]string{"1.23.3", "1.23.12"}

// measureImport times imports beside tar -xzf of the same file on the same
// file system.
func (b *bench) measureImport(ctx context.Context) error {
	for _, r := range importPair {
		if b.tarballs[r] == "" {
			b.results.note(fmt.Sprintf("imports were not timed: %s is not one of the releases", r))
			return nil
		}
	}
	type step struct {
		name string
		cmd  func() *exec.Cmd
	}
	store, tree := b.path("import"), b.path("untar")
	var steps []step
	for i, r := range importPair {
		which := []string{"first import", "second import"}[i]
		steps = append(steps,
			step{which + ", tar", func() *exec.Cmd { return exec.CommandContext(ctx, "tar", "-xzf", b.tarballs[r], "-C", tree) }},
			step{which + ", gofs", func() *exec.Cmd {
				return exec.CommandContext(ctx, b.gofs, "--store", store, "-q", "import", "--verify=off", b.tarballs[r])
			}})
	}
	defer os.RemoveAll(store)
	defer os.RemoveAll(tree)
	for range b.coldRounds {
		if err := os.RemoveAll(store); err != nil {
			return err
		}
		for _, s := range steps {
			if err := os.RemoveAll(tree); err != nil {
				return err
			}
			if err := os.Mkdir(tree, 0o755); err != nil {
				return err
			}
			if err := exec.CommandContext(ctx, "sync").Run(); err != nil { // nobody pays for another's writes
				return err
			}
			cmd := s.cmd()
			start := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", s.name, err, firstLine(string(out)))
			}
			b.results.figure(s.name, "s", time.Since(start).Seconds())
			b.results.figure(s.name+", cpu", "s", (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
		}
	}
	return nil
}

// measureVariants mounts a store of many versions: the release with another
// VERSION each.
func (b *bench) measureVariants(ctx context.Context) error {
	dir, store := b.path("m", "variant"), b.path("variants")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := b.run(ctx, "mount", "-t", "tmpfs", "tmpfs", dir); err != nil {
		return err
	}
	defer unmount(dir)
	defer os.RemoveAll(store)
	if err := b.run(ctx, "cp", "-a", filepath.Join(b.tree(), b.release), dir); err != nil {
		return err
	}
	root := filepath.Join(dir, b.release)
	for i := range b.variants {
		version := fmt.Sprintf("go%s\ntime 2024-01-01T00:00:%02dZ\nvariant %d\n", b.release, i%60, i)
		if err := os.WriteFile(filepath.Join(root, "VERSION"), []byte(version), 0o644); err != nil {
			return err
		}
		if err := b.run(ctx, b.gofs, "--store", store, "-q", "import", "--verify=off", "--as", fmt.Sprintf("%s-v%d", b.release, i), root); err != nil {
			return err
		}
	}
	size, err := diskUse(store)
	if err != nil {
		return err
	}
	b.results.figure("variants", "", float64(b.variants))
	b.results.figure("variants store", "B", float64(size))
	for range b.rounds {
		if err := b.mountOnce(ctx, "variants mount", store, b.variants); err != nil {
			return err
		}
	}
	return nil
}

// diskUse adds up the sizes of a folder's files.
func diskUse(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			total += fi.Size()
		}
		return err
	})
	return total, err
}

// storeStats are what gofs stats says of the store.
func (b *bench) storeStats() (json.RawMessage, error) {
	out, err := exec.Command(b.gofs, "--store", b.store, "stats", "--json").Output()
	return json.RawMessage(slices.Clone(out)), err
}
