// Package testrelease provides real Go releases to tests, as the archives
// that users have.
//
// They are taken from the folder that $GOFS_TEST_TOOLCHAINS names, as
// go1.23.3.linux-amd64.tar.gz and .zip. What is not there is fetched once
// with the go command, from the module proxy it is configured for, and kept
// in gofs-test in the user's cache folder.
package testrelease

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Platform is that of all releases here.
const Platform = "linux-amd64"

// Tarball is the path of a release's tarball, version as in "1.23.3". It has
// what the published one has except api, doc, misc and test.
func Tarball(t testing.TB, version string) string {
	t.Helper()
	return find(t, version, ".tar.gz", func(out string) error {
		return makeTarball(Zip(t, version), out)
	})
}

// Zip is the path of the zip of a release's toolchain module.
func Zip(t testing.TB, version string) string {
	t.Helper()
	return find(t, version, ".zip", func(out string) error {
		return fetchZip(version, out)
	})
}

// find returns the release's file with extension ext, made if need be.
func find(t testing.TB, version, ext string, produce func(out string) error) string {
	t.Helper()
	file := "go" + version + "." + Platform + ext
	if dir := os.Getenv("GOFS_TEST_TOOLCHAINS"); dir != "" {
		if fi, err := os.Stat(filepath.Join(dir, file)); err == nil && fi.Size() > 0 {
			return filepath.Join(dir, file)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("a place for test releases: %v", err)
	}
	dir := filepath.Join(cache, "gofs-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("a place for test releases: %v", err)
	}
	out := filepath.Join(dir, file)
	if err := once(out, produce); err != nil {
		t.Fatalf("test release %s: %v", file, err)
	}
	return out
}

// once makes out unless it is there, though several test binaries want it at
// the same time.
func once(out string, produce func(out string) error) error {
	lock, err := os.OpenFile(out+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if _, err := os.Stat(out); err == nil {
		return nil
	}
	tmp := out + ".tmp"
	if err := produce(tmp); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, out)
}

// fetchZip has the go command fetch the toolchain module, into a module cache
// that is thrown away: it unpacks to 250 MB.
func fetchZip(version, out string) error {
	dir, err := os.MkdirTemp(filepath.Dir(out), "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "mod", "download", "-json", "golang.org/toolchain@v0.0.1-go"+version+"."+Platform)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir, "GOFLAGS=-modcacherw", "GOTOOLCHAIN=local", "GOWORK=off",
		"GOMODCACHE="+filepath.Join(dir, "mod"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	var got struct{ Zip, Error string }
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil || got.Error != "" || runErr != nil {
		return fmt.Errorf("%s: %v %s %s", cmd, runErr, got.Error, stderr.Bytes())
	}
	return os.Rename(got.Zip, out)
}

// makeTarball turns a module zip into the tarball of the same release by the
// rules of cmd/distpack: top folder "go/", sorted, the release's own time.
func makeTarball(module, out string) error {
	zr, err := zip.OpenReader(module)
	if err != nil {
		return err
	}
	defer zr.Close()
	files := make(map[string]*zip.File)
	var names []string
	for _, f := range zr.File {
		_, name, _ := strings.Cut(strings.TrimPrefix(f.Name, "golang.org/"), "/")
		if dir, base := path.Split(name); base == "_go.mod" {
			name = dir + "go.mod"
		}
		files[name] = f
		names = append(names, name)
	}
	slices.Sort(names)
	when, err := releaseTime(files["VERSION"])
	if err != nil {
		return err
	}

	w, err := os.Create(out)
	if err != nil {
		return err
	}
	defer w.Close()
	gz := gzip.NewWriter(w)
	tw := tar.NewWriter(gz)
	for _, name := range names {
		if err := addFile(tw, name, files[name], when); err != nil {
			return err
		}
	}
	return cmp.Or(tw.Close(), gz.Close(), w.Close())
}

func addFile(tw *tar.Writer, name string, f *zip.File, when time.Time) error {
	err := tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     "go/" + name,
		Size:     int64(f.UncompressedSize64),
		Mode:     mode(name),
		ModTime:  when,
	})
	if err != nil {
		return err
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(tw, r)
	return err
}

// releaseTime reads the "time" line that VERSION has had since Go 1.21.
func releaseTime(f *zip.File) (time.Time, error) {
	if f == nil {
		return time.Time{}, errors.New("no VERSION in the zip")
	}
	r, err := f.Open()
	if err != nil {
		return time.Time{}, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "time "); ok {
			return time.Parse(time.RFC3339, strings.TrimSpace(v))
		}
	}
	return time.Unix(0, 0).UTC(), nil
}

// mode follows the rules of cmd/distpack for a release's files.
func mode(name string) int64 {
	base := path.Base(name)
	switch {
	case strings.HasPrefix(name, "bin/"), strings.HasPrefix(name, "pkg/tool/"),
		strings.HasSuffix(name, ".bash"), strings.HasSuffix(name, ".sh"),
		strings.HasSuffix(name, ".pl"), strings.HasSuffix(name, ".rc"),
		strings.HasPrefix(base, "go_") && strings.HasSuffix(base, "_exec"):
		return 0o755
	}
	return 0o644
}
