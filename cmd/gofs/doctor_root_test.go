package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// sickRoot is a small root file system with a user in it: a mounted store,
// start-up files, caches, /proc and /sys as far as the doctor looks.
type sickRoot struct {
	t        *testing.T
	dir      string
	new, old string // the two supported minors' releases, both in /gofs
	fakego   string
}

func newSickRoot(t *testing.T, gofs, fakego string) *sickRoot {
	r := &sickRoot{t: t, dir: t.TempDir(), fakego: fakego}
	// The newest minor by the calendar of the Go project.
	minor := 21 + ((time.Now().Year()-2023)*12+int(time.Now().Month())-8)/6
	r.new, r.old = fmt.Sprintf("1.%d.3", minor), fmt.Sprintf("1.%d.7", minor-1)
	r.link(gofs, "/usr/bin/gofs")
	r.release("/gofs/"+r.new, r.new)
	r.release("/gofs/"+r.old, r.old)
	r.write("/home/u/.profile", "export PATH=/gofs/"+r.new+"/bin:/usr/bin\nexport GOFS_MOUNT=/gofs\n")
	r.write("/home/u/p/go.mod", fmt.Sprintf("module p\n\ngo 1.%d\n", minor))
	r.write("/home/u/.cache/go-build/x", "")
	r.write("/home/u/go/pkg/mod/x", "")
	r.write("/var/lib/gofs/x", "")
	r.write("/proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
	r.write("/proc/sys/kernel/osrelease", "6.18.0\n")
	r.write("/dev/null", "")
	r.symlink("/usr/bin/gofs", "/proc/self/exe")
	return r
}

func (r *sickRoot) path(name string) string { return filepath.Join(r.dir, name) }

func (r *sickRoot) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *sickRoot) write(name, text string) {
	r.t.Helper()
	r.check(os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	// What is there may be a link to a file of other tests.
	if err := os.Remove(r.path(name)); !errors.Is(err, os.ErrNotExist) {
		r.check(err)
	}
	r.check(os.WriteFile(r.path(name), []byte(text), 0o644))
}

func (r *sickRoot) append(name, text string) {
	r.t.Helper()
	data, err := os.ReadFile(r.path(name))
	if !errors.Is(err, os.ErrNotExist) {
		r.check(err)
	}
	r.write(name, string(data)+text)
}

func (r *sickRoot) link(from, name string) {
	r.t.Helper()
	r.check(os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	r.check(os.Link(from, r.path(name)))
}

func (r *sickRoot) symlink(target, name string) {
	r.t.Helper()
	r.check(os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	r.check(os.Symlink(target, r.path(name)))
}

// release makes a GOROOT of the fake go.
func (r *sickRoot) release(dir, version string) {
	r.t.Helper()
	r.write(dir+"/VERSION", "go"+version+"\n")
	for _, name := range []string{"bin/go", "pkg/tool/linux_amd64/compile", "pkg/tool/linux_amd64/link"} {
		r.link(r.fakego, filepath.Join(dir, name))
	}
}

// tmpfs mounts a small file system and fills it up.
func (r *sickRoot) tmpfs(name string) {
	r.t.Helper()
	r.check(syscall.Mount("tmpfs", r.path(name), "tmpfs", 0, "size=1m,mode=755"))
	r.t.Cleanup(func() { r.check(syscall.Unmount(r.path(name), syscall.MNT_DETACH)) })
	err := os.WriteFile(r.path(name+"/fill"), make([]byte, 2<<20), 0o644)
	if !errors.Is(err, syscall.ENOSPC) {
		r.t.Fatalf("filling a tmpfs: %v", err)
	}
}

// readOnly mounts a file system that takes nothing.
func (r *sickRoot) readOnly(name string) {
	r.t.Helper()
	r.check(os.MkdirAll(r.path(name), 0o755))
	r.check(syscall.Mount("tmpfs", r.path(name), "tmpfs", syscall.MS_RDONLY, "size=1m,mode=755"))
	r.t.Cleanup(func() { r.check(syscall.Unmount(r.path(name), syscall.MNT_DETACH)) })
}

// garble makes a program one that does not run.
func (r *sickRoot) garble(name string) {
	r.t.Helper()
	r.check(os.Remove(r.path(name)))
	r.check(os.WriteFile(r.path(name), []byte("\x7fELF, but cut off"), 0o755))
}

// large makes a file of 21 GB without a block.
func (r *sickRoot) large(name string) {
	r.t.Helper()
	r.write(name, "")
	r.check(os.Truncate(r.path(name), 21<<30))
}

// brokenDisk is the root folder of a file system that lacks something: what
// it cannot do fails with these errors.
type brokenDisk struct {
	fs.Inode
	create, readdir syscall.Errno
}

var _ interface {
	fs.NodeOnAdder
	fs.NodeCreater
	fs.NodeUnlinker
	fs.NodeOpendirer
} = (*brokenDisk)(nil)

func (d *brokenDisk) file(ctx context.Context) *fs.Inode {
	return d.NewPersistentInode(ctx, &fs.MemRegularFile{}, fs.StableAttr{})
}

func (d *brokenDisk) OnAdd(ctx context.Context) { d.AddChild("fill", d.file(ctx), false) }

// Create works after the file that uses up the quota is gone.
func (d *brokenDisk) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if d.GetChild("fill") != nil {
		return nil, nil, 0, d.create
	}
	return d.file(ctx), nil, 0, 0
}

func (d *brokenDisk) Unlink(ctx context.Context, name string) syscall.Errno { return 0 }

func (d *brokenDisk) Opendir(ctx context.Context) syscall.Errno { return d.readdir }

// broken mounts a broken disk.
func (r *sickRoot) broken(name string, disk *brokenDisk) {
	r.t.Helper()
	r.check(os.MkdirAll(r.path(name), 0o755))
	server, err := fs.Mount(r.path(name), disk, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	r.check(err)
	r.t.Cleanup(func() { r.check(server.Unmount()) })
}

// deadMount leaves a FUSE mount behind whose server is gone.
func (r *sickRoot) deadMount(name string) {
	r.t.Helper()
	r.check(syscall.Close(r.fuse(name)))
}

// silentMount leaves a FUSE mount whose server never answers.
func (r *sickRoot) silentMount(name string) {
	r.t.Helper()
	dev := r.fuse(name)
	r.t.Cleanup(func() { r.check(syscall.Close(dev)) }) // aborts what waits
}

// fuse mounts a FUSE file system and returns the device of its server.
func (r *sickRoot) fuse(name string) (dev int) {
	r.t.Helper()
	r.check(os.MkdirAll(r.path(name), 0o755))
	dev, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	r.check(err)
	data := "fd=" + strconv.Itoa(dev) + ",rootmode=40000,user_id=0,group_id=0"
	r.check(syscall.Mount("/var/lib/gofs", r.path(name), "fuse.gofs", syscall.MS_NOSUID|syscall.MS_NODEV, data))
	r.t.Cleanup(func() { _ = syscall.Unmount(r.path(name), syscall.MNT_DETACH) }) // the doctor may have
	return dev
}

// gofsMount adds a mounted store to the mount table.
func (r *sickRoot) gofsMount(dir, store, options string) {
	r.append("/proc/self/mountinfo", fmt.Sprintf("9 1 0:45 / %s ro - fuse.gofs %s ro,%s\n", dir, store, options))
}

// login reads the start-up files as the shells do, as far as the planted
// lines need it.
func (r *sickRoot) login() []string {
	env := map[string]string{"HOME": "/home/u", "PATH": "/usr/bin"}
	files := []string{".profile", ".bashrc", ".zshrc", ".config/environment.d/go.conf", ".config/fish/config.fish"}
	for i := range files {
		files[i] = "/home/u/" + files[i]
	}
	for _, file := range append([]string{"/etc/profile.d/go.sh"}, files...) {
		data, err := os.ReadFile(r.path(file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if dir, ok := strings.CutPrefix(line, "fish_add_path "); ok {
				env["PATH"] = dir + ":" + env["PATH"]
				continue
			}
			line = strings.TrimPrefix(line, "export ")
			if rest, ok := strings.CutPrefix(line, "set -gx "); ok {
				line = strings.Replace(rest, " ", "=", 1)
			}
			if k, v, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
				env[k] = os.Expand(strings.Trim(v, `"`), func(k string) string { return env[k] })
			}
		}
	}
	return environ(env).list()
}

type doctorReport struct {
	Findings []struct {
		Name, Severity, Cause, Command string
		Fixable, Fixed                 bool
	}
	Gos []struct{ Path, Kind, From string }
}

func (r *sickRoot) doctor(args ...string) (doctorReport, int) {
	r.t.Helper()
	cmd := exec.Command("/usr/bin/gofs", append([]string{"doctor", "--json"}, args...)...)
	cmd.Env = r.login()
	cmd.Dir = "/home/u/p"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir}
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	var report doctorReport
	if err := json.Unmarshal(out, &report); err != nil {
		r.t.Fatalf("doctor printed %q, %s: %v", out, errOut.String(), err)
	}
	return report, cmd.ProcessState.ExitCode()
}

// In each root one thing is wrong. The first two have the doctor wait for a
// mount, 30 s in all, in which the others have their turn.
var sicknesses = []struct {
	finding string
	plant   func(r *sickRoot)
	incurable,
	note bool
	after func(r *sickRoot) // what the kernel would do after the cure
}{
	{finding: "mount-hung", incurable: true, plant: func(r *sickRoot) {
		r.silentMount("/mnt/gofs")
		r.gofsMount("/mnt/gofs", "/var/lib/gofs", "user_id=0")
		r.append("/home/u/.profile", "export PATH=$PATH:/mnt/gofs/bin\n")
	}},
	{finding: "mount-hung", incurable: true, plant: func(r *sickRoot) {
		r.silentMount("/mnt/gofs")
		r.gofsMount("/mnt/gofs", "/var/lib/gofs", "user_id=0")
		r.append("/home/u/.profile", "export GOFS_MOUNT=/mnt/gofs\n")
	}},
	{finding: "goroot-other", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOROOT=/gofs/"+r.old+"\n") }},
	{finding: "goroot-other", plant: func(r *sickRoot) { r.append("/home/u/.config/fish/config.fish", "set -gx GOROOT /gofs/"+r.old+"\n") }},
	{finding: "goroot-other", plant: func(r *sickRoot) {
		r.append("/home/u/.config/environment.d/go.conf", "GOROOT=/gofs/"+r.old+"\n")
	}},
	{finding: "goroot-missing", plant: func(r *sickRoot) { r.append("/etc/profile.d/go.sh", "export GOROOT=/usr/local/go\n") }},
	{finding: "goroot-symlink", plant: func(r *sickRoot) {
		r.symlink("/gofs/"+r.new, "/opt/go")
		r.append("/home/u/.zshrc", "export GOROOT=/opt/go\n")
	}},
	{finding: "path-other-go", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.old)
		r.append("/home/u/.bashrc", "export PATH=/usr/local/go/bin:$PATH:/home/u/bin\n")
	}},
	{finding: "path-other-go", plant: func(r *sickRoot) {
		r.release("/home/u/sdk/go", r.old)
		r.append("/home/u/.bashrc", "export GOBASE=$HOME/sdk/go\nexport PATH=\"$GOBASE/bin:$PATH\"\n")
	}},
	{finding: "path-other-go", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.old)
		r.append("/home/u/.config/fish/config.fish", "fish_add_path /usr/local/go/bin\n")
	}},
	{finding: "path-many-gos", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.old)
		r.append("/etc/profile.d/go.sh", "export PATH=$PATH:/usr/local/go/bin\n")
		r.write("/home/u/.profile", "export PATH=/gofs/"+r.new+"/bin:$PATH\nexport GOFS_MOUNT=/gofs\n")
	}},
	{finding: "path-no-go", incurable: true, plant: func(r *sickRoot) {
		r.write("/home/u/.profile", "export GOFS_MOUNT=/gofs\n")
	}},
	{finding: "go-mixed", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.new)
		r.write("/usr/local/go/bin/go.version", r.old)
		r.append("/home/u/.profile", "export PATH=/usr/local/go/bin:/usr/bin:/gofs/"+r.new+"/bin\n")
	}},
	{finding: "tool-mismatch", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.new)
		r.write("/usr/local/go/pkg/tool/linux_amd64/compile.version", r.old)
		r.append("/home/u/.profile", "export PATH=/usr/local/go/bin:/usr/bin:/gofs/"+r.new+"/bin\n")
	}},
	{finding: "gotooldir-set", plant: func(r *sickRoot) {
		r.append("/home/u/.profile", "export GOTOOLDIR=/gofs/"+r.old+"/pkg/tool/linux_amd64\n")
	}},
	{finding: "goexperiment-set", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOEXPERIMENT=nosuch\n") }},
	{finding: "goflags-set", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOFLAGS=-mod=vendor\n") }},
	{finding: "goflags-set", plant: func(r *sickRoot) {
		r.append("/home/u/.config/go/env", "GOPROXY=off\nGOFLAGS=-toolexec=x\n")
	}},
	{finding: "gotoolchain-pinned", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOTOOLCHAIN=go1.20.14\n") }},
	{finding: "gotoolchain-pinned", plant: func(r *sickRoot) { r.append("/home/u/.config/go/env", "GOTOOLCHAIN=go1.20.14+auto\n") }},
	{finding: "not-imported", incurable: true, plant: func(r *sickRoot) { r.append("/home/u/p/go.mod", "toolchain go1.99.1\n") }},
	{finding: "rules-conflict", incurable: true, plant: func(r *sickRoot) { r.write("/home/u/p/.go-version", r.old) }},
	{finding: "rule-unreadable", incurable: true, plant: func(r *sickRoot) { r.append("/home/u/p/go.mod", "require (\n") }},
	{finding: "project-overridden", plant: func(r *sickRoot) {
		r.symlink("/usr/bin/gofs", "/shims/go")
		r.append("/home/u/.profile", "export PATH=/shims:/usr/bin\nexport GOFS_VERSION="+r.old+"\n")
	}},
	{finding: "vendor-newer", incurable: true, plant: func(r *sickRoot) {
		r.write("/home/u/p/vendor/modules.txt", "# example.com/m v1.0.0\n## explicit; go 1.99\nexample.com/m\n")
	}},
	{finding: "cgo-no-cc", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export CGO_ENABLED=1\n") }},
	{finding: "go-broken", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.new)
		r.garble("/usr/local/go/bin/go")
		r.append("/home/u/.profile", "export PATH=/usr/local/go/bin:/usr/bin:/gofs/"+r.new+"/bin\n")
	}},
	{finding: "tool-broken", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.new)
		r.garble("/usr/local/go/pkg/tool/linux_amd64/compile")
		r.append("/home/u/.profile", "export PATH=/usr/local/go/bin:/usr/bin:/gofs/"+r.new+"/bin\n")
	}},
	{finding: "tool-mismatch", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.new)
		r.write("/usr/local/go/pkg/tool/linux_amd64/link.version", r.old)
		r.append("/home/u/.profile", "export PATH=/usr/local/go/bin:/usr/bin:/gofs/"+r.new+"/bin\n")
	}},
	{finding: "project-other-go", incurable: true, plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.old)
		r.write("/home/u/.profile", "export PATH=/usr/local/go/bin:/usr/bin\n") // and nothing is mounted
	}},
	{finding: "project-other-go", plant: func(r *sickRoot) {
		r.release("/usr/local/go", r.old)
		r.release("/home/u/sdk/go", r.new)
		r.write("/home/u/.profile", "export PATH=$HOME/sdk/go/bin:/usr/bin\n")
		r.append("/home/u/.bashrc", "export PATH=/usr/local/go/bin:$PATH\n")
	}},
	{finding: "gocache-shared", plant: func(r *sickRoot) { r.check(os.Chmod(r.path("/home/u/.cache/go-build"), 0o777)) }},
	{finding: "gomodcache-shared", plant: func(r *sickRoot) { r.check(os.Chmod(r.path("/home/u/go/pkg/mod"), 0o775)) }},
	{finding: "gocache-unwritable", plant: func(r *sickRoot) { r.check(os.Chmod(r.path("/home/u/.cache/go-build"), 0o555)) }},
	{finding: "gomodcache-unwritable", plant: func(r *sickRoot) { r.check(os.Chmod(r.path("/home/u/go/pkg/mod"), 0o555)) }},
	{finding: "gomodcache-unwritable", plant: func(r *sickRoot) {
		r.readOnly("/mnt/ro")
		r.append("/home/u/.config/go/env", "GOMODCACHE=/mnt/ro\n")
	}},
	{finding: "gocache-unwritable", plant: func(r *sickRoot) {
		r.readOnly("/mnt/ro")
		r.append("/home/u/.profile", "export GOCACHE=/mnt/ro/not/there\n")
	}},
	{finding: "gocache-network", plant: func(r *sickRoot) {
		r.write("/mnt/nfs/cache/x", "")
		r.append("/proc/self/mountinfo", "7 1 0:40 / /mnt/nfs rw - nfs4 server:/x rw\n")
		r.append("/home/u/.profile", "export GOCACHE=/mnt/nfs/cache\n")
	}},
	{finding: "gomodcache-network", incurable: true, plant: func(r *sickRoot) {
		r.append("/proc/self/mountinfo", "7 1 0:40 / /home/u/go rw - nfs4 server:/x rw\n") // go's own place for it
	}},
	{finding: "gocache-full", plant: func(r *sickRoot) { r.tmpfs("/home/u/.cache/go-build") }},
	{finding: "gomodcache-full", plant: func(r *sickRoot) { r.tmpfs("/home/u/go/pkg/mod") }},
	{finding: "gocache-quota", plant: func(r *sickRoot) { r.broken("/home/u/.cache/go-build", &brokenDisk{create: syscall.EDQUOT}) }},
	{finding: "gomodcache-quota", plant: func(r *sickRoot) { r.broken("/home/u/go/pkg/mod", &brokenDisk{create: syscall.EDQUOT}) }},
	{finding: "gocache-large", note: true, plant: func(r *sickRoot) { r.large("/home/u/.cache/go-build/a/b") }},
	{finding: "gomodcache-large", note: true, plant: func(r *sickRoot) { r.large("/home/u/go/pkg/mod/a/b") }},
	{finding: "cache-unusable", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOCACHE=/dev/null\n") }},
	{finding: "cache-unusable", plant: func(r *sickRoot) { r.append("/home/u/.config/go/env", "GOMODCACHE=/dev/null\n") }},
	{finding: "cache-unusable", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOCACHE=off\n") }},
	{finding: "cache-unusable", plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOCACHE=cache\n") }},
	{finding: "cache-unusable", incurable: true, plant: func(r *sickRoot) {
		r.check(os.RemoveAll(r.path("/home/u/.cache/go-build")))
		r.write("/home/u/.cache/go-build", "") // go's own place for it
	}},
	{finding: "process-mismatch", incurable: true, plant: func(r *sickRoot) {
		r.symlink("/gofs/"+r.old+"/bin/go", "/proc/4242/exe")
		r.write("/proc/4242/environ", "HOME=/home/u\x00GOROOT=/gofs/"+r.new+"\x00")
	}},
	{finding: "mount-missing", incurable: true, plant: func(r *sickRoot) { r.append("/home/u/.profile", "export GOFS_MOUNT=/nowhere\n") }},
	{finding: "mount-dead", plant: func(r *sickRoot) {
		r.deadMount("/mnt/gofs")
		r.gofsMount("/mnt/gofs", "/var/lib/gofs", "user_id=0")
	}},
	{finding: "mount-unreadable", incurable: true, plant: func(r *sickRoot) {
		r.broken("/mnt/gofs", &brokenDisk{readdir: syscall.EIO})
		r.gofsMount("/mnt/gofs", "/var/lib/gofs", "user_id=0")
	}},
	{finding: "mount-stale", plant: func(r *sickRoot) {
		r.check(os.MkdirAll(r.path("/mnt/gofs"), 0o755))
		r.check(syscall.Mount("tmpfs", r.path("/mnt/gofs"), "tmpfs", 0, "size=1m"))
		r.t.Cleanup(func() { _ = syscall.Unmount(r.path("/mnt/gofs"), syscall.MNT_DETACH) })
		r.gofsMount("/mnt/gofs", "/var/lib/gone", "user_id=0")
	}, after: func(r *sickRoot) {
		if err := syscall.Unmount(r.path("/mnt/gofs"), 0); !errors.Is(err, syscall.EINVAL) {
			r.t.Errorf("the stale mount is still there: %v", err)
		}
		r.write("/proc/self/mountinfo", "")
	}},
	{finding: "kernel-readahead", note: true, plant: func(r *sickRoot) {
		r.gofsMount("/gofs", "/var/lib/gofs", "user_id=0")
		r.write("/sys/class/bdi/0:45/read_ahead_kb", "128\n")
	}},
	{finding: "kernel-old", note: true, incurable: true, plant: func(r *sickRoot) {
		r.gofsMount("/gofs", "/var/lib/gofs", "user_id=0")
		r.write("/proc/sys/kernel/osrelease", "6.1.0-13-amd64\n")
	}},
	{finding: "fuse-conf", note: true, plant: func(r *sickRoot) {
		r.gofsMount("/gofs", "/var/lib/gofs", "user_id=1000")
		r.write("/etc/fuse.conf", "# user_allow_other\n")
	}},
	{finding: "store-full", incurable: true, plant: func(r *sickRoot) { r.tmpfs("/var/lib/gofs") }},
	{finding: "store-damaged", incurable: true, plant: func(r *sickRoot) {
		r.write("/var/lib/gofs/"+damageNote, "pack 0123456789abcdef at 4096: blob does not match\n")
	}},
	{finding: "out-of-support", note: true, incurable: true, plant: func(r *sickRoot) {
		r.release("/gofs/1.20.14", "1.20.14")
		r.write("/home/u/p/go.mod", "module p\n\ngo 1.20\n")
		r.append("/home/u/.profile", "export PATH=/gofs/1.20.14/bin:/usr/bin\n")
	}},
}

// Every finding that the doctor has is in its documentation, and is planted
// above.
func TestEveryFindingIsPlanted(t *testing.T) {
	planted, documented, found := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range sicknesses {
		planted[s.finding] = true
	}
	doc, err := os.ReadFile("../../doctor/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^//\t([a-z-]+)(?: |$)`).FindAllSubmatch(doc, -1) {
		documented[string(m[1])] = true
	}
	files, err := filepath.Glob("../../doctor/*.go")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`e\.find\(\w+, (?:"([a-z-]+)"|name\("([a-z]+)"\)|strings\.ToLower\(key\)\+"(-set)")`)
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		calls := call.FindAllStringSubmatch(string(src), -1)
		if n := strings.Count(string(src), "e.find("); n != len(calls) {
			t.Errorf("%s: %d findings, but %d names", file, n, len(calls))
		}
		for _, m := range calls {
			switch {
			case m[1] != "":
				found[m[1]] = true
			case m[2] != "":
				found["gocache-"+m[2]], found["gomodcache-"+m[2]] = true, true
			default:
				found["goflags-set"], found["goexperiment-set"], found["gotooldir-set"] = true, true, true
			}
		}
	}
	want := slices.Sorted(maps.Keys(found))
	for name, set := range map[string]map[string]bool{"planted": planted, "documented": documented} {
		if got := slices.Sorted(maps.Keys(set)); !slices.Equal(got, want) {
			t.Errorf("%s: %v\nfound: %v", name, got, want)
		}
	}
}

// inNamespace runs the test again in a mount namespace of its own, as root of
// a user namespace where it is not root already: it mounts and changes roots.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("GOFS_TEST_NAMESPACE") != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.parallel=4")
	cmd.Env = append(os.Environ(), "GOFS_TEST_NAMESPACE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

func TestDoctorNamesAndMends(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	syscall.Umask(0o022)
	gofs := gofsBinary(t)
	fakego := filepath.Join(t.TempDir(), "fakego")
	build := exec.Command(filepath.Join(hostGoroot(), "bin", "go"), "build", "-o", fakego, "./testdata/fakego")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("healthy", func(t *testing.T) {
		r := newSickRoot(t, gofs, fakego)
		if report, status := r.doctor(); len(report.Findings) > 0 || status != 0 {
			t.Errorf("status %d, findings %v", status, report.Findings)
		}
	})
	t.Run("healthy with a distribution's go behind", func(t *testing.T) {
		r := newSickRoot(t, gofs, fakego)
		r.release("/usr/lib/go-1.19", "1.19.8")
		r.symlink("../lib/go-1.19/bin/go", "/usr/bin/go")
		report, status := r.doctor()
		if len(report.Findings) > 0 || status != 0 {
			t.Errorf("status %d, findings %v", status, report.Findings)
		}
		want := []string{"gofs release /home/u/.profile:1", "distribution /home/u/.profile:1"}
		for i, g := range report.Gos {
			if i >= len(want) || g.Kind+" "+g.From != want[i] {
				t.Errorf("go %d is %+v, want %v", i, g, want)
			}
		}
		if len(report.Gos) != len(want) {
			t.Errorf("gos %+v", report.Gos)
		}
	})
	t.Run("three in one file", func(t *testing.T) {
		r := newSickRoot(t, gofs, fakego)
		r.release("/usr/local/go", r.old)
		r.append("/home/u/.profile", "export PATH=/usr/local/go/bin:$PATH\nexport GOFLAGS=-mod=mod\nexport GOROOT=/gofs/"+r.new+"\n")
		if report, status := r.doctor("--fix"); status != 0 || len(report.Findings) != 3 {
			t.Errorf("--fix ended with %d and %+v", status, report.Findings)
		}
		if report, status := r.doctor(); status != 0 || len(report.Findings) > 0 {
			t.Errorf("after --fix: status %d, %+v", status, report.Findings)
		}
	})
	t.Run("the only go stays", func(t *testing.T) {
		r := newSickRoot(t, gofs, fakego)
		r.write("/home/u/.profile", "export PATH=/gofs/"+r.old+"/bin:/usr/bin\nexport GOFS_MOUNT=/gofs\n")
		report, status := r.doctor("--fix")
		if status != 1 || len(report.Findings) != 1 || report.Findings[0].Name != "path-other-go" || report.Findings[0].Fixed {
			t.Errorf("--fix ended with %d and %+v", status, report.Findings)
		}
	})
	for i, s := range sicknesses {
		t.Run(fmt.Sprintf("%02d-%s", i, s.finding), func(t *testing.T) {
			t.Parallel()
			r := newSickRoot(t, gofs, fakego)
			s.plant(r)
			sick := 1
			if s.note {
				sick = 0
			}
			report, status := r.doctor()
			if len(report.Findings) != 1 || report.Findings[0].Name != s.finding || status != sick {
				t.Fatalf("status %d, findings %+v, want %s alone", status, report.Findings, s.finding)
			}
			f := report.Findings[0]
			if f.Command == "" || f.Fixable == s.incurable || strings.Contains(f.Cause, "\n") {
				t.Errorf("finding %+v", f)
			}
			report, status = r.doctor("--fix")
			if s.incurable {
				if status != sick || report.Findings[0].Fixed {
					t.Errorf("incurable, but --fix ended with %d and %+v", status, report.Findings)
				}
				return
			}
			if status != 0 || len(report.Findings) != 1 || !report.Findings[0].Fixed {
				t.Fatalf("--fix ended with %d and %+v", status, report.Findings)
			}
			if s.after != nil {
				s.after(r)
			}
			if report, status = r.doctor(); status != 0 || len(report.Findings) > 0 {
				t.Errorf("after --fix: status %d, %+v", status, report.Findings)
			}
		})
	}
}
