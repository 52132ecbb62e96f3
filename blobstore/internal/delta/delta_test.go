package delta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// noise returns n bytes that compress little.
func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	a, b := noise(rng, 100_000), noise(rng, 50_000)
	changed := bytes.Clone(a)
	for i := 0; i < len(changed); i += 50 + rng.IntN(100) {
		changed[i]++
	}
	for _, c := range []struct {
		name   string
		target []byte
		bases  [][]byte
		most   int // bytes of patch
	}{
		{"empty", nil, nil, 40},
		{"empty with base", nil, [][]byte{a}, 40},
		{"no base", b, nil, len(b) + 60},
		{"empty base", b, [][]byte{nil, {}}, len(b) + 60},
		{"same", a, [][]byte{a}, 60},
		{"unrelated", b, [][]byte{a}, len(b) + 60},
		{"one byte", []byte{1}, [][]byte{{1}}, 40},
		{"single bytes changed", changed, [][]byte{a}, 4000},
		{"second base", b, [][]byte{a, b}, 60},
		{"from both, turned", append(bytes.Clone(b), a...), [][]byte{a, b}, 80},
		{"inserted", append(append(bytes.Clone(a[:500]), "inserted"...), a[500:]...), [][]byte{a}, 80},
		{"across both bases", append(bytes.Clone(a[50_000:]), b[:10_000]...), [][]byte{a, b}, 80},
		{"zeros", make([]byte, 1<<20), [][]byte{make([]byte, 1<<19)}, 200},
		{"short pieces", bytes.Repeat(a[:9], 1000), [][]byte{a}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, o := range []Options{{}, {Level: zstd.SpeedFastest, Depth: 4}} {
				p := Encode([]byte("kept"), c.target, c.bases, o)
				if len(p)-4 > c.most {
					t.Errorf("%d bytes, want at most %d", len(p)-4, c.most)
				}
				got, err := Decode([]byte("too"), p[4:], c.bases, len(c.target), nil)
				if err != nil || string(got) != "too"+string(c.target) || string(p[:4]) != "kept" {
					t.Fatalf("differs, or %v", err)
				}
				if len(c.target) > 0 {
					if _, err := Decode(nil, p[4:], c.bases, len(c.target)-1, nil); !errors.Is(err, ErrTooLarge) {
						t.Errorf("one byte more than allowed: %v", err)
					}
				}
				if _, err := Decode(nil, p[4:], append(c.bases[:len(c.bases):len(c.bases)], []byte{1}), 1<<21, nil); !errors.Is(err, ErrBase) {
					t.Errorf("other bases: %v", err)
				}
			}
		})
	}
}

// TestPrograms takes some programs of the Go that runs the test as each other's bases.
func TestPrograms(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal("no go command: ", err)
	}
	var last []byte
	n := 0
	filepath.WalkDir(filepath.Join(strings.TrimSpace(string(out)), "pkg", "tool"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || n == 3 {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 4<<20 {
			return nil
		}
		n++
		var bases [][]byte
		if last != nil {
			bases = append(bases, last)
		}
		p := Encode(nil, b, bases, Options{Level: zstd.SpeedDefault})
		got, err := Decode(nil, p, bases, len(b), nil)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s differs, or %v", path, err)
		}
		last = b
		return nil
	})
}

func TestDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	a := noise(rng, 20_000)
	target := append(bytes.Clone(a[5000:]), noise(rng, 3000)...)
	for i := 0; i < len(target); i += 30 {
		target[i]++
	}
	p := Encode(nil, target, [][]byte{a}, Options{})
	for range 5000 {
		x := bytes.Clone(p)
		for range 1 + rng.IntN(4) {
			x[rng.IntN(min(len(x), 1+rng.IntN(len(x))))] = byte(rng.Uint32())
		}
		x = x[:len(x)-rng.IntN(2)*rng.IntN(len(x))]
		got, err := Decode(nil, x, [][]byte{a}, len(target), nil)
		if err == nil && len(got) > len(target) {
			t.Fatalf("%d bytes, allowed %d", len(got), len(target))
		}
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("the target of a delta"), []byte("the base of a delta"), []byte("another base"))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Add(bytes.Repeat([]byte("0123456789abcdef"), 20), bytes.Repeat([]byte("0123456789abcdeg"), 20), []byte{0})
	f.Fuzz(func(t *testing.T, target, a, b []byte) {
		bases := [][]byte{a, b}
		p := Encode(nil, target, bases, Options{Level: zstd.SpeedFastest})
		got, err := Decode(nil, p, bases, len(target), nil)
		if err != nil || !bytes.Equal(got, target) {
			t.Fatal("does not come back: ", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	base := bytes.Repeat([]byte("0123456789abcdef"), 40)
	target := append(bytes.Clone(base[3:]), "behind the copy"...)
	f.Add(Encode(nil, target, [][]byte{base}, Options{}))
	f.Add(Encode(nil, base, nil, Options{}))
	f.Fuzz(func(t *testing.T, patch []byte) {
		const limit = 1 << 16
		if got, err := Decode(nil, patch, [][]byte{base}, limit, nil); err == nil && len(got) > limit {
			t.Fatalf("%d bytes", len(got))
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	rng := rand.New(rand.NewPCG(3, 3))
	base := noise(rng, 8<<20)
	target := bytes.Clone(base)
	for i := 0; i < len(target); i += 100 + rng.IntN(1000) {
		target[i]++
	}
	p := Encode(nil, target, [][]byte{base}, Options{})
	out := make([]byte, 0, len(target))
	b.SetBytes(int64(len(target)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(out[:0], p, [][]byte{base}, len(target), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// Streams that claim, and make, more bytes than a target could need are not
// unpacked.
func TestStreamBomb(t *testing.T) {
	const plain = 1 << 20
	zeros := encoder(zstd.SpeedFastest).EncodeAll(make([]byte, plain), nil)
	p := binary.AppendUvarint([]byte{version}, plain)
	p = binary.AppendUvarint(p, 0)
	for range nStreams {
		p = binary.AppendUvarint(p, plain)
		p = append(binary.AppendUvarint(p, uint64(len(zeros))<<1|1), zeros...)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Decode(nil, p, nil, plain, nil)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v", err)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 3*plain {
		t.Errorf("%d bytes of memory for a target of %d", taken, plain)
	}
}
