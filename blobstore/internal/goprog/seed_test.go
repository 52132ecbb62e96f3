package goprog

import (
	"bytes"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"gofs/internal/goprogtest"
)

// tiny are small programs that have something of everything the filter looks at.
var tiny = []struct {
	name string
	make func(elf.Machine, byte) []byte
}{{"ELF", goprogtest.Tiny}, {"ELF with DWARF", goprogtest.TinyDWARF}, {"Mach-O", goprogtest.TinyMachO}, {"PE", goprogtest.TinyPE}}

func seeds(t testing.TB, add func([]byte)) {
	for _, c := range tiny {
		for _, m := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
			add(c.make(m, 0))
		}
	}
	add([]byte("\x7fELF"))
	add(nil)
}

func TestTiny(t *testing.T) {
	for _, c := range tiny {
		for _, m := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
			b := c.make(m, 0)
			roundTrip(t, c.name+m.String(), b)
			filtered, _ := Forward(b, limitOf(b))
			img, err := parse(b)
			if err != nil {
				t.Fatal(err)
			}
			code := img.section(".text")
			if bytes.Contains(filtered, b[code.off:code.off+5]) {
				t.Errorf("%s, %v: the first call is as it was", c.name, m)
			}
		}
	}
}

// TestTinyIsWell lets the packages that are made for it read the tiny programs.
func TestTinyIsWell(t *testing.T) {
	if f, err := macho.NewFile(bytes.NewReader(goprogtest.TinyMachO(elf.EM_AARCH64, 0))); err != nil {
		t.Error(err)
	} else if len(f.Symtab.Syms) != 7 || len(f.Sections) != 4 {
		t.Errorf("%d symbols, %d sections", len(f.Symtab.Syms), len(f.Sections))
	}
	if f, err := pe.NewFile(bytes.NewReader(goprogtest.TinyPE(elf.EM_X86_64, 0))); err != nil {
		t.Error(err)
	} else if len(f.Symbols) != 9 || len(f.Sections) != 6 {
		t.Errorf("%d symbols, %d sections", len(f.Symbols), len(f.Sections))
	}
}

// tables filters only what lies in tables of their own.
func tables(t *testing.T, b []byte) (*image, []byte) {
	t.Helper()
	img, err := parse(bytes.Clone(b))
	if err != nil {
		t.Fatal(err)
	}
	img.hashes.filter(img.b)
	out, err := img.takeTables()
	if err != nil {
		t.Fatal(err)
	}
	return img, out
}

// TestTablesMove moves everything and sees what is written of that.
func TestTablesMove(t *testing.T) {
	t.Run("Mach-O", func(t *testing.T) {
		img, out := tables(t, goprogtest.TinyMachO(elf.EM_AARCH64, 0))
		if !bytes.Equal(img.b[img.hashes.off:][:32], make([]byte, 32)) {
			t.Error("the hash of a page is not what it should be")
		}
		// go:func.*, main.a, main.b, main.data, runtime.text, runtime.types: only those without one below
		// in their section keep their addresses.
		v := img.valued()
		var got []uint64
		for i := range v.entries {
			got = append(got, v.value(i))
		}
		if want := []uint64{96, 0x401000, 64, 0x404000, 0, 0x402000}; !slices.Equal(got, want) {
			t.Errorf("values %#x, want %#x", got, want)
		}
		if len(out) != 1+4*6 {
			t.Errorf("%d bytes of order", len(out))
		}
	})
	t.Run("PE", func(t *testing.T) {
		img, _ := tables(t, goprogtest.TinyPE(elf.EM_X86_64, 0))
		want := []byte("\x00\x10\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00")
		if got := img.bytes(&img.unwind); !bytes.Equal(got, want) {
			t.Errorf(".pdata is %x, want %x", got, want)
		}
		if b := img.bytes(&img.relocs); !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf(".reloc is %x", b)
		}
	})
}

func TestHostileOrder(t *testing.T) {
	img, _ := tables(t, goprogtest.TinyMachO(elf.EM_AARCH64, 0))
	img.filterNames(true)
	v := img.valued()
	n := len(v.entries)
	word := func(i int, w uint32) []byte {
		order := bytes.Repeat([]byte{belowIsNone, 0, 0, 0}, n)
		binary.LittleEndian.PutUint32(order[4*i:], w)
		return order
	}
	circle := word(1, labelBase|v.label[2])
	binary.LittleEndian.PutUint32(circle[8:], labelBase|v.label[1])
	for _, c := range []struct {
		name  string
		order []byte
	}{
		{"short", word(0, belowIsNone)[4:]},
		{"long", append(word(0, belowIsNone), 1, 0, 0, 0)},
		{"itself", word(1, labelBase|v.label[1])},
		{"circle", circle},
		{"none before", word(0, belowIsLast)},
		{"no label", word(1, 2)},
		{"label of none", word(1, labelBase|(v.label[1]^1))},
	} {
		if err := v.putOrder(c.order); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestHostileRelocs(t *testing.T) {
	for _, c := range []struct {
		name string
		room int
		list []byte
		ok   bool
	}{
		{"none", 0, nil, true},
		{"one", 10, []byte{2, 0}, true},
		{"one, filled up", 12, []byte{4, 0}, true},
		{"no room for a block", 9, []byte{2, 0}, false},
		{"no room for the second", 11, []byte{2, 0, 0}, false},
		{"cut", 100, []byte{2, 0x80}, false},
		{"other alignment", 100, []byte{3, 0}, false},
	} {
		if ok := putRelocs(make([]byte, c.room), c.list); ok != c.ok {
			t.Errorf("%s: %v", c.name, ok)
		}
	}
}
