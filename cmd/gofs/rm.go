package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gofs/index"
)

func newRmCmd(g *globals) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "rm VERSION...",
		Short: "Remove releases from the store",
		Long: `Rm removes releases. They vanish from running mounts at once; the room that
only they took is freed by gofs gc. Versions are given by their own names, not
by aliases like 1.23 or latest. Either all are removed or none.`,
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: g.completeVersions,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.openStore()
			if err != nil {
				return err
			}
			w, err := s.Lock(cmd.Context(), g.lockOptions(cmd, noWait))
			if err != nil {
				return err
			}
			defer w.Close()
			versions, err := s.Versions()
			if err != nil {
				return err
			}
			names, err := exactNames(versions, args)
			if err != nil {
				return err
			}
			if err := w.Commit(index.Change{Remove: names}); err != nil {
				return err
			}
			showChange(cmd.Context(), s.Dir())
			if !g.quiet {
				fmt.Fprintf(cmd.OutOrStdout(), "removed %s (gofs gc frees the room)\n", strings.Join(names, ", "))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "fail if another process writes to the store")
	return cmd
}

// exactNames finds the versions that are meant, each once.
func exactNames(versions []index.Version, args []string) ([]string, error) {
	var names []string
	for _, arg := range args {
		i := slices.IndexFunc(versions, func(v index.Version) bool { return v.Name == arg || "go"+v.Name == arg })
		if i < 0 {
			if v, ok := index.Resolve(versions, arg); ok {
				return nil, fmt.Errorf("%s is an alias of %s (gofs rm %s removes that)", arg, v.Name, v.Name)
			}
			return nil, notInStore(arg)
		}
		if !slices.Contains(names, versions[i].Name) {
			names = append(names, versions[i].Name)
		}
	}
	return names, nil
}

func notInStore(name string) error {
	return fmt.Errorf("version %s %w (gofs ls lists what is)", name, index.ErrNoVersion)
}
