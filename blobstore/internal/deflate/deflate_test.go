package deflate

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// standard is what compress/zlib makes at BestSpeed. If a later Go changes that, the comparisons with it
// must go, and TestGolden stays: the programs that there are do not change, nor may this package.
func standard(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := zlib.NewWriterLevel(&out, zlib.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// source is pseudo-random in a way that no release of Go can change.
type source struct{ *rand.PCG }

func newSource(seed uint64) *source { return &source{rand.NewPCG(seed, 0)} }

func (s *source) below(n int) int { return int(s.Uint64()>>33) % n }

// input is a kind of bytes, of any length.
type input struct {
	name string
	make func(rng *source, n int) []byte
}

func inputs() []input {
	return []input{
		{"zeros", func(_ *source, n int) []byte { return make([]byte, n) }},
		{"noise", func(rng *source, n int) []byte { return random(rng, n, 256) }},
		{"two letters", func(rng *source, n int) []byte { return random(rng, n, 2) }},
		{"letters", func(rng *source, n int) []byte { return random(rng, n, 40) }},
		{"skewed", skewed},
		{"words", words},
		{"numbers", numbers},
		{"far", far},
		{"mixed", func(rng *source, n int) []byte {
			var b []byte
			for len(b) < n {
				f := []func(*source, int) []byte{skewed, words, numbers, far}[rng.below(4)]
				b = append(b, f(rng, 1+rng.below(1<<(4+rng.below(13))))...)
				b = append(b, random(rng, rng.below(1<<rng.below(14)), 256)...)
			}
			return b[:n]
		}},
	}
}

func random(rng *source, n, letters int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.below(letters))
	}
	return b
}

// skewed has frequencies of which the longest codes are made: each letter twice as often as the next.
func skewed(rng *source, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		for b[i] < 30 && rng.below(2) == 0 {
			b[i]++
		}
	}
	return b
}

func words(rng *source, n int) []byte {
	list := make([][]byte, 400)
	for i := range list {
		list[i] = random(rng, 1+rng.below(12), 26)
	}
	var b []byte
	for len(b) < n {
		b = append(b, list[rng.below(1+rng.below(len(list)))]...)
	}
	return b[:n]
}

func numbers(rng *source, n int) []byte {
	var b []byte
	for v := uint32(0); len(b) < n; v += uint32(rng.below(300)) {
		b = fmt.Appendf(b, "%c%c%c%c", byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	return b[:n]
}

// far repeats what lies as far back as a match can, and a little more.
func far(rng *source, n int) []byte {
	b := random(rng, min(n, window-8), 256)
	for len(b) < n {
		from := max(0, len(b)-window+8-rng.below(16))
		b = append(b, b[from:min(len(b), from+rng.below(300))]...)
		b = append(b, byte(rng.below(256)))
	}
	return b[:n]
}

var sizes = []int{
	0, 1, 2, 3, 15, 16, 17, 100, 126, 127, 128, 129, 150, 1000, 4096, 32767, 32768, 32769, 65534,
	blockSize, 65536, blockSize + 16, blockSize + 17, blockSize + 127, blockSize + 128, 2*blockSize - 1, 2 * blockSize, 2*blockSize + 1,
	300_000,
}

// check fails unless e makes what compress/zlib makes.
func check(t *testing.T, e *Encoder, name string, b []byte) {
	t.Helper()
	want := standard(t, b)
	got := make([]byte, len(want))
	if !e.Fill(got, b) {
		t.Errorf("%s: %d bytes are not %d deflated", name, len(b), len(want))
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes differ", name, len(b))
	}
}

func TestOtherLength(t *testing.T) {
	rng := newSource(11)
	e := new(Encoder)
	for _, in := range inputs() {
		for _, n := range []int{0, 10, 100, 5000, 100_000} {
			b := in.make(rng, n)
			right := len(standard(t, b))
			for _, wrong := range []int{0, 1, 2, right / 2, right - 5, right - 1, right + 1, 2 * right} {
				if e.Fill(make([]byte, wrong), b) {
					t.Errorf("%s: %d bytes fill %d and %d", in.name, n, right, wrong)
				}
			}
		}
	}
}

func TestStandard(t *testing.T) {
	rng := newSource(1)
	e := new(Encoder)
	for _, in := range inputs() {
		for _, n := range sizes {
			check(t, e, in.name, in.make(rng, n))
		}
		for range 10 {
			check(t, e, in.name, in.make(rng, rng.below(200_000)))
		}
	}
	if self, err := os.Executable(); err == nil {
		b, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		check(t, e, "program", b)
	}
}

// TestInflates is what holds even where compress/zlib deflates otherwise.
func TestInflates(t *testing.T) {
	rng := newSource(3)
	for _, in := range inputs() {
		b := in.make(rng, 150_000)
		r, err := zlib.NewReader(bytes.NewReader(deflated(t, b)))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, b) {
			t.Errorf("%s: %v", in.name, err)
		}
	}
}

// deflated finds out the length by trying.
func deflated(t *testing.T, b []byte) []byte {
	e := new(Encoder)
	out := make([]byte, len(b)+len(b)/1000+100)
	e.Fill(out, b)
	if e.out.full {
		t.Fatal("longer than stored")
	}
	return out[:e.out.n]
}

func TestGolden(t *testing.T) {
	rng := newSource(5)
	for _, in := range inputs() {
		b := in.make(rng, 200_000)
		sum := sha256.Sum256(deflated(t, b))
		if got := hex.EncodeToString(sum[:8]); got != golden[in.name] {
			t.Errorf("%q: %q", in.name, got)
		}
	}
}

// golden is the fixture: hashes of what may never change.
var golden = map[string]string{
	"zeros":       "5b68dbe94fb66262",
	"noise":       "e32d1305a984fee7",
	"two letters": "0a8d088aaf2f2f71",
	"letters":     "1c5838df887218b7",
	"skewed":      "03788f9e8ec03172",
	"words":       "9b9d3fc9314c25a1",
	"numbers":     "2308d744c0db79e2",
	"far":         "14141a08acbd7557",
	"mixed":       "e95908273f88b2bc",
}

func FuzzStandard(f *testing.F) {
	rng := newSource(7)
	for _, in := range inputs() {
		f.Add(in.make(rng, 2000), uint8(3))
	}
	e := new(Encoder)
	f.Fuzz(func(t *testing.T, b []byte, times uint8) {
		check(t, e, "fuzz", bytes.Repeat(b, 1+int(times)%70))
	})
}

func BenchmarkFill(b *testing.B) {
	in := words(newSource(9), 4<<20)
	want := standard(b, in)
	e := new(Encoder)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if !e.Fill(want, in) {
			b.Fatal("another length")
		}
	}
}
