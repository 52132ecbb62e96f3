package hostile

import (
	"flag"
	"testing"
)

var update = flag.Bool("update", false, "make the corpus anew")

// maxCase bounds a file of the corpus, in bytes.
const maxCase = 256 << 10

func TestCorpus(t *testing.T) {
	for kind, make := range map[string]func() []Case{"archives": archives, "stores": stores} {
		if *update {
			if err := write(kind, make()); err != nil {
				t.Fatal(err)
			}
		}
		list, err := read(kind)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{}
		total := 0
		for _, c := range list {
			names[c.Name] = c.Want
			if total += len(c.Data); len(c.Data) > maxCase {
				t.Errorf("%s has %d bytes", c.Name, len(c.Data))
			}
		}
		t.Logf("%d %s, %d bytes", len(list), kind, total)
		if testing.Short() {
			continue
		}
		// What is in testdata is what the generator makes.
		for _, c := range make() {
			want, ok := names[c.Name]
			if !ok || want != c.Want {
				t.Errorf("%s: in testdata %q, made %q (-update)", c.Name, want, c.Want)
			}
			delete(names, c.Name)
		}
		for name := range names {
			t.Errorf("%s is not made any more (-update)", name)
		}
	}
}
