package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gofs/resolve"
)

func newEnvCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var shell string
	var asJSON, github, unset, hook bool
	cmd := &cobra.Command{
		Use:   "env [VERSION]",
		Short: "Print what a shell evaluates to use a release",
		Long: `env prints PATH, GOROOT and GOTOOLCHAIN for the release that the rules pick,
or for VERSION. The bin folder of every other GOROOT is taken out of PATH.
GOTOOLCHAIN becomes local: the release is picked already. GOFS_ENV remembers
what was there; gofs env --unset brings it back.

  eval "$(gofs env)"                                           bash, zsh
  gofs env --shell fish | source                               fish
  gofs env --shell pwsh | Out-String | Invoke-Expression       PowerShell
  gofs env --github                                            a step of GitHub Actions

EXIT STATUS
  0 printed; 1 no release found; 2 wrong usage`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case asJSON && github:
				return usagef("--json or --github, not both (see gofs env --help)")
			case unset && (github || len(args) > 0):
				return usagef("--unset goes with neither --github nor VERSION (see gofs env --help)")
			}
			from, to := currentEnviron(), currentEnviron()
			var failed error
			if unset {
				to.deactivate()
			} else {
				choice, err := c.choose(optional(args))
				switch {
				case err == nil:
					to.activate(choice.GOROOT)
				case hook:
					to.deactivate()
					if !nothingAsked(err) {
						failed = err
					}
				default:
					return err
				}
			}
			out := cmd.OutOrStdout()
			switch {
			case github:
				return writeGitHub(to)
			case asJSON:
				return printEnvJSON(out, to)
			case hook:
				return printHook(out, shell, to.diff(from), failed, c)
			}
			text, err := statements(shell, to.diff(from))
			if err == nil {
				_, err = io.WriteString(out, text)
			}
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&shell, "shell", defaultShell(), "syntax: "+strings.Join(shells, ", ")+" (the default follows $SHELL)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; null is a variable to unset")
	cmd.Flags().BoolVar(&github, "github", false, "write to the files GITHUB_ENV and GITHUB_PATH")
	cmd.Flags().BoolVar(&unset, "unset", false, "undo an earlier gofs env")
	cmd.Flags().BoolVar(&hook, "hook", false, "for the prompt hook: no rule is no error")
	_ = cmd.Flags().MarkHidden("hook")
	return cmd
}

// nothingAsked reports whether no rule names a version here: then a missing
// mount is no matter for a prompt either.
func nothingAsked(err error) bool {
	if errors.Is(err, resolve.ErrNoRule) {
		return true
	}
	r, err := resolve.Here(resolve.Installed{})
	if err != nil {
		return false
	}
	_, err = r.Resolve()
	return errors.Is(err, resolve.ErrNoRule)
}

func printEnvJSON(out io.Writer, e environ) error {
	doc := map[string]*string{}
	for _, key := range []string{"PATH", "GOROOT", "GOTOOLCHAIN", savedVar} {
		doc[key] = e.pointer(key)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}

// printHook writes the statements of the prompt hook. After a failure
// __gofs_wait names the mount, so that the hook tries again when a release
// appears there.
func printHook(out io.Writer, shell string, list []change, failed error, c *chooser) error {
	text, err := statements(shell, list)
	if err != nil {
		return err
	}
	wait := ""
	if failed != nil {
		wait, _ = mountDir(c.g, c.mount)
	}
	if shell == "fish" {
		text += fmt.Sprintf("set -g __gofs_wait %s;\n", quoteFish(wait))
	} else {
		text += fmt.Sprintf("__gofs_wait=%s;\n", quotePosix(wait))
	}
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	return failed
}

// writeGitHub appends to the files that GitHub Actions reads after a step.
// GITHUB_PATH can only put folders in front, so the cleaned PATH goes to
// GITHUB_ENV.
func writeGitHub(e environ) error {
	bin := filepath.Join(e["GOROOT"], "bin")
	var vars strings.Builder
	path := strings.TrimPrefix(e["PATH"], bin+string(filepath.ListSeparator))
	for _, kv := range [][2]string{{"PATH", path}, {"GOROOT", e["GOROOT"]}, {"GOTOOLCHAIN", e["GOTOOLCHAIN"]}} {
		fmt.Fprintf(&vars, "%s=%s\n", kv[0], kv[1])
	}
	if err := appendTo("GITHUB_ENV", vars.String()); err != nil {
		return err
	}
	return appendTo("GITHUB_PATH", bin+"\n")
}

func appendTo(variable, text string) error {
	name := os.Getenv(variable)
	if name == "" {
		return fmt.Errorf("%s is not set (--github works in a step of GitHub Actions)", variable)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
