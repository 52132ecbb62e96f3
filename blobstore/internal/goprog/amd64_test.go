package goprog

import (
	"math/rand/v2"
	"testing"
)

// TestPlainInstruction compares the two decoders, whose difference would be
// wrong bytes out of a store that the other one wrote.
func TestPlainInstruction(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	plain := 0
	for first := range 1 << 16 {
		for range 64 {
			var b [32]byte
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			b[0], b[1] = byte(first), byte(first>>8)
			length, field := plainInstruction((*[maxPlain]byte)(b[:]))
			if length == 0 {
				continue
			}
			plain++
			if l, f := anyInstruction(b[:]); l != length || f != field {
				t.Fatalf("% x: length %d and field at %d, not %d and %d", b, length, field, l, f)
			}
			if length > maxPlain {
				t.Fatalf("% x: length %d", b, length)
			}
		}
	}
	if plain < 1<<20 {
		t.Errorf("%d instructions are plain", plain)
	}
}
