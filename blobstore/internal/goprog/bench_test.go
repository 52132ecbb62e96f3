package goprog

import (
	"os"
	"testing"
)

// BenchmarkInverse measures what a read of a program costs behind the delta; with
// GOFS_TEST_PROGRAM one may choose which. go1.24.0's bin/go on a 2.8 GHz Xeon: 90 ms.
func BenchmarkInverse(b *testing.B) {
	var plain []byte
	if name := os.Getenv("GOFS_TEST_PROGRAM"); name != "" {
		plain, _ = os.ReadFile(name)
	} else {
		programs(b, func(_ string, p []byte) {
			if len(p) > len(plain) {
				plain = p
			}
		})
	}
	filtered, ok := Forward(plain)
	if !ok {
		b.Skip("not filtered")
	}
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Inverse(filtered, len(plain)); err != nil {
			b.Fatal(err)
		}
	}
}
