package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	gofs "gofs/fs"
)

func newUmountCmd(g *globals) *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:     "umount DIR",
		Aliases: []string{"unmount"},
		Short:   "End a mount",
		Long: `Umount ends the mount at DIR. One that is in use stays, and the processes that
use it are named; with --lazy it is detached, and serves them until they end.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			mounts, _ := gofsMounts()
			var dirs []string
			for _, m := range mounts {
				dirs = append(dirs, m.dir)
			}
			return dirs, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			abs, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			dir := realPath(abs)
			m, ok, err := mountAt(dir)
			if err != nil {
				return err
			}
			if !ok || m.fstype != mountType {
				return fmt.Errorf("%s is no mount of gofs", args[0])
			}
			wait := func() {}
			if !lazy {
				wait = waitForEnd(cmd.Context(), m)
			}
			err = unmount(dir, lazy)
			if err == nil {
				wait()
			}
			if errors.Is(err, gofs.ErrBusy) {
				return fmt.Errorf("%s is in use %s (--lazy detaches it)", args[0], busyText(dir))
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "detach a mount that is in use")
	return cmd
}

// endWait bounds the wait for a process that serves a mount to end. It takes
// milliseconds unless another mount namespace has a copy of the mount.
const endWait = 5 * time.Second

// waitForEnd returns a function that waits, once the mount is gone, until its
// process has let go of all it held: so that the next mount gets the same hot
// folder and knows what was read. It waits for nothing where the process
// cannot be asked.
func waitForEnd(ctx context.Context, m mountPoint) (wait func()) {
	nothing := func() {}
	ctx, cancel := context.WithTimeout(ctx, endWait) // a process may hang
	defer cancel()
	a, err := ask(ctx, m)
	if err != nil {
		return nothing
	}
	ended, err := a.Wait(ctx)
	if err != nil {
		a.Close()
		return nothing
	}
	return func() {
		ended(endWait)
		a.Close()
	}
}

// unmount ends the mount at dir, which may be a dead one. The error is
// gofs.ErrBusy where it is in use.
func unmount(dir string, lazy bool) error {
	if os.Geteuid() == 0 {
		flags := unix.UMOUNT_NOFOLLOW
		if lazy {
			flags |= unix.MNT_DETACH
		}
		err := unix.Unmount(dir, flags)
		if errors.Is(err, unix.EBUSY) {
			return gofs.ErrBusy
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return nil
	}
	program, err := exec.LookPath("fusermount3")
	if err != nil {
		return gofs.ErrNoFusermount
	}
	flags := "-u"
	if lazy {
		flags = "-uz"
	}
	out, err := exec.Command(program, flags, "--", dir).CombinedOutput()
	if err != nil {
		if bytes.Contains(bytes.ToLower(out), []byte("busy")) {
			return gofs.ErrBusy
		}
		return fmt.Errorf("unmount %s: %s", dir, strings.TrimSpace(string(out)))
	}
	return nil
}
