package index

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
	"gofs/blobstore"
)

// TestMain is also the other process of the tests that need one.
func TestMain(m *testing.M) {
	if dir := os.Getenv("GOFS_TEST_CREATE"); dir != "" {
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			os.Exit(3)
		}
		if _, err := Create(context.Background(), dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store")
	if _, err := Open(dir); !errors.Is(err, ErrNoStore) {
		t.Errorf("open before: %v", err)
	}
	s, err := Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Create(t.Context(), dir)
	if err != nil || again.Dir() != s.Dir() {
		t.Errorf("create again: %v", err)
	}
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
	if n, err := s.Generation(); n != 1 || err != nil {
		t.Errorf("generation %d, %v", n, err)
	}
	list, err := s.Versions()
	if err != nil || list != nil {
		t.Errorf("versions %v, %v", list, err)
	}
	check(t, s, nil)
}

// A process that creates may be killed at any point.
func TestCreateAfterCrash(t *testing.T) {
	whole := newStore(t)
	names := []string{formatFile, databaseFile, generationFile, lockFile}
	for _, crashed := range [][]string{{}, {lockFile}, {lockFile, databaseFile + newSuffix}, {lockFile, databaseFile},
		{lockFile, databaseFile, generationFile + newSuffix}, {lockFile, databaseFile, generationFile},
		{lockFile, databaseFile, generationFile, formatFile + newSuffix}} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, packFolder), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range crashed {
			var b []byte // half written
			if slices.Contains(names, name) {
				b, _ = os.ReadFile(filepath.Join(whole.Dir(), name))
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(dir); !errors.Is(err, ErrNoStore) {
			t.Errorf("%v: open: %v", crashed, err)
		}
		s, err := Create(t.Context(), dir)
		if err != nil {
			t.Errorf("%v: %v", crashed, err)
			continue
		}
		put(t, s, "1.22.8", goLike(3, "x"))
		check(t, s, map[string]content{"1.22.8": goLike(3, "x")})
	}
}

func TestForeignFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Create(t.Context(), dir)
	if err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("error %v", err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("the folder has %d entries", len(entries))
	}
	if _, err := Create(t.Context(), filepath.Join(dir, "thesis.txt")); err == nil {
		t.Error("a file became a store")
	}
}

func TestFormatFile(t *testing.T) {
	for text, want := range map[string]error{
		"gofs store 1\n": nil, "gofs store 1": nil, "gofs store 2\n": ErrNewer, "gofs store 99999\n": ErrNewer,
		"gofs store 0\n": ErrNoStore, "gofs store -1\n": ErrNoStore, "gofs store x\n": ErrNoStore, "something else\n": ErrNoStore, strings.Repeat("x", 5000): ErrNoStore,
	} {
		s := newStore(t)
		if err := os.WriteFile(filepath.Join(s.Dir(), formatFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Open(s.Dir())
		if !errors.Is(err, want) {
			t.Errorf("%.20q: %v", text, err)
		}
		if want == ErrNewer {
			if _, err := Create(t.Context(), s.Dir()); !errors.Is(err, ErrNewer) {
				t.Errorf("%.20q: create: %v", text, err)
			}
		}
	}
}

// A database of a newer format is refused though the format file is old.
func TestNewerDatabase(t *testing.T) {
	s := newStore(t)
	w := lock(t, s)
	err := s.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, encodeNumber(Format+1)) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(); !errors.Is(err, ErrNewer) {
		t.Errorf("snapshot: %v", err)
	}
	if _, err := s.Versions(); !errors.Is(err, ErrNewer) {
		t.Errorf("versions: %v", err)
	}
	if err := w.Commit(Change{}); !errors.Is(err, ErrNewer) {
		t.Errorf("commit: %v", err)
	}
	w.Close()
	if _, err := s.Lock(t.Context(), LockOptions{}); !errors.Is(err, ErrNewer) {
		t.Errorf("lock: %v", err)
	}
}

func TestCreateAtOnce(t *testing.T) {
	for range 5 {
		dir := filepath.Join(t.TempDir(), "store")
		var wg sync.WaitGroup
		var starts []func() error
		for range 4 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "GOFS_TEST_CREATE="+dir)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			starts = append(starts, func() error {
				_, err := in.Write([]byte("\n"))
				return err
			})
			wg.Go(func() {
				if out, err := cmd.Output(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		for _, start := range starts {
			if err := start(); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		check(t, s, nil)
	}
}

func TestLock(t *testing.T) {
	s := newStore(t)
	first, err := s.Lock(t.Context(), LockOptions{Verb: "compact"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Lock(t.Context(), LockOptions{NoWait: true})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("gofs compact, process %d", os.Getpid())) {
		t.Errorf("no wait: %v", err)
	}
	why := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = s.Lock(ctx, LockOptions{Waiting: func(string) { cancel(why) }})
	if !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	told := 0
	second, err := s.Lock(t.Context(), LockOptions{Verb: "gc", Waiting: func(holder string) {
		if told++; !strings.Contains(holder, "gofs compact") {
			t.Errorf("held by %q", holder)
		}
		first.Close()
	}})
	if err != nil || told != 1 {
		t.Fatalf("told %d times, %v", told, err)
	}
	second.Close()
	lock(t, s)
}

func TestLockIsNoLink(t *testing.T) {
	s := newStore(t)
	target := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(target, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.Dir(), lockFile)
	if err := errors.Join(os.Remove(name), os.Symlink(target, name)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(t.Context(), LockOptions{}); !errors.Is(err, blobstore.ErrDamaged) {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(target); string(b) != "precious" {
		t.Errorf("the link's target has %q", b)
	}
}

// A writer that was killed after its transaction and before it could announce
// it is made up for by the next one.
func TestHeal(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"killed":  func(string) error { return nil },
		"missing": os.Remove,
		"empty":   func(file string) error { return os.Truncate(file, 0) },
		"garbage": func(file string) error { return os.WriteFile(file, []byte("what?"), 0o644) },
	} {
		s := newStore(t)
		w := lock(t, s)
		c := addition(t, s, "1.22.8", goLike(3, "x"))
		err := s.update(func(tx *bolt.Tx) error {
			_, err := c.apply(tx)
			return err
		})
		if err = errors.Join(err, w.Close(), damage(s.GenerationFile())); err != nil {
			t.Fatal(err)
		}
		if n, _ := s.Generation(); n == 2 {
			t.Fatal("announced already")
		}
		check(t, s, map[string]content{"1.22.8": goLike(3, "x")})
		lock(t, s)
		if n, err := s.Generation(); n != 2 || err != nil {
			t.Errorf("%s: generation %d, %v", name, n, err)
		}
	}
}

// A reader that waits for a database which is compacted meanwhile reads the
// new one.
func TestCompactWhileReaderWaits(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(s.Dir(), databaseFile)
	got := make(chan error, 1)
	err := s.withDB(false, func(db *bolt.DB) error {
		go func() {
			snap, err := s.Snapshot()
			if err == nil && snap.Generation != 77 {
				err = fmt.Errorf("generation %d, of the old file", snap.Generation)
			}
			got <- err
		}()
		for openTimes(t, path) < 2 { // the reader has it open and waits
		}
		to, err := bolt.Open(path+newSuffix, 0o644, nil)
		if err != nil {
			return err
		}
		err = errors.Join(bolt.Compact(to, db, 0), to.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketMeta).Put(keyGeneration, encodeNumber(77))
		}), to.Close())
		return errors.Join(err, os.Rename(path+newSuffix, path))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// openTimes is how often this process has a file open.
func openTimes(t testing.TB, path string) (n int) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == path {
			n++
		}
	}
	return n
}
