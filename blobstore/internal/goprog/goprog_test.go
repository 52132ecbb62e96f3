package goprog

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// programs calls f with the programs of the releases in GOFS_TEST_TOOLCHAINS, a folder of tarballs,
// or else with those of the Go that runs the test.
func programs(t testing.TB, f func(name string, b []byte)) {
	dir := os.Getenv("GOFS_TEST_TOOLCHAINS")
	if dir == "" {
		root := goroot(t)
		for _, sub := range []string{"bin", "pkg/tool"} {
			filepath.WalkDir(filepath.Join(root, sub), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					if b, err := os.ReadFile(path); err == nil {
						f(d.Name(), b)
					}
				}
				return nil
			})
		}
		return
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	for _, file := range files {
		if err := tarred(file, f); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
}

func tarred(file string, f func(name string, b []byte)) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || !strings.HasPrefix(h.Name, "go/bin/") && !strings.HasPrefix(h.Name, "go/pkg/tool/") {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		f(filepath.Base(file)+"/"+filepath.Base(h.Name), b)
	}
}

func goroot(t testing.TB) string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal("go env GOROOT: ", err)
	}
	return strings.TrimSpace(string(out))
}

// limitOf is how long the filtered form may be in a store.
func limitOf(b []byte) int { return len(b)*5/2 + 4096 }

// roundTrip fails unless b is filtered and restored.
func roundTrip(t testing.TB, name string, b []byte) {
	t.Helper()
	filtered, err := forward(b, limitOf(b))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if len(filtered) > limitOf(b) {
		t.Errorf("%s: %d bytes filtered of %d", name, len(filtered), len(b))
	}
	back, err := Inverse(filtered, len(b))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if !bytes.Equal(back, b) {
		t.Errorf("%s: differs at %d of %d", name, differ(back, b), len(b))
	}
	if _, err := Inverse(filtered, len(b)-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%s: one byte more than allowed: %v", name, err)
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestRealRoundTrip(t *testing.T) {
	n := 0
	programs(t, func(name string, b []byte) {
		if !bytes.HasPrefix(b, []byte("\x7fELF")) {
			return
		}
		n++
		roundTrip(t, name, b)
	})
	if n == 0 && runtime.GOOS == "linux" {
		t.Error("no programs")
	}
}

// TestRealBuilt filters programs that are built for the test, for each architecture and with what else
// matters to the layout.
func TestRealBuilt(t *testing.T) {
	goroot(t)
	for _, c := range []struct {
		name, platform string
		flags          []string
		filtered       bool
	}{
		{"amd64", "linux/amd64", nil, true},
		{"arm64", "linux/arm64", nil, true},
		{"no DWARF", "linux/amd64", []string{"-ldflags=-w"}, true},
		{"DWARF not compressed", "linux/amd64", []string{"-ldflags=-compressdwarf=false"}, true},
		{"PIE", "linux/amd64", []string{"-buildmode=pie"}, true},
		{"stripped", "linux/amd64", []string{"-ldflags=-s -w"}, false},
		{"386", "linux/386", nil, false},
		{"Mach-O, amd64", "darwin/amd64", nil, true},
		{"Mach-O, arm64", "darwin/arm64", nil, true},
		{"Mach-O without DWARF", "darwin/arm64", []string{"-ldflags=-w"}, true},
		{"Mach-O, stripped", "darwin/arm64", []string{"-ldflags=-s -w"}, true}, // has a signature and names of what it imports
		{"PE, amd64", "windows/amd64", nil, true},
		{"PE, arm64", "windows/arm64", nil, true},
		{"PE without DWARF", "windows/amd64", []string{"-ldflags=-w"}, true},
		{"PE, stripped", "windows/amd64", []string{"-ldflags=-s -w"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "program")
			cmd := exec.Command("go", append(append([]string{"build", "-o", out}, c.flags...), "cmd/pack")...)
			system, arch, _ := strings.Cut(c.platform, "/")
			cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0")
			if msg, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, msg)
			}
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if c.filtered {
				roundTrip(t, c.name, b)
			} else if _, ok := Forward(b, limitOf(b)); ok {
				t.Error("filtered")
			}
		})
	}
}

// TestDamaged damages programs and filtered programs: neither may do more than fail.
func TestRealDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tested := false
	programs(t, func(name string, b []byte) {
		if tested || len(b) > 3<<20 || !bytes.HasPrefix(b, []byte("\x7fELF")) {
			return
		}
		tested = true
		filtered, ok := Forward(b, limitOf(b))
		if !ok {
			t.Fatalf("%s is not filtered", name)
		}
		for range 40 {
			damage(rng, filtered, func(x []byte) {
				if out, err := Inverse(x, len(b)); err == nil && len(out) > len(b) {
					t.Fatalf("%d bytes, allowed %d", len(out), len(b))
				}
			})
			damage(rng, b, func(x []byte) { Forward(x, limitOf(x)) })
		}
	})
}

// damage calls f with a copy of b that has some bytes changed, many of them near the start, or that
// is cut.
func damage(rng *rand.Rand, b []byte, f func([]byte)) {
	x := bytes.Clone(b)
	for range 1 + rng.IntN(20) {
		limit := len(x)
		if rng.IntN(3) == 0 {
			limit = min(limit, 2048)
		}
		x[rng.IntN(limit)] = byte(rng.Uint32())
	}
	if rng.IntN(4) == 0 {
		x = x[:rng.IntN(len(x))]
	}
	f(x)
}

func TestInstruction(t *testing.T) {
	for _, c := range []struct {
		code          string
		length, field int
	}{
		{"e8 11 22 33 44", 5, 1},                    // CALL
		{"0f 84 11 22 33 44", 6, 2},                 // JEQ
		{"74 05", 2, 0},                             // JEQ, short
		{"48 8d 05 11 22 33 44", 7, 3},              // LEAQ sym(SB), AX
		{"48 8b 44 24 08", 5, 0},                    // MOVQ 8(SP), AX
		{"48 c7 05 11 22 33 44 01 00 00 00", 11, 3}, // MOVQ $1, sym(SB)
		{"80 3d 11 22 33 44 00", 7, 2},              // CMPB sym(SB), $0
		{"66 83 3d 11 22 33 44 00", 8, 3},           // CMPW sym(SB), $0
		{"48 b8 01 02 03 04 05 06 07 08", 10, 0},    // MOVQ $x, AX
		{"66 c7 05 11 22 33 44 01 00", 9, 3},        // MOVW $1, sym(SB)
		{"f7 05 11 22 33 44 01 00 00 00", 10, 2},    // TESTL $1, sym(SB)
		{"f7 1d 11 22 33 44", 6, 2},                 // NEGL sym(SB)
		{"f2 0f 10 05 11 22 33 44", 8, 4},           // MOVSD sym(SB), X0
		{"c5 fd 6f 05 11 22 33 44", 8, 4},           // VMOVDQU sym(SB), Y0
		{"c4 e2 7d 18 05 11 22 33 44", 9, 5},        // VBROADCASTSS sym(SB), Y0
		{"62 f1 fe 48 6f 05 11 22 33 44", 10, 6},    // VMOVDQU64 sym(SB), Z0
		{"66 0f 3a 0f 05 11 22 33 44 08", 10, 5},    // PALIGNR $8, sym(SB), X0
		{"c3", 1, 0},
		{"", 1, 0},
	} {
		code, err := hex.DecodeString(strings.ReplaceAll(c.code, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if len(code) == 0 {
			continue
		}
		n, field := instruction(append(code, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90))
		if n != c.length || field != c.field {
			t.Errorf("%s: length %d, field %d; want %d, %d", c.code, n, field, c.length, c.field)
		}
	}
}

func FuzzForward(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		filtered, ok := Forward(b, limitOf(b))
		if !ok {
			return
		}
		back, err := Inverse(filtered, len(b))
		if err != nil || !bytes.Equal(back, b) {
			t.Fatal("does not come back: ", err)
		}
	})
}

func FuzzInverse(f *testing.F) {
	seeds(f, func(b []byte) {
		if filtered, ok := Forward(b, limitOf(b)); ok {
			f.Add(filtered)
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		if out, err := Inverse(bytes.Clone(b), limit); err == nil && len(out) > limit {
			t.Fatalf("%d bytes", len(out))
		}
	})
}
