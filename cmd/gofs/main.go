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
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit statuses of every verb.
const (
	exitOK     = 0
	exitFailed = 1 // the work failed; standard error says why in one line
	exitUsage  = 2 // unknown verb or flag, wrong number of arguments
)

func main() {
	if status, ok := launch(os.Args); ok {
		os.Exit(status)
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
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
		err = errors.New("interrupted")
	}
	// Joined errors have a line each, where one failed after the other.
	fmt.Fprintf(os.Stderr, "gofs: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
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
