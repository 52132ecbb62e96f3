package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gofs/blobstore"
	"gofs/index"
)

func newVerifyCmd(g *globals) *cobra.Command {
	var asJSON, prove bool
	cmd := &cobra.Command{
		Use:   "verify [VERSION...]",
		Short: "Decode and check everything that is stored",
		Long: `Verify decodes every blob of the store, or of the versions given, and checks
it against its SHA-256. It lists what is damaged and which files of which
versions cannot be read because of it.

With --provenance it proves that the versions are what the Go project released:
from the stored blobs alone it computes the hash of the toolchain module and
compares it with what the Go checksum database has signed (see gofs import).

EXIT STATUS
  0  all is sound, and with --provenance proved
  1  something is damaged, not proved, or could not be looked at
  2  wrong usage`,
		Args:              usageArgs(cobra.ArbitraryArgs),
		ValidArgsFunction: g.completeVersions,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.openStore()
			if err != nil {
				return err
			}
			hugeHeap()
			if prove {
				return proveVersions(cmd, g, s, args, asJSON)
			}
			b := g.newBar(cmd, -1, "verify")
			r, err := s.Verify(cmd.Context(), index.VerifyOptions{Versions: args, Total: b.total, Progress: b.add})
			b.clear()
			if err != nil {
				return err
			}
			if len(args) == 0 || !r.OK() {
				noteDamage(s, r)
			}
			if asJSON {
				if err := printJSON(cmd, r); err != nil {
					return err
				}
			} else {
				printVerify(cmd, g, r)
			}
			if !r.OK() {
				return exitStatus(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&prove, "provenance", false, "prove that the versions are what the Go project released")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// noteDamage leaves what was found in the store, where gofs doctor looks. Who
// may not write there leaves no note.
func noteDamage(s *index.Store, r *index.VerifyReport) {
	name := filepath.Join(s.Dir(), damageNote)
	if r.OK() {
		_ = os.Remove(name)
		return
	}
	var b strings.Builder
	for _, d := range r.Damage[:min(len(r.Damage), 20)] {
		fmt.Fprintln(&b, damageText(d))
	}
	f, err := blobstore.OpenFile(s.Dir(), damageNote, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(b.String())
}

const damageNote = "damage"

// notedDamage reads what the last verification left.
func notedDamage(g *globals) ([]string, error) {
	dir, err := g.storeDir()
	if err != nil {
		return nil, err
	}
	f, err := blobstore.OpenFile(dir, damageNote, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n"), nil
}

func printVerify(cmd *cobra.Command, g *globals, r *index.VerifyReport) {
	out := cmd.OutOrStdout()
	for _, d := range r.Damage {
		fmt.Fprintf(out, "damaged: %s\n", printable(damageText(d)))
	}
	for _, f := range r.Files {
		if f.Path == "" {
			fmt.Fprintf(out, "unreadable: all of %s\n", f.Version)
		} else {
			fmt.Fprintf(out, "unreadable: %s/%s\n", f.Version, printable(f.Path))
		}
	}
	if r.OK() {
		if !g.quiet {
			fmt.Fprintf(out, "%d versions, %d blobs: all sound\n", r.Versions, r.Blobs)
		}
		return
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "gofs: %d damaged places, %d files cannot be read (gofs repair mends them)\n", len(r.Damage), len(r.Files))
}

func damageText(d index.DamageLine) string {
	switch {
	case d.Pack == "":
		return d.Error
	case d.Offset == 0:
		return fmt.Sprintf("pack %.16s: %s", d.Pack, d.Error)
	}
	return fmt.Sprintf("pack %.16s at %d: %s", d.Pack, d.Offset, d.Error)
}
