package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gofs/resolve"
)

func newDefaultCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var system, unset bool
	cmd := &cobra.Command{
		Use:   "default [VERSION]",
		Short: "Print or set the release for folders that name none",
		Long: `default writes VERSION, as it was given, to $XDG_CONFIG_HOME/gofs/version, or
with --system to /etc/gofs/version. "gofs default stable" therefore follows
the newest imported release. Without VERSION it prints the one that is set.

EXIT STATUS
  0 done; 1 not imported, none set, or not writable; 2 wrong usage`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := resolve.UserDefault()
			if system {
				file = resolve.SystemDefault
			}
			if file == "" {
				return errors.New("no place for a default: neither XDG_CONFIG_HOME nor HOME is set")
			}
			if unset {
				if len(args) > 0 {
					return usagef("--unset takes no VERSION (see gofs default --help)")
				}
				if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
				return nil
			}
			if len(args) == 1 {
				if _, err := c.choose(args[0]); err != nil {
					return err
				}
				return writeDefault(file, args[0])
			}
			data, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) {
				return errors.New("no default is set (gofs default VERSION)")
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(string(data)))
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&system, "system", false, "the default of everybody on this machine")
	cmd.Flags().BoolVar(&unset, "unset", false, "take the default away")
	return cmd
}

func writeDefault(file, version string) error {
	if file == "" {
		return errors.New("no place for a default: neither XDG_CONFIG_HOME nor HOME is set")
	}
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = writeFile(file, []byte(version+"\n"))
	}
	if err != nil {
		return fmt.Errorf("setting the default: %w", err)
	}
	return nil
}
