package main

import (
	"github.com/spf13/cobra"

	"gofs/resolve"
)

// globals are the flags that every verb takes.
type globals struct {
	store string // --store
	quiet bool   // --quiet
}

func newRootCmd() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "gofs",
		Short: "Every Go release in one small store, mounted as ordinary GOROOTs",
		Long: `gofs keeps many Go releases in one deduplicated, compressed store and
mounts each of them as an ordinary read-only GOROOT.

  gofs import 1.23.3          fetch a release into the store
  gofs mount /gofs            show every release below /gofs
  /gofs/1.23.3/bin/go version`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&g.store, "store", "", "folder of the store (default $GOFS_STORE, else /var/lib/gofs for root, $XDG_DATA_HOME/gofs for others)")
	root.PersistentFlags().BoolVarP(&g.quiet, "quiet", "q", false, "print errors only")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v (see %s --help)", err, cmd.CommandPath())
	})
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("unknown verb %q (see gofs --help)", args[0])
		}
		return nil
	}
	root.RunE = func(cmd *cobra.Command, args []string) error { return cmd.Help() }
	for _, newCmd := range verbs {
		root.AddCommand(newCmd(g))
	}
	return root
}

// storeDir is the folder of the store: --store, else $GOFS_STORE, else the
// default of the user.
func (g *globals) storeDir() (string, error) { return resolve.StoreDir(g.store) }
