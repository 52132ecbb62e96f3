package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"
)

func newExecCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	cmd := &cobra.Command{
		Use:   "exec [VERSION] -- CMD [ARG...]",
		Short: "Run a command with a release",
		Long: `exec runs CMD with the environment of gofs env: with the release that the
rules pick, or with VERSION. CMD takes the place of gofs in the same process,
so its exit status and the signals sent to it are its own.

EXIT STATUS
  that of CMD; 1 no release found, or no such command; 2 wrong usage`,
		Example: "  gofs exec -- go test ./...\n  gofs exec 1.22 -- make",
		Args: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 || dash > 1 || dash == len(args) {
				return usagef("want a command after -- (see gofs exec --help)")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			choice, err := c.choose(optional(args[:dash]))
			if err != nil {
				return err
			}
			env := currentEnviron()
			env.activate(choice.GOROOT)
			return replaceProcess(args[dash], args[dash:], env)
		},
	}
	c.flags(cmd)
	return cmd
}

// replaceProcess runs name, looked up in the PATH of env, in this process.
func replaceProcess(name string, args []string, env environ) error {
	// LookPath reads the PATH of this process.
	if err := os.Setenv("PATH", env["PATH"]); err != nil {
		return err
	}
	file, err := exec.LookPath(name)
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%s: no such command in PATH", name)
		}
		return err
	}
	return fmt.Errorf("running %s: %w", file, syscall.Exec(file, args, env.list()))
}
