package source

import (
	"cmp"
	"errors"
	"fmt"
	"go/version"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
)

// maxVersionFile is more than any VERSION file has.
const maxVersionFile = 64 << 10

// ParseVersion finds the release in the content of a VERSION file: "1.23.3"
// where its first line is "go1.23.3".
func ParseVersion(file []byte) (string, error) {
	line, _, _ := strings.Cut(string(file), "\n")
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "devel") {
		return "", fmt.Errorf("VERSION says %s: a development build has no release name (give one with --as)", short(line))
	}
	// Builds with experiments or of vendors append words: "go1.22.1 X:foo".
	word, _, _ := strings.Cut(line, " ")
	v, ok := strings.CutPrefix(word, "go")
	if !ok || !version.IsValid(word) || checkPath(v) != "" || strings.Contains(v, "/") {
		return "", fmt.Errorf("VERSION does not name a release: its first line is %s", short(line))
	}
	return v, nil
}

// VersionTime finds the "time" line that VERSION has had since Go 1.21. It is
// the time stamp of every file of the release.
func VersionTime(file []byte) (time.Time, bool) {
	for line := range strings.Lines(string(file)) {
		if v, ok := strings.CutPrefix(line, "time "); ok {
			t, err := time.Parse(time.RFC3339, strings.TrimSpace(v))
			if err != nil || t.Year() < 1980 || t.Year() > 2200 {
				return time.Time{}, false
			}
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

var (
	versionRE  = `([1-9][0-9]{0,3}(?:\.(?:0|[1-9][0-9]{0,3})){0,2}(?:(?:rc|beta)[1-9][0-9]{0,3})?)`
	platformRE = `([a-z][a-z0-9]{0,19}-[a-z0-9]{1,20})`

	// Compiled when first used: together they would cost every start of gofs,
	// the go launcher too, 0.2 ms.
	releaseRE = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^go` + versionRE + `\.` + platformRE + `$`)
	})
	requestRE = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:(?:go)?` + versionRE + `|(stable|latest|oldstable))(?:\.` + platformRE + `)?$`)
	})
)

// splitRelease takes apart "go1.23.3.linux-amd64".
func splitRelease(s string) (v, platform string, ok bool) {
	m := releaseRE().FindStringSubmatch(s)
	if m == nil || !version.IsValid("go"+m[1]) {
		return "", "", false
	}
	// Tarballs for GOARCH=arm are called after what GOARM they are for.
	return m[1], strings.TrimSuffix(m[2], "v6l"), true
}

// request is a version as a user asks for it.
type request struct {
	version  string // "1.23.3", "1.23", oldstable, or "" for the newest stable one
	platform string
}

// parseRequest tells whether arg is a version, and which.
func parseRequest(arg, platform string) (request, bool) {
	m := requestRE().FindStringSubmatch(arg)
	if m == nil || m[2] == "" && !version.IsValid("go"+m[1]) {
		return request{}, false
	}
	if m[3] != "" {
		platform = m[3]
	}
	if m[2] == oldstable {
		return request{oldstable, platform}, true
	}
	return request{m[1], platform}, true
}

// oldstable is the newest patch of the minor before the newest.
const oldstable = "oldstable"

// line tells whether the request is for the newest release of a line, as
// "1.23" is. Until Go 1.20 the first release of a line was called like the
// line itself, and a real release beats an alias.
func (r request) line() bool {
	return r.version == "" || version.Lang("go"+r.version) == "go"+r.version && compareVersions(r.version, "1.21") >= 0
}

const modulePrefix = "v0.0.1-"

// moduleVersion is the version of the toolchain module for a release.
func moduleVersion(v, platform string) string {
	return modulePrefix + "go" + v + "." + platform
}

// Toolchain is the module that a release is published as: its zip, and its
// line in the checksum database.
func Toolchain(v, platform string) module.Version {
	return module.Version{Path: modulePath, Version: moduleVersion(v, platform)}
}

func compareVersions(a, b string) int { return version.Compare("go"+a, "go"+b) }

// Remote is a release that can be fetched by its name.
type Remote struct {
	Version  string // as in "1.23.3"
	Platform string // as in "linux-amd64"
	Stable   bool   // neither beta nor release candidate
	SHA256   string // of the archive, "" if the list does not say
	Size     int64  // of the archive in bytes, -1 if the list does not say

	file string // name of the archive in the download list
}

func compareRemotes(a, b Remote) int {
	return cmp.Or(compareVersions(a.Version, b.Version), cmp.Compare(a.Platform, b.Platform))
}

func isStable(v string) bool { return !strings.ContainsAny(v, "rb") }

var errUnknown = errors.New("not there") // the release, as far as one origin knows
