package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	peerGofs        = "gofs"
	peerPassthrough = "gofs passthrough"
	peerHot         = "gofs hot"
	peerCompacted   = "gofs compacted"
	peerQuick       = "gofs quick"
	peerDisk        = "disk"
)

// peer is a way to have a release on a machine.
type peer struct {
	Name    string `json:"name"`
	What    string `json:"what"`
	Missing string `json:"missing,omitempty"` // why it does not take part, and how to get it

	b    *bench
	base string // the folder whose RELEASE is the tree
	// make makes the image, once; nil where there is none.
	make func(ctx context.Context) error
	// mount mounts on base. It returns the daemon, nil where the kernel serves.
	mount  func(ctx context.Context) (*exec.Cmd, error)
	daemon *exec.Cmd
	// counted says that requests of the kernel can be asked for.
	counted bool
	mounted bool
}

// allPeers lists the peers in the order of the report.
func (b *bench) allPeers() []*peer {
	loop := func(fstype, image string) func(context.Context, string) error {
		return func(ctx context.Context, dir string) error {
			return b.run(ctx, "mount", "-t", fstype, "-o", "loop,ro", image, dir)
		}
	}
	peers := []*peer{
		b.gofsPeer(peerGofs, "the store of all releases, mounted", b.store),
		b.gofsPeer(peerPassthrough, "the same, --hot tmpfs --io passthrough", b.store, "--hot=tmpfs", "--io=passthrough"),
		b.gofsPeer(peerHot, "the same, --hot DIR, which a mount before has filled", b.store, "--hot="+b.path("hot")),
		b.compactedPeer(peerCompacted, "the same after gofs compact", compactedFolder),
		b.compactedPeer(peerQuick, "the same after gofs compact --quick "+b.release, "quick", "--quick", b.release),
		{Name: peerDisk, b: b, What: fsType(b.work) + ", unpacked with tar", base: b.tree()},
		b.kernelPeer("tmpfs", "tmpfs, unpacked", nil, func(ctx context.Context, dir string) error {
			if err := b.run(ctx, "mount", "-t", "tmpfs", "tmpfs", dir); err != nil {
				return err
			}
			return b.run(ctx, "cp", "-a", filepath.Join(b.tree(), b.release), dir)
		}),
		b.kernelPeer("squashfs", "kernel SquashFS, zstd, 128 KiB blocks",
			[]string{"mksquashfs", b.tree(), b.path("squashfs.img"), "-comp", "zstd", "-quiet", "-no-progress"},
			loop("squashfs", b.path("squashfs.img"))),
		b.kernelPeer("erofs", "kernel EROFS, lz4hc, 64 KiB clusters",
			[]string{"mkfs.erofs", "-zlz4hc", "-C65536", b.path("erofs.img"), b.tree()},
			loop("erofs", b.path("erofs.img"))),
		b.fusePeer("squashfuse", "FUSE, the image of squashfs",
			nil, "squashfuse_ll", "-f", b.path("squashfs.img")),
		b.fusePeer("dwarfs", "FUSE, mkdwarfs with its defaults",
			[]string{"mkdwarfs", "-i", b.tree(), "-o", b.path("dwarfs.img"), "--no-progress"},
			"dwarfs", "-f", b.path("dwarfs.img")),
	}
	if s := b.peerNamed(peers, "squashfs"); s.Missing != "" {
		b.peerNamed(peers, "squashfuse").Missing = s.Missing
	}
	return slices.DeleteFunc(peers, func(p *peer) bool {
		return len(b.options.peers) > 0 && p.Name != peerGofs && p.Name != peerDisk && !slices.Contains(b.options.peers, p.Name)
	})
}

func (b *bench) peerNamed(peers []*peer, name string) *peer {
	return peers[slices.IndexFunc(peers, func(p *peer) bool { return p.Name == name })]
}

// howToGet says where a program comes from.
var howToGet = map[string]string{
	"fio":           "Debian package fio",
	"mksquashfs":    "Debian package squashfs-tools",
	"mkfs.erofs":    "Debian package erofs-utils",
	"squashfuse_ll": "Debian package squashfuse",
	"mkdwarfs":      "not in Debian; binaries at github.com/mhx/dwarfs/releases",
	"dwarfs":        "not in Debian; binaries at github.com/mhx/dwarfs/releases",
	"dwarfsextract": "not in Debian; binaries at github.com/mhx/dwarfs/releases",
	"zstd":          "Debian package zstd",
	"borg":          "Debian package borgbackup",
	"restic":        "Debian package restic",
	"casync":        "Debian package casync",
}

// missingTool says what is missing and how to get it, "" where nothing is.
func missingTool(names ...string) string {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Sprintf("binary %s not found (%s)", name, howToGet[name])
		}
	}
	return ""
}

func (b *bench) gofsPeer(name, what, store string, args ...string) *peer {
	p := &peer{Name: name, What: what, b: b, base: b.path("m", strings.ReplaceAll(name, " ", "-"))}
	args = append([]string{"--store", store, "mount", "-f", "--log", "/dev/null"}, append(args, p.base)...)
	p.mount = func(ctx context.Context) (*exec.Cmd, error) { return b.startDaemon(ctx, p.base, b.gofs, args...) }
	help, _ := exec.Command(b.gofs, "mount", "--help").Output()
	if name == peerPassthrough && !strings.Contains(string(help), "--io") {
		p.Missing = "this gofs has no mount --io"
	}
	p.counted = exec.Command(b.gofs, "mount-stats", "--help").Run() == nil
	return p
}

// compactedPeer takes ten minutes to prepare, but for one whose store can be made
// of that of another.
func (b *bench) compactedPeer(name, what, folder string, args ...string) *peer {
	store := b.path(folder)
	p := b.gofsPeer(name, what, store)
	p.make = func(ctx context.Context) error {
		from := b.path(compactedFolder)
		if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
			from = b.store
		} else if err != nil {
			return err
		}
		if err := b.run(ctx, "cp", "-a", from, store); err != nil {
			return err
		}
		return b.run(ctx, b.gofs, append([]string{"--store", store, "-q", "compact"}, args...)...)
	}
	return p
}

// compactedFolder has the store of peerCompacted.
const compactedFolder = "compacted"

func (b *bench) kernelPeer(name, what string, makeImage []string, mount func(ctx context.Context, dir string) error) *peer {
	p := &peer{Name: name, What: what, b: b, base: b.path("m", name)}
	if makeImage != nil {
		p.Missing = missingTool(makeImage[0])
		p.make = func(ctx context.Context) error { return b.run(ctx, makeImage[0], makeImage[1:]...) }
	}
	p.mount = func(ctx context.Context) (*exec.Cmd, error) { return nil, mount(ctx, p.base) }
	return p
}

func (b *bench) fusePeer(name, what string, makeImage []string, program string, args ...string) *peer {
	p := &peer{Name: name, What: what, b: b, base: b.path("m", name), Missing: missingTool(program)}
	if makeImage != nil && p.Missing == "" {
		p.Missing = missingTool(makeImage[0])
		p.make = func(ctx context.Context) error { return b.run(ctx, makeImage[0], makeImage[1:]...) }
	}
	p.mount = func(ctx context.Context) (*exec.Cmd, error) {
		return b.startDaemon(ctx, p.base, program, append(slices.Clone(args), p.base)...)
	}
	return p
}

// root is the release's tree.
func (p *peer) root() string { return filepath.Join(p.base, p.b.release) }

func (p *peer) prepare(ctx context.Context) error {
	if p.make == nil {
		return nil
	}
	return p.make(ctx)
}

// fresh mounts anew: what a daemon and the kernel have learned is gone. It is
// nothing on the disk and on a tmpfs, which drop_caches empties or nothing does.
func (p *peer) fresh(ctx context.Context) error {
	if p.mount == nil || p.mounted && p.Name == "tmpfs" {
		return nil
	}
	if err := p.stop(); err != nil {
		return err
	}
	if err := os.MkdirAll(p.base, 0o755); err != nil {
		return err
	}
	d, err := p.mount(ctx)
	if err != nil {
		return err
	}
	p.daemon, p.mounted = d, true
	return p.awaitSocket(ctx)
}

// stop unmounts and waits for the daemon to end.
func (p *peer) stop() error {
	if !p.mounted {
		return nil
	}
	p.mounted = false
	err := unmount(p.base)
	if d := p.daemon; d != nil {
		p.daemon = nil
		if err != nil { // it would be waited for in vain
			err = errors.Join(err, d.Process.Kill())
		}
		_ = d.Wait() // squashfuse ends with 1 after an unmount
	}
	return err
}

// startDaemon starts a program that mounts on dir and stays, and returns when
// the mount is there.
func (b *bench) startDaemon(ctx context.Context, dir, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.Stdout, cmd.Stderr = w, w
	// Ctrl-C is for the harness, which unmounts.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	said := make(chan string, 1)
	go func() { // a daemon that logs must not block
		defer r.Close()
		br := bufio.NewReader(r)
		line, _ := br.ReadString('\n')
		said <- line
		io.Copy(io.Discard, br)
	}()
	for deadline := time.Now().Add(time.Minute); ; {
		mounts, err := mountsBelow(filepath.Dir(dir))
		if err == nil && slices.Contains(mounts, dir) {
			// A mount is there before its daemon answers; this waits for it.
			_, err = os.ReadDir(dir)
			if err == nil {
				return cmd, nil
			}
		}
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err == nil && time.Now().After(deadline) {
			err = errors.New("no mount after a minute")
		}
		if err == nil && unix.Kill(cmd.Process.Pid, 0) != nil || ended(cmd.Process.Pid) {
			err = errors.New("it ended")
		}
		if err != nil {
			cmd.Process.Kill()
			cmd.Wait()
			return nil, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, firstLine(<-said))
		}
		time.Sleep(time.Millisecond)
	}
}

// ended says whether a child has ended and waits to be waited for.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, tail, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(tail, "Z")
}

// pid is that of the daemon, 0 where the kernel serves.
func (p *peer) pid() int {
	if p.daemon == nil {
		return 0
	}
	return p.daemon.Process.Pid
}

// awaitSocket waits until the counters can be asked for: the socket is made a
// moment after the mount answers.
func (p *peer) awaitSocket(ctx context.Context) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := p.requests()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
	}
}

// mountStats are the counters of a mount as gofs mount-stats --json prints
// them; the harness needs no more of them.
type mountStats struct {
	Requests map[string]uint64 `json:"requests"`
}

// requests asks the daemon how often the kernel asked it so far; nil where
// that cannot be known.
func (p *peer) requests() (map[string]uint64, error) {
	if !p.counted || !p.mounted {
		return nil, nil
	}
	out, err := exec.Command(p.b.gofs, "mount-stats", p.base, "--json").Output()
	if err != nil {
		return nil, fmt.Errorf("mount-stats: %w", err)
	}
	var st mountStats
	if err := json.Unmarshal(out, &st); err != nil {
		return nil, fmt.Errorf("mount-stats: %w", err)
	}
	return st.Requests, nil
}

// fsType names the file system that a folder lies on.
func fsType(dir string) string {
	out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output()
	if err != nil {
		return "unknown"
	}
	if t := strings.TrimSpace(string(out)); t != "ext2/ext3" {
		return t
	}
	return "ext4" // all three have one number
}
