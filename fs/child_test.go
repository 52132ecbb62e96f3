package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gofs/index"
)

// children are what a test runs in a process with other rights.
var children = map[string]func() error{
	"serve":   serveChild,
	"read":    readChild,
	"stumble": func() error { return errors.New("a stumbling block") },
	// Without CAP_SYS_ADMIN passthrough is refused, and memory for the hot
	// layer is a folder in /dev/shm that goes at the end.
	"powerless": func() error {
		store, err := index.Open(os.Getenv("GOFS_TEST_STORE"))
		if err != nil {
			return err
		}
		_, err = Mount(context.Background(), store, os.Getenv("GOFS_TEST_DIR"), Options{Hot: &Hot{Size: 1 << 20}, Passthrough: true})
		if !errors.Is(err, ErrPassthrough) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			return fmt.Errorf("passthrough: %w", err)
		}
		f, err := openHotFolder("", 1<<20)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(f.wipe, "/dev/shm/") || f.try() != nil {
			return fmt.Errorf("not in /dev/shm: %+v", f)
		}
		st, err := os.Stat(f.wipe)
		if err != nil || st.Mode().Perm() != 0o700 {
			return fmt.Errorf("%v, %w", st, err)
		}
		f.close()
		if exists(f.wipe) {
			return errors.New(f.wipe + " is left")
		}
		return nil
	},
	// Another user is refused by the folder, and where that is open, by the
	// mount.
	"stranger": func() error {
		socket := os.Getenv("GOFS_TEST_SOCKET")
		if os.Getenv("GOFS_TEST_OPEN") == "" {
			if _, err := Ask(context.Background(), socket, 0); !errors.Is(err, ErrRefused) {
				return fmt.Errorf("ask: %w", err)
			}
			return nil
		}
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Fprintln(c, `{"do":"stats"}`)
		line, err := bufio.NewReader(c).ReadString('\n')
		if !strings.Contains(line, ErrRefused.Error()) || strings.Contains(line, "requests") {
			return fmt.Errorf("answer: %s %w", line, err)
		}
		return nil
	},
}

// child runs one of children below setpriv. The program is copied to where
// every user finds it.
func child(t *testing.T, name string, env []string, setpriv ...string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gofs-child-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "child")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", append(setpriv, program)...)
	cmd.Dir = "/"
	cmd.Env = append(env, "GOFS_TEST_CHILD="+name, "PATH="+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
}

var (
	withoutSysAdmin = []string{"--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"}
	asNobody        = []string{"--reuid", "65534", "--regid", "65534", "--clear-groups"}
)
