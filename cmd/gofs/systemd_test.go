package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnits has systemd read the units: it ignores what it does not know, and
// says so.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	for unit, args := range map[string][]string{
		"gofs.service":      {"verify", "--man=no"},
		"gofs-user.service": {"verify", "--man=no", "--user"},
	} {
		b, err := os.ReadFile(filepath.Join("systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, unit)
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(b), "/usr/local/bin/gofs", gofsBinary(t))), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("systemd-analyze", append(args, name)...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", unit, err, out)
		}
	}
	// systemd's own measure is 4.0 of 10 for what a mount for all needs.
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=40", filepath.Join(dir, "gofs.service")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
