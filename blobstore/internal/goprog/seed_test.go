package goprog

import (
	"bytes"
	"debug/elf"
	"testing"

	"gofs/internal/goprogtest"
)

// seeds makes small programs that have something of everything the filter looks at.
func seeds(t testing.TB, add func([]byte)) {
	for _, m := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
		add(goprogtest.Tiny(m, 0))
	}
	add([]byte("\x7fELF"))
	add(nil)
}

func TestTiny(t *testing.T) {
	for _, m := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
		b := goprogtest.Tiny(m, 0)
		roundTrip(t, m.String(), b)
		filtered, _ := Forward(b)
		if bytes.Contains(filtered, b[64:64+5]) {
			t.Errorf("%v: the first call is as it was", m)
		}
	}
}
