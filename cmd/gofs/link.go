package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gofs/resolve"
)

func newLinkCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var sdk bool
	var dir string
	cmd := &cobra.Command{
		Use:   "link --sdk",
		Short: "Keep links where editors look for GOROOTs",
		Long: `link --sdk makes ~/sdk/go1.23.3 lead to each imported release: there VS Code
("Go: Choose Go Environment") and GoLand (GOROOT settings) offer them. Links
to releases that are gone are taken away; anything that is not a link into the
mount stays. Run it again after an import.

EXIT STATUS
  0 done; 1 the folder cannot be written, or holds something else under such a
  name; 2 wrong usage`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !sdk {
				return usagef("want --sdk (see gofs link --help)")
			}
			in, err := listInstalled(g, c.mount)
			if err != nil {
				return err
			}
			if dir == "" {
				home, err := os.UserHomeDir()
				if err != nil {
					return err
				}
				dir = filepath.Join(home, "sdk")
			}
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return fmt.Errorf("folder of the links: %w", err)
			}
			links := map[string]string{}
			for _, r := range in.Releases {
				if r.Name == r.Version && r.Platform == resolve.HostPlatform {
					links["go"+r.Name] = in.GOROOT(r)
				}
			}
			return syncLinks(dir, links, "go1", in.Dir)
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&sdk, "sdk", false, "links for VS Code and GoLand")
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the links (default ~/sdk)")
	return cmd
}
