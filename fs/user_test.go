package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gofs/index"
)

const nobody = 65534

// TestMain is also the program of TestUserMount and of what child runs.
func TestMain(m *testing.M) {
	if f := children[os.Getenv("GOFS_TEST_CHILD")]; f != nil {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("GOFS_TEST_USER_MOUNT"); dir != "" {
		if err := userMount(os.Getenv("GOFS_TEST_STORE"), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// userMount mounts, reads, fails to unmount while in use and unmounts.
func userMount(storeDir, dir string) error {
	store, err := index.Open(storeDir)
	if err != nil {
		return err
	}
	s, err := Mount(context.Background(), store, dir, Options{})
	if err != nil {
		return err
	}
	defer s.Unmount()
	f, err := os.Open(filepath.Join(dir, "1.22.8", "VERSION"))
	if err != nil {
		return err
	}
	if err := s.Unmount(); !errors.Is(err, ErrBusy) {
		return fmt.Errorf("busy: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != nobody {
		return fmt.Errorf("owner %d", uid)
	}
	f.Close()
	return s.Unmount()
}

// TestUserMount mounts as a user without rights, with fusermount3.
func TestUserMount(t *testing.T) {
	store := newStore(t)
	add(t, store, "1.22.8", sample())
	root, err := os.MkdirTemp("/tmp", "gofs-user-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	dir, program := filepath.Join(root, "mount point"), filepath.Join(root, "test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test's own folders may lie where nobody cannot go.
	if err := os.CopyFS(filepath.Join(root, "store"), os.DirFS(store.Dir())); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err == nil {
		err = errors.Join(os.WriteFile(program, b, 0o755), os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody), os.Chmod(root, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(prepare string, env ...string) (string, error) {
		// A mount namespace of its own, so that the device can be prepared.
		cmd := exec.Command("unshare", "--mount", "sh", "-ec", prepare+`
			exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0"`, program)
		cmd.Env = append(env, "GOFS_TEST_USER_MOUNT="+dir, "GOFS_TEST_STORE="+filepath.Join(root, "store"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	path := "PATH=" + os.Getenv("PATH")
	device := fmt.Sprintf("mknod -m 666 %[1]s/fuse c 10 229; mount --bind %[1]s/fuse /dev/fuse", root)
	if out, err := run(device, path); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, test := range []struct{ name, prepare, want string }{
		{"no device", "mount -t tmpfs none /dev", ErrNoFuse.Error()},
		{"no rights", device + "; chmod 600 /dev/fuse", "/dev/fuse: permission denied"},
		{"no fusermount", device + `; for f in $(which -a fusermount3 fusermount); do mount --bind /dev/null "$f"; done`, ErrNoFusermount.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			os.Remove(filepath.Join(root, "fuse"))
			if out, err := run(test.prepare, path); err == nil || !strings.Contains(out, test.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
