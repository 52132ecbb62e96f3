package launch

import (
	"testing"

	"gofs/resolve"
)

func TestMountOfBin(t *testing.T) {
	mounts := []resolve.Mount{{Dir: "/gofs"}, {Dir: "/other"}}
	for dir, want := range map[string]string{"/other/bin": "/other", "/gofs/bin": "/gofs", "/usr/bin": "", "/gofs": "", "/gofs/1.23.3/bin": ""} {
		if got := mountOfBin(dir, mounts); got != want {
			t.Errorf("mountOfBin(%s) = %q, want %q", dir, got, want)
		}
	}
}
