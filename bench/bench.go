package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bench is a run: a work folder, the peers and what was measured.
type bench struct {
	options
	work     string // folder, deleted at the end
	goroot   string // every peer is bound to it for its turn
	store    string
	bound    bool
	tarballs map[string]string // by release
	peers    []*peer
	results  *results
	started  time.Time
}

func newBench(ctx context.Context, o options) (*bench, error) {
	// The daemons start in other folders.
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(dir, "gofs-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, work: work, goroot: filepath.Join(work, "goroot"), store: filepath.Join(work, "store"), started: time.Now()}
	for _, dir := range []string{b.goroot, b.path("home"), b.path("cache"), b.path("program"), b.path("fio"), b.path("m")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, errors.Join(err, b.cleanup())
		}
	}
	if err := b.setUp(ctx); err != nil {
		return nil, errors.Join(err, b.cleanup())
	}
	return b, nil
}

// setUp has the program, the releases, the store and the peers ready.
func (b *bench) setUp(ctx context.Context) error {
	if b.gofs == "" {
		b.gofs = b.path("gofs")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", b.gofs, "gofs/cmd/gofs")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build gofs (-gofs names a program): %w\n%s", err, out)
		}
	}
	gofs, err := filepath.Abs(b.gofs)
	if err != nil {
		return err
	}
	b.gofs = gofs
	b.results = newResults(b)
	if err := b.fetch(ctx); err != nil {
		return err
	}
	b.logf("importing %d releases", len(b.releases))
	for _, r := range b.releases {
		if err := b.run(ctx, b.gofs, "--store", b.store, "-q", "import", "--verify=off", b.tarballs[r]); err != nil {
			return err
		}
	}
	if err := b.unpack(ctx, b.release, b.tree()); err != nil {
		return err
	}
	if err := b.writePrograms(); err != nil {
		return err
	}
	b.peers = b.allPeers()
	for _, p := range b.peers {
		if p.Missing != "" {
			b.logf("%s: %s", p.Name, p.Missing)
			continue
		}
		b.logf("preparing %s", p.Name)
		err := p.prepare(ctx)
		if err == nil {
			err = p.fresh(ctx)
		}
		switch {
		case err == nil:
		case p.Name == peerGofs || p.Name == peerDisk || ctx.Err() != nil:
			return err
		default: // the others may fail: a kernel without the file system
			p.Missing = "failed: " + firstLine(err.Error())
			b.logf("%s: %s", p.Name, p.Missing)
		}
	}
	return b.checkPeers(ctx)
}

// tree is the folder with the release as tar unpacked it; images are made
// from it.
func (b *bench) tree() string { return b.path("tree") }

func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.work}, elem...)...)
}

func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(b.log, "%5.0fs %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, args...))
}

// fetch finds the tarballs. What is not in the folder of tarballs is imported
// by name and exported, once, into the user's cache folder.
func (b *bench) fetch(ctx context.Context) error {
	b.tarballs = map[string]string{}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	cache = filepath.Join(cache, "gofs-bench")
	for _, r := range b.releases {
		name := "go" + r + ".linux-amd64.tar.gz"
		for _, dir := range []string{b.toolchains, cache} {
			if fi, err := os.Stat(filepath.Join(dir, name)); err == nil && dir != "" && fi.Mode().IsRegular() {
				b.tarballs[r] = filepath.Join(dir, name)
				break
			}
		}
		if b.tarballs[r] != "" {
			continue
		}
		b.logf("fetching %s", r)
		if err := os.MkdirAll(cache, 0o755); err != nil {
			return err
		}
		store, tmp, out := b.path("fetch"), filepath.Join(cache, "tmp-"+name), filepath.Join(cache, name)
		err := b.run(ctx, b.gofs, "--store", store, "-q", "import", "--verify=off", r+".linux-amd64")
		if err == nil {
			err = b.run(ctx, b.gofs, "--store", store, "-q", "export", r, "-o", tmp)
		}
		if err == nil {
			err = os.Rename(tmp, out)
		}
		os.RemoveAll(store)
		if err != nil {
			return fmt.Errorf("release %s (-toolchains names a folder with %s): %w", r, name, err)
		}
		b.tarballs[r] = out
	}
	return nil
}

// unpack unpacks a release to dir/RELEASE.
func (b *bench) unpack(ctx context.Context, release, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := b.run(ctx, "tar", "-xzf", b.tarballs[release], "-C", dir); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "go"), filepath.Join(dir, release))
}

// run runs a command that is not timed.
func (b *bench) run(ctx context.Context, name string, args ...string) error {
	_, err := b.peak(ctx, name, args...)
	return err
}

// peak runs a command and says how many bytes the largest of its processes had
// in memory at most (ru_maxrss of getrusage(2), which counts those it waited
// for).
func (b *bench) peak(ctx context.Context, name string, args ...string) (int64, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	// A shell's children end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		what := strings.Join(args, " ")
		if len(what) > 100 {
			what = what[:100] + "..."
		}
		return 0, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), what, err, lastLine(string(out)))
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, nil
}

// measure runs the groups.
// A group that fails is noted in the report, and the others still run: they
// take an hour.
func (b *bench) measure(ctx context.Context) error {
	var failed error
	for _, g := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"mount", b.measureMount},
		{"files", func(ctx context.Context) error { return b.measureWorkloads(ctx, fileWorkloads()) }},
		{"go", b.measureGo},
		{"fio", b.measureFio},
		{"memory", b.measureMemory},
		{"import", b.measureImport},
		{"variants", b.measureVariants},
		{"density", b.measureDensity},
	} {
		if !slices.Contains(b.groups, g.name) {
			continue
		}
		b.logf("group %s", g.name)
		if err := g.run(ctx); err != nil {
			err = fmt.Errorf("group %s: %w", g.name, err)
			if ctx.Err() != nil {
				return err
			}
			b.logf("%v", err)
			b.results.note("It failed: " + err.Error() + ".")
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// present are the peers that take part.
func (b *bench) present() []*peer {
	return slices.DeleteFunc(slices.Clone(b.peers), func(p *peer) bool { return p.Missing != "" })
}

// among are the peers that take part and are named; all where none is named.
func (b *bench) among(names []string) []*peer {
	return slices.DeleteFunc(b.present(), func(p *peer) bool { return len(names) > 0 && !slices.Contains(names, p.Name) })
}

func (b *bench) peer(name string) *peer {
	for _, p := range b.peers {
		if p.Name == name && p.Missing == "" {
			return p
		}
	}
	return nil
}

// enter binds a peer's tree to the path that workloads use.
func (b *bench) enter(p *peer) error {
	if err := unix.Mount(p.root(), b.goroot, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", p.root(), err)
	}
	b.bound = true
	return nil
}

func (b *bench) leave() error {
	if !b.bound {
		return nil
	}
	b.bound = false
	return unmount(b.goroot)
}

// unmount retries: the kernel closes the files of a process a moment after it
// is gone. That nothing is mounted is no error.
func unmount(dir string) error {
	var err error
	for range 50 {
		if err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// dropCaches empties the page cache and the caches of names and inodes.
func (b *bench) dropCaches() error {
	if b.keepCaches {
		return nil
	}
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}

// cleanup unmounts and deletes everything. Nothing is deleted while something
// is still mounted below the work folder.
func (b *bench) cleanup() error {
	errs := []error{b.leave()}
	for _, p := range b.peers {
		errs = append(errs, p.stop())
	}
	mounts, err := mountsBelow(b.work)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, m := range slices.Backward(mounts) {
		errs = append(errs, unix.Unmount(m, unix.MNT_DETACH))
	}
	if mounts, err = mountsBelow(b.work); err != nil || len(mounts) > 0 {
		return errors.Join(append(errs, err, fmt.Errorf("%s is left: there are mounts below it", b.work))...)
	}
	return errors.Join(append(errs, os.RemoveAll(b.work))...)
}

func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found, nil
}

// lastLine is where most programs say why they failed.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
