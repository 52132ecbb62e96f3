package index

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"1.23.3", "1.20", "1.24rc1", "1.23.3.darwin-arm64", "go1.23", "mine_2+x", "a", strings.Repeat("n", 128)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".hidden", "-x", "a/b", "a b", "a\x00", "a\n", "bin", "latest", "ü", strings.Repeat("n", 129)} {
		if err := CheckName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestVersionName(t *testing.T) {
	for _, test := range []struct{ release, platform, want string }{
		{"1.23.3", HostPlatform(), "1.23.3"},
		{"1.23.3", "", "1.23.3"},
		{"1.23.3", "plan9-mips", "1.23.3.plan9-mips"},
		{"1.24rc1", "plan9-mips", "1.24rc1.plan9-mips"},
	} {
		if got := VersionName(test.release, test.platform); got != test.want {
			t.Errorf("%s for %s is %s", test.release, test.platform, got)
		}
	}
}

func TestCompareNames(t *testing.T) {
	sorted := []string{
		"1.2.2", "1.9", "1.10", "1.20rc1", "1.20", "1.20.1", "1.20.14", "1.21rc2", "1.21.0", "1.24rc1", "1.24.0", "1.24.1",
		"mine", "other", "1.9.1.plan9-mips", "1.20.plan9-mips", "1.23.3.darwin-arm64", "1.23.3.linux-arm64", "1.23.10.darwin-arm64",
	}
	for i, a := range sorted {
		for j, b := range sorted {
			got := CompareNames(a, b)
			if want := i - j; (got < 0) != (want < 0) || (got > 0) != (want > 0) {
				t.Errorf("%s and %s compare as %d", a, b, got)
			}
		}
	}
}

// versions makes versions of this machine from their names; "NAME=RELEASE" is
// one with a name of choice and "RELEASE.GOOS-GOARCH" one of another platform.
func versions(names ...string) (list []Version) {
	for _, name := range names {
		v := Version{Name: name, Release: name, Platform: HostPlatform()}
		if as, release, ok := strings.Cut(name, "="); ok {
			v.Name, v.Release = as, release
		} else if release, ok := strings.CutSuffix(name, ".plan9-mips"); ok {
			v.Release, v.Platform = release, "plan9-mips"
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b Version) int { return CompareNames(a.Name, b.Name) })
	return list
}

func TestAliases(t *testing.T) {
	for _, test := range []struct{ have, want string }{
		{"", ""},
		{"1.23.3", "1.23=1.23.3 latest=1.23.3"},
		{"1.23.3 1.23.12 1.22.8", "1.22=1.22.8 1.23=1.23.12 latest=1.23.12"},
		{"1.20 1.20.14", "latest=1.20.14"}, // 1.20 is a release of its own
		{"1.20.14", "1.20=1.20.14 latest=1.20.14"},
		{"1.20", "latest=1.20"},
		{"1.24rc1", "latest=1.24rc1"},
		{"1.24rc1 1.24rc2", "latest=1.24rc2"},
		{"1.24rc1 1.23.3", "1.23=1.23.3 latest=1.23.3"},
		{"1.24rc1 1.24.0", "1.24=1.24.0 latest=1.24.0"},
		{"1.23.3.plan9-mips", ""},
		{"1.23.3.plan9-mips 1.23.1", "1.23=1.23.1 latest=1.23.1"},
		{"mine=1.25.1 1.24.0", "1.24=1.24.0 latest=1.24.0"},
		{"1.23=1.22.8 1.23.3", "latest=1.23.3"}, // a name of choice in an alias's place
	} {
		var got []string
		for _, a := range Aliases(versions(strings.Fields(test.have)...)) {
			got = append(got, a.Name+"="+a.Version)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %s, want %s", test.have, s, test.want)
		}
	}
}

func TestResolve(t *testing.T) {
	have := versions("1.20", "1.20.14", "1.22.8", "1.23.3", "1.23.12", "1.25rc1", "1.24.0.plan9-mips", "mine=1.21.0", "gopher=1.21.0", "go1.99=1.21.0")
	for name, want := range map[string]string{
		"1.20": "1.20", "1.20.14": "1.20.14", "go1.20": "1.20", "1.22": "1.22.8", "go1.22": "1.22.8", "1.23": "1.23.12", "go1.23.3": "1.23.3",
		"latest": "1.23.12", "1.25rc1": "1.25rc1", "1.24.0.plan9-mips": "1.24.0.plan9-mips", "go1.24.0.plan9-mips": "1.24.0.plan9-mips",
		"mine": "mine", "gopher": "gopher", "go1.99": "go1.99",
		"": "", "1.24": "", "1.24.0": "", "1.25": "", "1.21": "", "1": "", "go": "", "gogo1.23": "", "pher": "", "1.99": "",
	} {
		v, ok := Resolve(have, name)
		if ok != (want != "") || ok && v.Name != want {
			t.Errorf("%q is %+v, want %q", name, v, want)
		}
	}
}

func TestSealed(t *testing.T) {
	for _, want := range [][]byte{{}, {1}, []byte("some value")} {
		b := seal(slices.Clone(want))
		if got, err := unseal(b); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %q, %v", want, got, err)
		}
		for i := range b {
			bad := slices.Clone(b)
			bad[i] ^= 4
			if _, err := unseal(bad); !errors.Is(err, ErrSealed) || !errors.Is(err, ErrIndex) {
				t.Errorf("%q with byte %d flipped: %v", want, i, err)
			}
			if _, err := unseal(b[:i]); !errors.Is(err, ErrSealed) {
				t.Errorf("%d bytes of %q: %v", i, want, err)
			}
		}
	}
}

func TestVersionCodec(t *testing.T) {
	v := Version{Name: "1.23.3", Release: "1.23.3", Platform: "linux-amd64", Tree: id(3), Time: 1, Source: "/a <b>\xff\xfe\u2028", Imported: time.Unix(1_800_000_000, 0).UTC(), RootNode: 5000}
	b, err := encodeVersion(&v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeVersion(v.Name, b)
	if err != nil {
		t.Fatal(err)
	}
	// The description in the packs is found again by what the index says.
	first, err1 := VersionRecord(&v)
	second, err2 := VersionRecord(&got)
	if err1 != nil || err2 != nil || !bytes.Equal(first, second) {
		t.Errorf("records %s and %s", first, second)
	}
	if bytes.Contains(first, []byte("root_node")) {
		t.Error("the record has an inode number")
	}
	got.Source = v.Source
	if !reflect.DeepEqual(got, v) {
		t.Errorf("%+v, want %+v", got, v)
	}
	for name, bad := range map[string]struct {
		key   string
		value []byte
	}{
		"another name": {"1.23.4", b},
		"no seal":      {"1.23.3", b[:len(b)-1]},
		"no JSON":      {"1.23.3", seal([]byte("{"))},
		"no name":      {"", seal([]byte("{}"))},
		"a bad name":   {"../x", seal([]byte(`{"name":"../x"}`))},
	} {
		if _, err := decodeVersion(bad.key, bad.value); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
