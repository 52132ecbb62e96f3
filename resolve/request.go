package resolve

import (
	"fmt"
	"go/version"
	"regexp"
	"slices"
	"strings"
	"sync"
)

type kind int

const (
	exact     kind = iota // one release
	minor                 // any release of a minor
	minimum               // a go line
	span                  // a range
	stable                // the newest
	oldstable             // the newest of the minor before
	named                 // a name in the mount
)

// Request is a version as somebody asked for it.
type Request struct {
	kind           kind
	text           string
	lo, hi         string // bounds without "go"; "" is none
	loOpen, hiOpen bool   // the bound itself is left out
	not            []string
}

// String is the request as it was written, a minimum with ">=" before it.
func (q Request) String() string {
	if q.kind == minimum {
		return ">=" + q.lo
	}
	return q.text
}

// Exact reports whether the request names one release and no other.
func (q Request) Exact() bool { return q.kind == exact || q.kind == named }

// IsMinimum reports whether the request is a go line, which any newer release
// satisfies.
func (q Request) IsMinimum() bool { return q.kind == minimum }

// Minimum returns the version that a release must at least be, "" when the
// request sets no lower bound.
func (q Request) Minimum() string { return q.lo }

// Compiled when first used: the launcher of go seldom needs them, and pays
// for every microsecond before main.
var (
	nameRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`) })
	opRE   = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(>=|<=|!=|==|[<>=~^])\s*([^\s,<>=!~^]+)[\s,]*`)
	})
)

// Parse reads a version in one of the forms that the package comment lists.
func Parse(text string) (Request, error) {
	text = strings.TrimSpace(text)
	bare := cutPrefix(text)
	switch {
	case text == "":
		return Request{}, fmt.Errorf("no version given")
	case text == "stable" || text == "latest":
		return Request{kind: stable, text: text}, nil
	case text == "oldstable":
		return Request{kind: oldstable, text: text}, nil
	case strings.HasPrefix(text, "latest:"):
		return Parse(strings.TrimPrefix(text, "latest:"))
	case strings.ContainsAny(text, "<>=~^!"):
		return parseSpan(text)
	case bare == "1" || bare == "1.x" || bare == "1.x.x":
		return Request{kind: span, text: text, lo: "1", hi: "2", hiOpen: true}, nil
	case strings.HasSuffix(bare, ".x") && valid(strings.TrimSuffix(bare, ".x")):
		return minorOf(strings.TrimSuffix(bare, ".x"), bare), nil
	case valid(bare) && isLang(bare):
		return minorOf(bare, bare), nil
	case valid(bare):
		return Request{kind: exact, text: bare, lo: bare, hi: bare}, nil
	case nameRE().MatchString(text):
		return Request{kind: named, text: text}, nil
	}
	return Request{}, fmt.Errorf("%q is not a Go version (like 1.23, 1.23.3, 1.24rc1, stable or '>=1.22 <1.24')", text)
}

// atLeast is the request of a go line.
func atLeast(v string) Request { return Request{kind: minimum, text: v, lo: v} }

// minorOf is the request for any release of the minor that v begins.
func minorOf(v, text string) Request {
	return Request{kind: minor, text: text, lo: v, hi: next(v), hiOpen: true}
}

func parseSpan(text string) (Request, error) {
	q := Request{kind: span, text: text}
	for rest := text; rest != ""; {
		m := opRE().FindStringSubmatch(rest)
		if m == nil || !valid(cutPrefix(m[2])) {
			return Request{}, fmt.Errorf("%q is not a range of Go versions (like '>=1.22 <1.24')", text)
		}
		rest = rest[len(m[0]):]
		v := cutPrefix(m[2])
		switch m[1] {
		case ">=":
			q.above(v, false)
		case ">":
			q.above(v, true)
		case "<=":
			q.below(v, false)
		case "<":
			q.below(v, true)
		case "!=":
			q.not = append(q.not, v)
		case "^":
			q.above(v, false)
			q.below("2", true)
		case "~":
			q.above(v, false)
			q.below(next(v), true)
		default: // = and ==
			q.above(v, false)
			if isLang(v) {
				q.below(next(v), true)
			} else {
				q.below(v, false)
			}
		}
	}
	return q, nil
}

// above raises the lower bound to v.
func (q *Request) above(v string, open bool) {
	if c := compare(v, q.lo); q.lo == "" || c > 0 || c == 0 && open {
		q.lo, q.loOpen = v, open
	}
}

// below lowers the upper bound to v.
func (q *Request) below(v string, open bool) {
	if c := compare(v, q.hi); q.hi == "" || c < 0 || c == 0 && open {
		q.hi, q.hiOpen = v, open
	}
}

// allows reports whether rel is within the bounds. A request for a name sets
// none.
func (q Request) allows(rel Release) bool {
	v := rel.Version
	if q.kind == named {
		return rel.Name == q.text
	}
	if c := compare(v, q.lo); q.lo != "" && (c < 0 || c == 0 && q.loOpen) {
		return false
	}
	if c := compare(v, q.hi); q.hi != "" && (c > 0 || c == 0 && q.hiOpen) {
		return false
	}
	return !slices.ContainsFunc(q.not, func(n string) bool { return compare(v, n) == 0 })
}

// Allows reports whether a release of this version satisfies the request.
func (q Request) Allows(v string) bool { return q.allows(Release{Name: v, Version: v}) }

// overlaps reports whether some release could satisfy q and p.
func (q Request) overlaps(p Request) bool {
	if q.kind == exact {
		return p.kind == named || p.Allows(q.lo)
	}
	if p.kind == exact {
		return q.kind == named || q.Allows(p.lo)
	}
	if q.kind == named && p.kind == named {
		return q.text == p.text
	}
	return before(q.lo, p.hi, q.loOpen || p.hiOpen) && before(p.lo, q.hi, p.loOpen || q.hiOpen)
}

// before reports whether a lower bound leaves room under an upper one.
func before(lo, hi string, open bool) bool {
	if lo == "" || hi == "" {
		return true
	}
	c := compare(lo, hi)
	return c < 0 || c == 0 && !open
}

// choose picks from the releases that fit.
func (q Request) choose(fit []Release) (Release, bool) {
	if len(fit) == 0 {
		return Release{}, false
	}
	fit = slices.Clone(fit)
	slices.SortFunc(fit, func(a, b Release) int { return compare(b.Version, a.Version) })
	final := slices.DeleteFunc(slices.Clone(fit), func(r Release) bool { return Prerelease(r.Version) })
	switch q.kind {
	case minimum:
		return q.chooseMinimum(fit, final)
	case minor:
		// 1.20 is a release; 1.21 is none, so nothing carries that version.
		for _, r := range fit {
			if r.Version == q.lo {
				return r, true
			}
		}
	case oldstable:
		if len(final) == 0 {
			return Release{}, false
		}
		for _, r := range final {
			if Minor(r.Version) != Minor(final[0].Version) {
				return r, true
			}
		}
		return Release{}, false
	}
	if len(final) > 0 {
		return final[0], true
	}
	return fit[0], true
}

// chooseMinimum prefers the newest release of the minor that was asked for,
// then the least newer one; prereleases come last unless one was asked for.
// Both lists are sorted, the newest first.
func (q Request) chooseMinimum(fit, final []Release) (Release, bool) {
	lists := [][]Release{final, fit}
	if Prerelease(q.lo) {
		lists = [][]Release{fit}
	}
	for _, list := range lists {
		for _, r := range list {
			if Minor(r.Version) == Minor(q.lo) {
				return r, true
			}
		}
		if Prerelease(q.lo) && len(final) > 0 {
			list = final
		}
		if len(list) > 0 {
			return list[len(list)-1], true
		}
	}
	return Release{}, false
}

// importName is what gofs import has to be given to satisfy the request.
func (q Request) importName() string {
	switch {
	case q.kind == named || q.kind == exact || q.kind == stable || q.kind == oldstable:
		return q.text
	case q.kind == minimum || q.kind == minor || q.lo != "" && q.lo != "1" && !q.loOpen:
		return strings.TrimSuffix(q.lo, ".x")
	case q.hi != "":
		return highest(q.hi, q.hiOpen)
	}
	return "stable"
}

// highest is the version to import below the bound hi.
func highest(hi string, open bool) string {
	if !open && !isLang(hi) {
		return hi
	}
	var major, minor, patch int
	switch n, _ := fmt.Sscanf(hi, "%d.%d.%d", &major, &minor, &patch); {
	case n == 3 && patch > 0:
		return fmt.Sprintf("%d.%d.%d", major, minor, patch-1)
	case n >= 2 && minor > 0:
		return fmt.Sprintf("%d.%d", major, minor-1)
	}
	return "stable"
}

// release reports whether the minimum is a release rather than a language
// version.
func (q Request) release() bool { return !isLang(q.lo) || compare(q.lo, "1.21") < 0 }

// Compare orders two versions without "go" as go/version does.
func Compare(a, b string) int { return compare(a, b) }

func compare(a, b string) int { return version.Compare("go"+a, "go"+b) }

// Minor returns the minor of a version: 1.23 for 1.23.3.
func Minor(v string) string { return strings.TrimPrefix(version.Lang("go"+v), "go") }

// Prerelease reports whether v is a beta or a release candidate.
func Prerelease(v string) bool { return strings.ContainsAny(v, "abr") && valid(v) }

// valid reports whether v is a version of Go without prefix and suffix.
func valid(v string) bool { return version.IsValid("go"+v) && !strings.ContainsAny(v, "- ") }

// isLang reports whether v has a major and a minor number only.
func isLang(v string) bool { return version.Lang("go"+v) == "go"+v }

// cutPrefix takes "go" or "v" away from a version.
func cutPrefix(v string) string {
	for _, p := range []string{"go", "v"} {
		if rest, ok := strings.CutPrefix(v, p); ok && valid(strings.TrimSuffix(rest, ".x")) {
			return rest
		}
	}
	return v
}

// next returns the version that begins the minor after that of v.
func next(v string) string {
	var major, minor int
	if n, _ := fmt.Sscanf(v, "%d.%d", &major, &minor); n < 2 {
		return fmt.Sprint(major + 1)
	}
	return fmt.Sprintf("%d.%d", major, minor+1)
}
