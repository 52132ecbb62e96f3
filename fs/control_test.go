package fs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func socketOf(s *Server) string { return s.control.name }

func ask(t testing.TB, s *Server) *Asker {
	t.Helper()
	a, err := Ask(t.Context(), socketOf(s), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestSocket(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	run := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	// A killed mount leaves its socket.
	stale := filepath.Join(run, "0123"+socketSuffix)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Ask(t.Context(), stale, 0); !errors.Is(err, ErrNoSocket) || !strings.Contains(err.Error(), "process is gone") {
		t.Errorf("stale: %v", err)
	}
	if _, err := Ask(t.Context(), filepath.Join(run, "none"), 0); !errors.Is(err, ErrNoSocket) {
		t.Errorf("none: %v", err)
	}

	s, mnt := mountWith(t, store, Options{RunDir: run})
	socket := socketOf(s)
	if exists(stale) {
		t.Error("the stale socket is left")
	}
	if st, err := os.Lstat(socket); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", st, err)
	}
	names(t, mnt)
	st, err := ask(t, s).Stats(t.Context())
	if err != nil || st.Versions != 1 || st.Requests["opendir"] != 1 || st.IO.Mode != "cache" || st.Hot != nil {
		t.Errorf("%+v, %v", st, err)
	}

	// What was committed is there once a reload was asked for.
	add(t, store, "1.23.3", sample())
	if err := ask(t, s).Reload(t.Context()); err != nil || !exists(filepath.Join(mnt, "1.23.3")) {
		t.Errorf("reload: %v", err)
	}

	// Another mount of the same folder of sockets leaves it alone.
	other, _ := mountWith(t, store, Options{RunDir: run})
	if socketOf(other) == socket {
		t.Error("one socket for two mounts")
	}
	if _, err := ask(t, s).Stats(t.Context()); err != nil {
		t.Error(err)
	}

	for name, q := range map[string]string{
		"no JSON": "x\n", "no question": "{}\n", "warm what": `{"do":"warm"}` + "\n",
		"no such version": `{"do":"warm","warm":{"versions":["1.9"]}}` + "\n",
	} {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, q)
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		if !strings.Contains(string(b[:n]), `"error":`) {
			t.Errorf("%s: %s", name, b[:n])
		}
		c.Close()
	}

	ended, err := ask(t, s).Wait(t.Context())
	if err != nil || ended(time.Millisecond) {
		t.Errorf("ended before it did, %v", err)
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	if exists(socket) {
		t.Error("the socket outlives the mount")
	}
	if !ended(time.Minute) {
		t.Error("the end is not seen")
	}

	// The next mount on the folder has come before this one has ended.
	socket = socketOf(other)
	if err := errors.Join(os.Remove(socket), os.WriteFile(socket, nil, 0o600), other.Unmount()); err != nil {
		t.Fatal(err)
	}
	if !exists(socket) {
		t.Error("another's socket is removed")
	}
}

// TestSocketStrangers lets nobody but the owner and root ask.
func TestSocketStrangers(t *testing.T) {
	store := newStore(t)
	base, err := os.MkdirTemp("", "gofs-run-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	run := filepath.Join(base, "run")
	s, _ := mountWith(t, store, Options{RunDir: run})
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := socketOf(s)
	child(t, "stranger", []string{"GOFS_TEST_SOCKET=" + socket}, asNobody...)
	if got := s.Stats().Refused; got != 0 {
		t.Errorf("%d came through", got)
	}
	if err := errors.Join(os.Chmod(run, 0o755), os.Chmod(socket, 0o666)); err != nil {
		t.Fatal(err)
	}
	child(t, "stranger", []string{"GOFS_TEST_SOCKET=" + socket, "GOFS_TEST_OPEN=1"}, asNobody...)
	if got := s.Stats().Refused; got != 1 {
		t.Errorf("%d refused", got)
	}
	// A folder that others can write to is not trusted, nor one of others.
	if _, err := Ask(t.Context(), socket, 0); !errors.Is(err, ErrNoSocket) {
		t.Error(err)
	}
	var log logBuffer
	open := filepath.Join(base, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chown(open, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	m, mnt := mountWith(t, store, Options{RunDir: open, Log: log.logger()})
	names(t, mnt)
	if m.control != nil || !strings.Contains(log.String(), "no socket") {
		t.Errorf("%s", log.String())
	}
}

// warmed asks for w and returns what is to be read, sorted.
func warmed(t *testing.T, s *Server, w Warm) (Warming, []string) {
	t.Helper()
	a := ask(t, s)
	defer a.Close()
	var begun, loaded int64
	r, err := a.Warm(t.Context(), w, func(n int64) { begun = n }, func(n int64) { loaded += n })
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range r.Read {
		paths = append(paths, f.Path)
		loaded += f.Size
	}
	if begun != r.Bytes || loaded != r.Bytes {
		t.Errorf("%d bytes, then %d, then %d", begun, r.Bytes, loaded)
	}
	slices.Sort(paths)
	return r, paths
}

func TestWarm(t *testing.T) {
	store, want := newStore(t), sample()
	add(t, store, "1.22.8", want)
	add(t, store, "1.22.12", files{"VERSION": {data: "go1.22.12\n", mode: 0o644}, "same": want["src/fmt/scan.go"]})
	base := t.TempDir()
	o := Options{RunDir: filepath.Join(base, "run"), Notes: filepath.Join(base, "cache", "notes")}
	s, mnt := mountWith(t, store, o)
	if r, _ := warmed(t, s, Warm{}); r.Files != 0 {
		t.Errorf("nothing was read: %+v", r)
	}
	all := []string{"1.22.8/VERSION", "1.22.8/bin/go", "1.22.8/src/fmt/print.go", "1.22.8/src/fmt/scan.go",
		"1.22.8/src/run.bash", "1.22.8/src/strings/a.go", "1.22.8/src/strings/b.go"}
	// Equal content is loaded once, the empty file and links not at all.
	if _, got := warmed(t, s, Warm{All: true, Versions: []string{"1.22.8"}}); !slices.Equal(got, all) {
		t.Errorf("%q", got)
	}
	if _, got := warmed(t, s, Warm{All: true}); len(got) != len(all)+1 {
		t.Errorf("%q", got)
	}
	r, got := warmed(t, s, Warm{Versions: []string{"1.22.8"}, Paths: []string{"src/fmt", "VERSION", "nothing", "VERSION/x", "bin/go/"}})
	if want := []string{"1.22.8/VERSION", "1.22.8/bin/go", "1.22.8/src/fmt/print.go", "1.22.8/src/fmt/scan.go"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if want := []string{"1.22.8/nothing", "1.22.8/VERSION/x"}; !slices.Equal(r.Missing, want) {
		t.Errorf("missing %q", r.Missing)
	}
	if _, got := warmed(t, s, Warm{Versions: []string{"latest"}, Paths: []string{"."}}); !slices.Equal(got, []string{"1.22.12/VERSION", "1.22.12/same"}) {
		t.Errorf("%q", got)
	}
	a := ask(t, s)
	if _, err := a.Warm(t.Context(), Warm{Versions: []string{"1.9"}}, nil, nil); err == nil || !strings.Contains(err.Error(), "1.9: no such version") {
		t.Error(err)
	}

	// What is read while warming for its own sake is not noted.
	a = ask(t, s)
	nothing := func(int64) {}
	if _, err := a.Warm(t.Context(), Warm{All: true}, nothing, nothing); err != nil {
		t.Fatal(err)
	}
	readOne(t, mnt, want, "src/strings/a.go")
	a.Close()
	eventually(t, "the warming has ended", func() bool {
		n := s.inodes.get(lookupNode(t, s, "src/strings/b.go"))
		return n.flags.Load()&flagQuiet == 0
	})
	if r, _ := warmed(t, s, Warm{}); r.Files != 0 {
		t.Errorf("noted: %+v", r)
	}

	// What a user reads is, for this mount and the next.
	readOne(t, mnt, want, "src/fmt/scan.go")
	readOne(t, mnt, want, "bin/go")
	set := []string{"1.22.8/bin/go", "1.22.8/src/fmt/scan.go"}
	if _, got := warmed(t, s, Warm{Versions: []string{"1.22.8"}}); !slices.Equal(got, set) {
		t.Errorf("%q", got)
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(o.Notes); err != nil || st.Mode() != 0o600 || st.Size() != notesHead+3*noteSize+4 { // and the release
		t.Errorf("%v, %v", st, err)
	}
	s, _ = mountWith(t, store, o)
	if _, got := warmed(t, s, Warm{Versions: []string{"1.22.8"}}); !slices.Equal(got, set) {
		t.Errorf("the next mount: %q", got)
	}
	if _, got := warmed(t, s, Warm{Versions: []string{"1.22.12"}}); !slices.Equal(got, []string{"1.22.12/same"}) {
		t.Errorf("%q", got)
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}

	// Notes that are damaged count for nothing and are written anew.
	flipBit(t, o.Notes, 20)
	var log logBuffer
	o.Log = log.logger()
	s, mnt = mountWith(t, store, o)
	if r, _ := warmed(t, s, Warm{}); r.Files != 0 || !strings.Contains(log.String(), errNotes.Error()) {
		t.Errorf("%+v: %s", r, log.String())
	}
	readOne(t, mnt, want, "VERSION")
	if err := s.saveNotes(); err != nil {
		t.Fatal(err)
	}
	if n, err := readNotes(o.Notes); err != nil || len(n) != 2 {
		t.Errorf("%v, %v", n, err)
	}
}

// lookupNode is the inode number of a file of 1.22.8.
func lookupNode(t testing.TB, s *Server, path string) (node uint64) {
	t.Helper()
	r := s.now.Load().named("1.22.8")
	g, err := s.load(r)
	if err != nil {
		t.Fatal(err)
	}
	if !g.under(path, "", func(i int32, _ string) { node = g.inodes[i].number }) {
		t.Fatal(path)
	}
	return node
}

func TestWarmHot(t *testing.T) {
	store, want := newStore(t), programs(5)
	add(t, store, "1.22.8", want)
	for _, through := range []bool{false, true} {
		s, mnt := mountWith(t, store, Options{Hot: &Hot{Size: 3 * programRoom}, Passthrough: through, RunDir: filepath.Join(t.TempDir(), "run")})
		r, got := warmed(t, s, Warm{All: true})
		if r.Hot != 3 || len(got) != 3 { // two that do not fit, and VERSION
			t.Errorf("%+v %q", r, got)
		}
		st := s.Stats()
		if st.Hot.Files != 3 || st.Hot.Evicted != 0 || st.Requests["read"] != 0 {
			t.Errorf("%+v", st.Hot)
		}
		before := s.Stats()
		readOne(t, mnt, want, "bin/p0")
		if st := s.Stats(); st.Cache.Decodes != before.Cache.Decodes {
			t.Errorf("decoded again: %+v", st.Cache)
		}
	}
}

func TestNotes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notes")
	n := notes{1: today(), 1 << 63: today() - notesKept - 1, 3: today() - 5}
	b := n.encode()
	if back, err := decodeNotes(b); err != nil || len(back) != 3 || back[1<<63] != n[1<<63] {
		t.Errorf("%v, %v", back, err)
	}
	for i := range b {
		if _, err := decodeNotes(b[:i]); err == nil {
			t.Errorf("cut at %d", i)
		}
		bad := slices.Clone(b)
		bad[i] ^= 4
		if _, err := decodeNotes(bad); err == nil {
			t.Errorf("bit at %d", i)
		}
	}
	for _, make := range []func() error{
		func() error { return os.Mkdir(name, 0o700) },
		func() error { return unix.Mkfifo(name, 0o600) },
		func() error { return os.Symlink("/etc/passwd", name) },
		func() error { return os.WriteFile(name, nil, 0o600) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := readNotes(name); err == nil {
			t.Error("read what is no file of notes")
		}
		os.Remove(name)
	}
	// What was not read for long is dropped with the next writing.
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	store, want := newStore(t), sample()
	add(t, store, "1.22.8", want)
	s, mnt := mountWith(t, store, Options{Notes: name})
	readOne(t, mnt, want, "VERSION")
	if err := s.saveNotes(); err != nil {
		t.Fatal(err)
	}
	tree := treeKey(s.now.Load().named("1.22.8"))
	if got, err := readNotes(name); err != nil || len(got) != 4 || got[1<<63] != 0 || got[3] != n[3] || got[tree] != today() {
		t.Errorf("%v, %v", got, err)
	}
}

// TestRest gives back what was decoded once nobody asks any more.
func TestRest(t *testing.T) {
	store, want := newStore(t), sample()
	add(t, store, "1.22.8", want)
	s, err := newServer(store, Options{}, past{Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.closeViews()
	if _, err := s.load(s.now.Load().named("1.22.8")); err != nil {
		t.Fatal(err)
	}
	start := s.started
	s.rest(start)
	s.counters.add(opRead)
	s.rest(start.Add(idleAfter)) // it was asked
	if s.Stats().Cache.Bytes == 0 {
		t.Error("dropped while in use")
	}
	s.rest(start.Add(2 * idleAfter))
	if got := s.Stats().Cache.Bytes; got != 0 {
		t.Errorf("%d bytes are held", got)
	}
	check := s.now.Load().named("1.22.8").tree.Load()
	if n := s.inodes.get(check.inodes[len(check.inodes)-1].number); n == nil {
		t.Error("inodes are gone")
	}
}
