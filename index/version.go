package index

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"hash/crc32"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"gofs/blobstore"
)

// Version is a release in the store.
type Version struct {
	Name       string       `json:"name"`                 // folder in the mount: 1.23.3, 1.23.3.darwin-arm64 or a name of choice
	Release    string       `json:"release"`              // as in its VERSION file, without "go": 1.23.3
	Platform   string       `json:"platform"`             // GOOS-GOARCH
	Tree       blobstore.ID `json:"tree"`                 // the blob that holds the tree; the tree hash
	Time       int64        `json:"time"`                 // when it was released, Unix seconds; the mtime of its folders
	Source     string       `json:"source,omitempty"`     // where it was imported from
	SHA256     string       `json:"sha256,omitempty"`     // of the archive it was imported from, hexadecimal
	H1         string       `json:"h1,omitempty"`         // of the toolchain module its files make, as go.sum writes it
	Provenance string       `json:"provenance,omitempty"` // what proved H1: "sumdb NAME", or "unverified"
	Imported   time.Time    `json:"imported"`
	Generation uint64       `json:"generation"` // of the commit that brought it
	Files      int          `json:"files"`      // and symbolic links
	Folders    int          `json:"folders"`
	Bytes      int64        `json:"bytes"`               // of all files
	New        int64        `json:"new"`                 // of these, bytes that no version before it had
	RootNode   uint64       `json:"root_node,omitempty"` // inode number of its root folder
}

// HostPlatform is the GOOS-GOARCH of this machine, which names of versions
// leave out.
func HostPlatform() string { return runtime.GOOS + "-" + runtime.GOARCH }

// VersionName is the folder name of a release: the release without "go", and
// the platform as a suffix unless it is this machine's.
func VersionName(release, platform string) string {
	if platform == "" || platform == HostPlatform() {
		return release
	}
	return release + "." + platform
}

// maxName bounds a name in bytes. In the expression it would cost every start
// of gofs, the go launcher too, 0.6 ms.
const maxName = 128

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// ErrName is returned for a name that a version cannot have.
var ErrName = errors.New("not a name for a version")

// CheckName says whether a version can have a name. "bin" and "latest" are
// the mount's own.
func CheckName(name string) error {
	if len(name) > maxName || !nameForm.MatchString(name) || name == "bin" || name == "latest" {
		return fmt.Errorf("%q: %w: letters, digits and . _ + - after a letter or digit, and neither bin nor latest", name, ErrName)
	}
	return nil
}

// CompareNames orders versions as releases are ordered (1.9 before 1.10,
// 1.24rc1 before 1.24.0) and other names after them.
func CompareNames(a, b string) int {
	va, vb := "go"+a, "go"+b
	oka, okb := version.IsValid(va), version.IsValid(vb)
	switch {
	case oka && okb:
		return cmp.Or(version.Compare(va, vb), strings.Compare(a, b))
	case oka != okb:
		if oka {
			return -1
		}
		return 1
	}
	ra, rb := releasePart(a), releasePart(b)
	return cmp.Or(version.Compare(ra, rb), strings.Compare(a, b))
}

// releasePart is the release that a name like 1.23.3.darwin-arm64 begins with.
func releasePart(name string) string {
	for i := strings.LastIndexByte(name, '.'); i > 0; i = strings.LastIndexByte(name[:i], '.') {
		if v := "go" + name[:i]; version.IsValid(v) {
			return v
		}
	}
	return ""
}

// Alias is another name that a mount shows for a version.
type Alias struct {
	Name    string // 1.23, latest
	Version string
}

// Aliases lists the aliases of the versions, sorted by name: for each minor
// release the newest patch, and "latest" for the newest release of all. A
// version of an alias's name takes its place, and prereleases count only
// where there is nothing else.
func Aliases(versions []Version) []Alias {
	names := map[string]bool{}
	best := map[string]string{}
	for _, v := range versions {
		names[v.Name] = true
	}
	for _, v := range versions {
		// Names of choice and foreign platforms are not what an alias means.
		if v.Name != v.Release || !version.IsValid("go"+v.Name) || v.Platform != HostPlatform() {
			continue
		}
		for _, alias := range []string{strings.TrimPrefix(version.Lang("go"+v.Name), "go"), "latest"} {
			if prerelease(v.Name) && alias != "latest" {
				continue
			}
			old, ok := best[alias]
			if !ok || prerelease(old) && !prerelease(v.Name) ||
				prerelease(old) == prerelease(v.Name) && version.Compare("go"+v.Name, "go"+old) > 0 {
				best[alias] = v.Name
			}
		}
	}
	var list []Alias
	for alias, name := range best {
		if !names[alias] {
			list = append(list, Alias{alias, name})
		}
	}
	slices.SortFunc(list, func(a, b Alias) int { return CompareNames(a.Name, b.Name) })
	return list
}

// prerelease tells 1.24rc1 from 1.24.0; 1.20 is a release of its own.
func prerelease(release string) bool {
	return strings.ContainsAny(release, "abcdefghijklmnopqrstuvwxyz")
}

// Resolve finds the version that a name or an alias means; a leading "go" is
// passed over.
func Resolve(versions []Version, name string) (*Version, bool) {
	find := func(name string) (*Version, bool) {
		i := slices.IndexFunc(versions, func(v Version) bool { return v.Name == name })
		if i < 0 {
			return nil, false
		}
		return &versions[i], true
	}
	if v, ok := find(name); ok {
		return v, true
	}
	name = strings.TrimPrefix(name, "go")
	if v, ok := find(name); ok {
		return v, true
	}
	for _, a := range Aliases(versions) {
		if a.Name == name {
			return find(a.Version)
		}
	}
	return nil, false
}

// ErrSealed is returned for a value of the database whose checksum is wrong.
var ErrSealed = fmt.Errorf("checksum: %w", ErrIndex)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func unseal(b []byte) ([]byte, error) {
	if len(b) < 4 || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, ErrSealed
	}
	return b[:len(b)-4], nil
}

func encodeVersion(v *Version) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return seal(b), nil
}

func decodeVersion(name string, b []byte) (v Version, err error) {
	if b, err = unseal(b); err == nil {
		err = json.Unmarshal(b, &v)
	}
	switch {
	case errors.Is(err, ErrIndex):
		return v, fmt.Errorf("version %q: %w", name, err)
	case err != nil || v.Name != name || CheckName(name) != nil || v.RootNode < firstNode || v.RootNode >= MaxNode ||
		v.Files < 0 || v.Folders < 0 || v.Bytes < 0 || v.New < 0:
		return v, fmt.Errorf("version %q: %w", name, ErrIndex)
	}
	return v, nil
}

// Node is the inode of a file or symbolic link.
type Node struct {
	Number uint64
	MTime  int64 // Unix seconds
}

// MaxNode bounds inode numbers from the index, so that mounts can have
// numbers of their own above it.
const MaxNode = 1 << 48

func encodeNodes(nodes []Node) []byte {
	var times []int64
	index := map[int64]int{}
	for _, n := range nodes {
		if _, ok := index[n.MTime]; !ok {
			index[n.MTime] = len(times)
			times = append(times, n.MTime)
		}
	}
	b := binary.AppendUvarint(nil, uint64(len(times)))
	for _, t := range times {
		b = binary.AppendVarint(b, t)
	}
	last := uint64(0)
	for _, n := range nodes {
		b = binary.AppendVarint(b, int64(n.Number-last))
		b = binary.AppendUvarint(b, uint64(index[n.MTime]))
		last = n.Number
	}
	return seal(b)
}

// decodeNodes reads the nodes of a tree with want files and links.
func decodeNodes(b []byte, want int) ([]Node, error) {
	b, err := unseal(b)
	if err != nil {
		return nil, err
	}
	d := numbers{b: b}
	times := make([]int64, d.upTo(uint64(len(b))))
	for i := range times {
		times[i] = d.signed()
	}
	if d.err != nil || 2*want > len(d.b) {
		return nil, ErrSealed
	}
	nodes := make([]Node, want)
	last := uint64(0)
	for i := range nodes {
		last += uint64(d.signed())
		t := d.upTo(uint64(len(times)))
		if d.err != nil || last < firstNode || last >= MaxNode || t >= uint64(len(times)) {
			return nil, ErrSealed
		}
		nodes[i] = Node{last, times[t]}
	}
	if len(d.b) != 0 {
		return nil, ErrSealed
	}
	return nodes, nil
}

// VersionRecord is the description of a version as the packs keep it: what is
// the store's own, its inode numbers, is left out. It is the same before and
// after the version went through the database.
func VersionRecord(v *Version) ([]byte, error) {
	w := *v
	w.RootNode = 0
	// In a path that is not UTF-8, JSON replaces what is not, and writes that
	// otherwise than what it would be read back as.
	w.Source = string([]rune(w.Source))
	return json.Marshal(&w)
}
