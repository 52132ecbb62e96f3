package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gofs/doctor"
)

// storeDamage lists what a verification of the store noted, a line each.
var storeDamage = notedDamage

func newDoctorCmd(g *globals) *cobra.Command {
	c := &chooser{g: g}
	var asJSON, fix bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why the wrong go runs",
		Long: `doctor looks at every go in PATH and the start-up file that put it there, at
GOROOT and the other variables, at go's own view, its compiler and linker, at
the project, the caches, the running processes, the mounts and the store. It
prints what is wrong, the worst first, with its cause and the command that
mends it. A note is no reason to act.

With --fix it mends what it can. A line that it takes out of a start-up file
stays there as a comment; open a new shell afterwards.

EXIT STATUS
  0 nothing is wrong, or all of it was mended; 1 something is wrong; 2 wrong
  usage`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := c.host(cmd.Context())
			if err != nil {
				return err
			}
			report := doctor.Examine(cmd.Context(), h)
			if fix {
				report.Fix()
			}
			if asJSON {
				if report.Findings == nil {
					report.Findings = []doctor.Finding{}
				}
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				err = enc.Encode(report)
			} else {
				err = printReport(cmd.OutOrStdout(), report, g.quiet)
			}
			if err == nil && report.Sick() {
				err = exitStatus(exitFailed)
			}
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&fix, "fix", false, "mend what can be mended")
	return cmd
}

// host tells the doctor about this machine. That there is no mount is for
// the doctor to judge.
func (c *chooser) host(ctx context.Context) (*doctor.Host, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		self = ""
	}
	h := &doctor.Host{Env: currentEnviron(), Dir: dir, Home: os.Getenv("HOME"), Self: self, Now: now()}
	if h.Store, err = c.g.storeDir(); err != nil {
		return nil, err
	}
	if h.Damage, err = storeDamage(c.g); err != nil {
		h.Damage = []string{err.Error()}
	}
	if mount, err := mountDir(c.g, c.mount); err == nil && self != "" && doctor.Hung(ctx, self, mount) {
		h.RuleErr = fmt.Errorf("the mount at %s does not answer (fusermount3 -uz %s)", mount, mount)
		return h, nil
	}
	h.Rules, h.RuleErr = c.resolver()
	return h, nil
}

func printReport(out io.Writer, r doctor.Report, quiet bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !quiet {
		for i, g := range r.Gos {
			if i == 0 {
				fmt.Fprintln(w, "GO IN PATH\tVERSION\tKIND\tPUT THERE BY")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", g.Path, orDash(g.Version), g.Kind, orDash(g.From))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if len(r.Findings) == 0 {
		if !quiet {
			fmt.Fprintln(out, "nothing is wrong")
		}
		return nil
	}
	fmt.Fprintln(w, "SEVERITY\tFINDING\tMENDED BY\tCAUSE")
	for _, f := range r.Findings {
		state := f.Command
		switch {
		case f.Fixed:
			state = "mended"
		case f.FixError != "":
			state += " (--fix failed: " + f.FixError + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Severity, f.Name, state, f.Cause)
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
