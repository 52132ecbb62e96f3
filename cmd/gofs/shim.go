package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gofs/resolve"
	"gofs/resolve/launch"
)

func newShimCmd(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shim",
		Short: "Keep a folder with a go that picks the release by itself",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return usagef("want gofs shim install DIR")
		},
	}
	cmd.AddCommand(newShimInstallCmd(g))
	return cmd
}

func newShimInstallCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	cmd := &cobra.Command{
		Use:   "install DIR",
		Short: "Write the launchers and links into DIR",
		Long: `install fills DIR with go and gofmt, launchers that run the release which the
rules of gofs which pick in the working directory, and with a link go1.23.3
for each imported release, which the go command finds in PATH before it
downloads a toolchain. Put DIR before every other folder with a go in PATH.
After an import, run it again for the new link.

EXIT STATUS
  0 written; 1 DIR cannot be written, or holds a go of somebody else; 2 wrong usage`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := listInstalled(g, c.mount)
			if err != nil {
				return err
			}
			return installShims(args[0], in)
		},
	}
	c.flags(cmd)
	return cmd
}

func installShims(dir string, in resolve.Installed) error {
	program := launcher()
	if program == "" {
		return errors.New("shim folder: the path of gofs is not known")
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("shim folder: %w", err)
	}
	links := map[string]string{"go": program, "gofmt": program}
	for _, r := range in.Releases {
		if r.Name == r.Version && r.Platform == resolve.HostPlatform {
			links["go"+r.Name] = filepath.Join(in.GOROOT(r), "bin", "go")
		}
	}
	if err := syncLinks(dir, links, "go1", in.Dir); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, launch.MountFile), []byte(in.Dir+"\n"))
}

// syncLinks makes the symbolic links in dir, and takes away those that begin
// with prefix and lead below mount but are not wanted any more. A file that
// is no link stays, and is an error when its name is wanted.
func syncLinks(dir string, links map[string]string, prefix, mount string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		target, err := os.Readlink(file)
		if err == nil && strings.HasPrefix(e.Name(), prefix) && links[e.Name()] == "" && strings.HasPrefix(target, mount+"/") {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(links)) {
		if err := symlink(links[name], filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// symlink makes file lead to target, in place of another link only.
func symlink(target, file string) error {
	old, err := os.Readlink(file)
	if err == nil && old == target {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is not a link: not replaced", file)
	}
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// writeFile replaces a file as a whole: a reader sees the old or the new.
func writeFile(file string, data []byte) error {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".gofs-")
	if err != nil {
		var unmade *fs.PathError
		if errors.As(err, &unmade) {
			err = unmade.Err // its name says nothing to anybody
		}
		return fmt.Errorf("writing %s: %w", file, err)
	}
	mode := os.FileMode(0o644)
	if fi, err := os.Stat(file); err == nil {
		mode = fi.Mode().Perm()
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
