package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"gofs/blobstore"
	"gofs/index"
	"gofs/internal/hostile"
)

// maxPeak is the memory that the program may have at most, whatever it is
// given, in KiB.
const maxPeak = 256 << 10

// warden runs the program, which may not panic, hang, take much memory or say
// more than a line of why it failed.
type warden struct {
	t          *testing.T
	gofs, peak string
	dir        string
	*tally
}

// tally is of all runs of a test.
type tally struct {
	sync.Mutex
	runs    int
	highest int64 // in KiB
	of      string
}

func newWarden(t *testing.T) *warden {
	t.Helper()
	w := &warden{t: t, gofs: gofsBinary(t), dir: t.TempDir(), tally: new(tally)}
	w.peak = filepath.Join(w.dir, "peak")
	cmd := exec.Command(filepath.Join(hostGoroot(), "bin", "go"), "build", "-o", w.peak, "./testdata/peak")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { t.Logf("%d runs, %d MiB at most (%s)", w.runs, w.highest>>10, w.of) })
	return w
}

// parallel runs the program for a case of w's test beside the others, in a folder of
// its own.
func (w *warden) parallel(name string, run func(w *warden)) {
	w.t.Run(name, func(t *testing.T) {
		t.Parallel()
		own := *w
		own.t, own.dir = t, t.TempDir()
		run(&own)
	})
}

// command is the program on a store; its memory is noted in a file.
func (w *warden) command(ctx context.Context, store string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.peak, append([]string{filepath.Join(w.dir, "kib"), w.gofs, "--store", store}, args...)...)
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOENV=off", "GOFS_STORE=", "HOME="+w.dir,
		"XDG_STATE_HOME="+filepath.Join(w.dir, "state"), "XDG_CACHE_HOME="+filepath.Join(w.dir, "cache"))
	cmd.WaitDelay = time.Second
	return cmd
}

const patience = time.Minute

// run runs the program and returns what it said and whether that was success.
func (w *warden) run(what, store string, stdin []byte, args ...string) (out string, ok bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := w.command(ctx, store, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		w.t.Errorf("%s: %s: not done in %v", what, args[0], patience)
		return "", false
	}
	w.judge(what+": "+args[0], err, stderr.String())
	all := stdout.String() + stderr.String()
	if i := strings.IndexFunc(all, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }); i >= 0 {
		w.t.Errorf("%s: %s: control characters in %q", what, args[0], all)
	}
	return all, err == nil
}

// judge looks at how a run ended.
func (w *warden) judge(what string, err error, stderr string) {
	w.t.Helper()
	b, rerr := os.ReadFile(filepath.Join(w.dir, "kib"))
	var kib int64
	if _, serr := fmt.Sscan(string(b), &kib); rerr != nil || serr != nil {
		w.t.Errorf("%s: its memory is not known: %v", what, errors.Join(rerr, serr))
	}
	w.Lock()
	if w.runs++; kib > w.highest {
		w.highest, w.of = kib, what
	}
	w.Unlock()
	if kib > maxPeak {
		w.t.Errorf("%s: took %d MiB", what, kib>>10)
	}
	if bad := regexp.MustCompile(`panic|goroutine|runtime error|fatal error|SIG[A-Z]+`).FindString(stderr); bad != "" {
		w.t.Errorf("%s: %q in\n%s", what, bad, stderr)
	}
	lines := 0
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "gofs: ") {
			lines++
		}
	}
	var exit *exec.ExitError
	switch {
	case err == nil && (lines == 0 || strings.Contains(stderr, ": no store")): // which ls only mentions
	case errors.As(err, &exit) && exit.ExitCode() == exitFailed && lines == 1:
	default:
		w.t.Errorf("%s: %v, with %d lines of errors:\n%s", what, err, lines, stderr)
	}
}

// TestHostileArchives imports every archive of the corpus.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	list, err := hostile.Archives()
	if err != nil {
		t.Fatal(err)
	}
	w := newWarden(t)
	store := filepath.Join(t.TempDir(), "store")
	var taken []string
	for i, c := range list {
		if testing.Short() && strings.HasPrefix(c.Name, "large-") {
			continue
		}
		file := filepath.Join(w.dir, c.Name)
		if err := os.WriteFile(file, c.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		ways := []string{file}
		if strings.HasSuffix(c.Name, ".zip") && (!testing.Short() || i%8 == 0) {
			ways = append(ways, "-") // is kept in a file on its way
		}
		for _, src := range ways {
			var stdin []byte
			if src == "-" {
				stdin = c.Bytes()
			}
			as := fmt.Sprintf("v%d", i)
			args := append([]string{"import", "-q", "--verify=off", src}, c.Flags...)
			if c.Want == "" {
				args = append(args, "--as="+as)
			}
			out, ok := w.run(c.Name, store, stdin, args...)
			switch {
			case ok != (c.Want == ""):
				t.Errorf("%s: taken: %v, says\n%s", c.Name, ok, out)
			case !ok && !regexp.MustCompile(c.Want).MatchString(out):
				t.Errorf("%s: says\n%s\nand not %q", c.Name, out, c.Want)
			case ok && src == file:
				taken = append(taken, as)
			}
		}
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
	s, err := index.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	versions, err := s.Versions()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range versions {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	slices.Sort(taken)
	if !slices.Equal(names, taken) {
		t.Errorf("the store has %v and not %v", names, taken)
	}
	if out, ok := w.run("what was taken", store, nil, "verify"); !ok {
		t.Error(out)
	}
	if out, _ := w.run("what was taken", store, nil, "gc", "-n"); !strings.Contains(out, "0 of garbage") {
		t.Error(out)
	}
	w.mount("what was taken", store)
}

// TestHostileStores gives every store of the corpus to the verbs, and reads
// all of it through a mount.
func TestHostileStores(t *testing.T) {
	t.Parallel()
	list, err := hostile.Stores()
	if err != nil {
		t.Fatal(err)
	}
	w := newWarden(t)
	good := releaseTar(t, w.dir)
	for i, c := range list {
		if testing.Short() && strings.HasPrefix(c.Name, "large-") {
			continue
		}
		w.parallel(c.Name, func(w *warden) { w.everyVerb(i, &c, good) })
	}
}

// everyVerb gives store i of the corpus to the verbs.
func (w *warden) everyVerb(i int, c *hostile.Case, good string) {
	fresh := func() string {
		dir := filepath.Join(w.dir, "store")
		if err := errors.Join(os.RemoveAll(dir), c.Unpack(dir)); err != nil {
			w.t.Fatal(err)
		}
		return dir
	}
	out, ok := w.run(c.Name, fresh(), nil, "verify")
	if ok != (c.Want == "") || !ok && !regexp.MustCompile(c.Want).MatchString(out) {
		w.t.Errorf("%s: sound: %v, says\n%s\nand not %q", c.Name, ok, out, c.Want)
	}
	verbs := [][]string{{"ls", "-l"}, {"stats"}, {"gc"}, {"compact"}, {"import", "-q", "--verify=off", "--as=good", good}, {"export", "1.22.8", "-o", filepath.Join(w.dir, "out.tar")}, {"mount"}}
	for j, args := range verbs {
		// CI has one verb for every other store, in turn, and the one that a store is named after.
		if testing.Short() && (i%2 != 0 || i/2%len(verbs) != j) && !strings.HasPrefix(c.Name, args[0]+"-") {
			continue
		}
		store := fresh()
		if args[0] == "mount" {
			w.mount(c.Name, store)
			continue
		}
		w.run(c.Name, store, nil, args...)
	}
}

// mount mounts a store and reads all of it. What can be read is what the trees
// say; what cannot is an I/O error.
func (w *warden) mount(what, store string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	dir := filepath.Join(w.dir, "mnt")
	cmd := w.command(ctx, store, "mount", "-f", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	if line, _ := out.ReadString('\n'); strings.HasPrefix(line, "mounted ") {
		w.read(what, store, dir)
		if err := w.unmount(dir); err != nil {
			w.t.Errorf("%s: %v", what, err)
			_ = unmount(dir, true)
		}
	}
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	if ctx.Err() != nil {
		w.t.Errorf("%s: mount: not done in %v", what, patience)
	}
	w.judge(what+": mount", err, stderr.String())
}

// unmount tries again where the kernel has not closed what was read yet.
func (w *warden) unmount(dir string) (err error) {
	for range 100 {
		if err = unix.Unmount(dir, 0); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (w *warden) read(what, store, dir string) {
	w.t.Helper()
	want := contents(w.t, store)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, syscall.EIO):
			return nil
		case err != nil:
			return err
		case d.Type().IsRegular():
			sum, err := hashFile(path)
			rel, _ := filepath.Rel(dir, path)
			if err != nil && !errors.Is(err, syscall.EIO) {
				return err
			}
			if id, ok := want[rel]; err == nil && ok && sum != id {
				w.t.Errorf("%s: %s has other bytes", what, rel)
			}
		case d.Type()&fs.ModeSymlink != 0:
			if _, err := os.Readlink(path); err != nil && !errors.Is(err, syscall.EIO) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Errorf("%s: %v", what, err)
	}
}

func hashFile(name string) (id blobstore.ID, err error) {
	f, err := os.Open(name)
	if err != nil {
		return id, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return blobstore.ID(h.Sum(nil)), err
}

// contents are the hashes of the files that are one blob, by their path in a
// mount, as far as the store tells.
func contents(t testing.TB, store string) map[string]blobstore.ID {
	want := map[string]blobstore.ID{}
	s, err := index.Open(store)
	if err != nil {
		return want
	}
	snap, view, err := s.OpenView(blobstore.NewCache(0))
	if err != nil {
		return want
	}
	defer view.Close()
	for i := range snap.Versions {
		tree, err := snap.Tree(t.Context(), view, &snap.Versions[i])
		if err != nil {
			continue
		}
		_ = tree.Walk(func(path string, e *index.Entry) error {
			if refs := tree.Blobs(e); e.Kind == index.File && len(refs) == 1 {
				want[filepath.Join(snap.Versions[i].Name, path)] = refs[0].ID
			}
			return nil
		})
	}
	return want
}

// TestStoreLinks has somebody put links, pipes and folders where the files of
// a store belong. Nothing is read or written through them, and nothing waits.
func TestStoreLinks(t *testing.T) {
	t.Parallel()
	w := newWarden(t)
	release, sound := releaseTar(t, w.dir), filepath.Join(w.dir, "sound")
	unpackStore(t, "record-sum.zip", sound) // damaged, so that verify has something to note
	for _, name := range []string{"format", "generation", "index.db", "lock", "damage", "generation.new", "index.db.new", "packs", "pack"} {
		for kind, put := range map[string]func(path, keep string) error{
			"link":   func(path, keep string) error { return os.Symlink(keep, path) },
			"pipe":   func(path, _ string) error { return unix.Mkfifo(path, 0o666) },
			"folder": func(path, _ string) error { return os.Mkdir(path, 0o755) },
		} {
			if name == "packs" && kind == "folder" {
				continue
			}
			what := fmt.Sprintf("%s as %s", name, kind)
			w.parallel(what, func(w *warden) { w.replaced(what, name, sound, release, put) })
		}
	}
}

// replaced gives the store to the verbs after put has put something else where
// the file name was, which lies outside of the store now.
func (w *warden) replaced(what, name, sound, release string, put func(path, keep string) error) {
	store, outside := filepath.Join(w.dir, "store"), filepath.Join(w.dir, "outside")
	if err := errors.Join(os.Mkdir(outside, 0o755), os.CopyFS(store, os.DirFS(sound))); err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(store, name)
	if name == "pack" {
		packs, err := filepath.Glob(filepath.Join(store, "packs", "*"))
		if err != nil || len(packs) != 1 {
			w.t.Fatal(packs, err)
		}
		path = packs[0]
	}
	keep := filepath.Join(outside, "kept")
	if err := os.Rename(path, keep); err != nil {
		if err := os.WriteFile(keep, []byte("kept"), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	if name == "packs" { // what gc would take for garbage
		if err := os.WriteFile(filepath.Join(keep, "new-precious"), nil, 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	before := listTree(w.t, outside)
	if err := put(path, keep); err != nil {
		w.t.Fatal(err)
	}
	for _, args := range [][]string{{"ls"}, {"verify"}, {"import", "-q", "--verify=off", release}, {"rm", "1.22.8"}, {"gc"}} {
		out, ok := w.run(what, store, nil, args...)
		if ok && args[0] == "verify" {
			w.t.Errorf("%s: verify says\n%s", what, out)
		}
	}
	if after := listTree(w.t, outside); fmt.Sprint(after) != fmt.Sprint(before) {
		w.t.Errorf("%s: outside of the store is now\n%v\nand was\n%v", what, after, before)
	}
}

func unpackStore(t *testing.T, name, dir string) {
	t.Helper()
	list, err := hostile.Stores()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(c hostile.Case) bool { return c.Name == name })
	if err := list[i].Unpack(dir); err != nil {
		t.Fatal(err)
	}
}

// releaseTar is an archive that is taken.
func releaseTar(t *testing.T, dir string) string {
	t.Helper()
	list, err := hostile.Archives()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(c hostile.Case) bool { return c.Name == "name-case.tar.gz" })
	file := filepath.Join(dir, "release.tar.gz")
	if err := os.WriteFile(file, list[i].Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
