package source

import (
	"errors"
	"strings"
	"testing"
)

// wantError checks that err is one of the sentinels and one line.
func wantError(t testing.TB, err error, sentinels ...error) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v", sentinels)
	}
	if strings.ContainsAny(err.Error(), "\n\x00") {
		t.Errorf("error is not one line: %q", err)
	}
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return
		}
	}
	t.Fatalf("error %q is none of %v", err, sentinels)
}
