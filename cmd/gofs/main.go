// Gofs keeps many Go releases in one deduplicated, compressed store and
// mounts each of them as an ordinary read-only GOROOT.
//
// Every verb lives in a file of its own. This file holds what they share:
// the global flags, the exit statuses and the way errors are printed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"gofs/index"
	"gofs/resolve/launch"
)

// The exit statuses of every verb.
const (
	exitOK     = 0
	exitFailed = 1 // the work failed; standard error says why in one line
	exitUsage  = 2 // unknown verb or flag, wrong number of arguments
)

func main() {
	if len(os.Args) > 0 {
		if tool := launch.Tool(os.Args[0]); tool != "" {
			os.Exit(launch.Main(tool, os.Args))
		}
	}
	if status, ok := mountHelper(os.Args); ok {
		os.Exit(status)
	}
	os.Exit(run(os.Args[1:]))
}

// What the garbage collector keeps every verb below, if it can; mount has a
// limit of its own. A record of 64 MiB can come on top. An import takes 185 MB
// with 32 processors. What a store needs that has releases in it, a small one
// that asks for it does so to do harm: to verify twelve compacted releases
// takes 310 MB, and with less it takes longer.
const (
	memoryLimit  = 128 << 20
	importMemory = 192 << 20
	storeMemory  = 512 << 20
	smallStore   = 16 << 20 // bytes; half a compacted release
)

// limitMemory sets a limit, unless the user has.
func limitMemory(n int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(n)
	}
}

// limitFor raises the limit for a store that is not small.
func limitFor(s *index.Store, n int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if size, err := s.Size(); err == nil && size > smallStore {
		limitMemory(n)
	}
}

func run(args []string) int {
	limitMemory(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := newRootCmd()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		kept := ""
		if errors.As(err, new(resumable)) {
			kept = " (what is done is kept, the next gofs compact goes on from there)"
		}
		err = fmt.Errorf("interrupted%s", kept)
	}
	fmt.Fprintf(os.Stderr, "gofs: %s\n", printable(strings.ReplaceAll(err.Error(), "\n", "; ")))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// resumable marks the error of what goes on where it ended.
type resumable struct{ error }

func (e resumable) Unwrap() error { return e.error }

// roomHint adds to an error of a full disk what can be done.
func roomHint(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w (nothing is lost; gofs rm and gofs gc make room)", err)
	}
	return err
}

// exitStatus ends the process with a status and no further message, for
// verbs that have printed their findings already.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError marks an error that the caller can mend by calling gofs
// differently; it ends with exitUsage.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// usageArgs wraps one of cobra's argument checks so that its failure counts
// as a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%v (see %s --help)", err, cmd.CommandPath())
		}
		return nil
	}
}
