package goprog

import (
	"os"
	"testing"

	"gofs/blobstore/internal/delta"
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
	filtered, ok := Forward(plain, limitOf(plain))
	if !ok {
		b.Skip("not filtered")
	}
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	room := make([]byte, len(filtered))
	for b.Loop() {
		copy(room, filtered)
		if _, err := Inverse(room, len(plain)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSaves reports how long a delta of GOFS_TEST_PROGRAM from GOFS_TEST_BASE is as they are and
// when both are filtered.
func BenchmarkSaves(b *testing.B) {
	program, err := os.ReadFile(os.Getenv("GOFS_TEST_PROGRAM"))
	if err != nil {
		b.Skip("no GOFS_TEST_PROGRAM: ", err)
	}
	base, err := os.ReadFile(os.Getenv("GOFS_TEST_BASE"))
	if err != nil {
		b.Fatal(err)
	}
	filtered, ok := Forward(program, limitOf(program))
	filteredBase, okBase := Forward(base, limitOf(base))
	if !ok || !okBase {
		b.Fatal("not filtered")
	}
	for b.Loop() {
		b.ReportMetric(float64(len(delta.Encode(nil, program, [][]byte{base}, delta.Options{}))), "plain-B")
		b.ReportMetric(float64(len(delta.Encode(nil, filtered, [][]byte{filteredBase}, delta.Options{}))), "filtered-B")
		b.ReportMetric(float64(len(delta.Encode(nil, filtered, nil, delta.Options{}))), "alone-B")
	}
}
