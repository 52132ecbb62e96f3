package main

import (
	"github.com/spf13/cobra"

	"gofs/resolve"
)

// listInstalled tells the verbs which releases there are and where they are
// mounted. mount is the value of --mount.
var listInstalled = func(g *globals, mount string) (resolve.Installed, error) {
	dir, err := mountDir(g, mount)
	if err != nil {
		return resolve.Installed{}, err
	}
	return resolve.ScanFiles(dir)
}

// mountDir is the folder that shows the releases.
func mountDir(g *globals, mount string) (string, error) {
	return resolve.MountDir(mount, g.store)
}

// chooser is what the verbs that pick a release share: their --mount flag.
type chooser struct {
	g     *globals
	mount string
}

func (c *chooser) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.mount, "mount", "", "folder where the releases are mounted (default $GOFS_MOUNT, else the mount of the store)")
}

// resolver has the rules look from the working directory.
func (c *chooser) resolver() (*resolve.Resolver, error) {
	in, err := listInstalled(c.g, c.mount)
	if err != nil {
		return nil, err
	}
	return resolve.Here(in)
}

// choose applies the rules, or takes the version when one is given.
func (c *chooser) choose(version string) (resolve.Choice, error) {
	r, err := c.resolver()
	if err != nil {
		return resolve.Choice{}, err
	}
	if version != "" {
		return r.Select(version)
	}
	return r.Resolve()
}

// optional returns the only argument, or "".
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
