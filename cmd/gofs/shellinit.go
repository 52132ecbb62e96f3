package main

import (
	_ "embed"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed shell/hook.bash
var hookBash string

//go:embed shell/hook.zsh
var hookZsh string

//go:embed shell/hook.fish
var hookFish string

//go:embed shell/direnv.sh
var hookDirenv string

func newShellInitCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "shell-init bash|zsh|fish|direnv",
		Short: "Print the hook that switches releases at the prompt",
		Long: `shell-init prints a hook for a start-up file of the shell. Before each prompt
the hook looks at the files that gofs which reads. While they are the same it
starts no process; otherwise it evaluates gofs env. It also runs once where it
is read, so that scripts of a login shell get the release of their folder.

  eval "$(gofs shell-init bash)"                      ~/.bashrc
  eval "$(gofs shell-init zsh)"                       ~/.zshrc
  gofs shell-init fish | source                       ~/.config/fish/config.fish
  gofs shell-init direnv > ~/.config/direnv/lib/gofs.sh, then "use gofs" in .envrc

EXIT STATUS
  0 printed; 2 wrong usage`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			hooks := map[string]string{"bash": hookBash, "zsh": hookZsh, "fish": hookFish, "direnv": hookDirenv}
			hook, ok := hooks[args[0]]
			if !ok {
				return usagef("no hook for %q (bash, zsh, fish or direnv)", args[0])
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			quoted := quotePosix(self)
			if args[0] == "fish" {
				quoted = quoteFish(self)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), strings.ReplaceAll(hook, "@GOFS@", quoted))
			return err
		},
	}
}
