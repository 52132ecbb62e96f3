package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// archiver is a way to keep all releases, for the table of room.
type archiver struct {
	Name  string  `json:"name"`
	Bytes float64 `json:"bytes"`
	Make  float64 `json:"make_seconds,omitempty"` // from the unpacked trees
	Peak  float64 `json:"peak_bytes,omitempty"`   // of memory while it was made, in its largest process
	Read  float64 `json:"read_seconds,omitempty"` // of one release into a folder, caches dropped
	Note  string  `json:"note,omitempty"`         // what it is, or why it was not measured
}

// packer makes an archive of all releases, and gives one of them back. It runs
// once: what matters is the room, and some take ten minutes.
type packer struct {
	name, note string
	tools      []string
	out        string // file or folder whose size counts
	make       func(ctx context.Context) (peak int64, err error)
	read       func(ctx context.Context, to string) error
}

func (b *bench) measureDensity(ctx context.Context) error {
	var tarballs float64
	for _, r := range b.releases {
		fi, err := os.Stat(b.tarballs[r])
		if err != nil {
			return err
		}
		tarballs += float64(fi.Size())
	}
	b.results.Archivers = []archiver{
		{Name: "unpacked", Bytes: b.results.median("plain bytes")},
		{Name: "hard links", Bytes: b.results.median("unique bytes"), Note: "identical files once"},
		{Name: "tarballs", Bytes: tarballs, Note: "as published, .tar.gz"},
	}
	dir := b.path("archives")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	trees := filepath.Join(dir, "trees")
	for _, r := range b.releases {
		if err := b.unpack(ctx, r, trees); err != nil {
			return err
		}
	}
	for _, p := range b.packers(dir, trees) {
		a, err := b.pack(ctx, p)
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			a.Note = "failed: " + firstLine(err.Error())
		}
		b.results.Archivers = append(b.results.Archivers, a)
		if p.name == "gofs" {
			b.results.figure("store", "B", a.Bytes)
		}
	}
	return nil
}

func (b *bench) pack(ctx context.Context, p packer) (archiver, error) {
	a := archiver{Name: p.name, Note: p.note}
	if missing := missingTool(p.tools...); missing != "" {
		a.Note = missing
		return a, nil
	}
	b.logf("%s", p.name)
	start := time.Now()
	peak, err := p.make(ctx)
	if err != nil {
		return a, err
	}
	a.Make, a.Peak = time.Since(start).Seconds(), float64(peak)
	size, err := diskUse(p.out)
	if err != nil {
		return a, err
	}
	a.Bytes = float64(size)
	if err := b.dropCaches(); err != nil {
		return a, err
	}
	back := b.path("back")
	defer os.RemoveAll(back)
	start = time.Now()
	if err := p.read(ctx, back); err != nil {
		return a, err
	}
	a.Read = time.Since(start).Seconds()
	return a, b.run(ctx, "diff", "-rq", "--no-dereference", filepath.Join(b.tree(), b.release), back)
}

// packers are the ways to keep the releases that lie unpacked in a folder.
func (b *bench) packers(dir, trees string) []packer {
	in := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) func(context.Context) (int64, error) {
		return func(ctx context.Context) (int64, error) { return b.peak(ctx, args[0], args[1:]...) }
	}
	shell := func(script string) func(context.Context) (int64, error) { return run("sh", "-ec", script) }
	// image reads a release out of a mounted file system.
	image := func(fstype, file string) func(context.Context, string) error {
		return func(ctx context.Context, to string) error {
			mnt := in("mnt")
			if err := os.MkdirAll(mnt, 0o755); err != nil {
				return err
			}
			if err := b.run(ctx, "mount", "-t", fstype, "-o", "loop,ro", file, mnt); err != nil {
				return err
			}
			defer unmount(mnt)
			return b.run(ctx, "cp", "-a", filepath.Join(mnt, b.release), to)
		}
	}
	// inside has a command unpack the release below a folder of its own.
	inside := func(script string) func(context.Context, string) error {
		return func(ctx context.Context, to string) error {
			return b.run(ctx, "sh", "-ec", fmt.Sprintf(`mkdir %[1]s.dir; cd %[1]s.dir; %[2]s; mv "$(find . -path '*/%[3]s' -type d -prune)" %[1]s; cd /; rm -rf %[1]s.dir`, to, script, b.release))
		}
	}
	export := func(store string) func(context.Context, string) error {
		return func(ctx context.Context, to string) error {
			return b.run(ctx, b.gofs, "--store", store, "-q", "export", b.release, "-o", to)
		}
	}
	imports := []string{b.gofs, "--store", in("store"), "-q", "import", "--verify=off"}
	for _, r := range b.releases {
		imports = append(imports, b.tarballs[r])
	}
	casync, borg, restic := "", "export BORG_BASE_DIR="+in("borg.home")+"; ", "export RESTIC_PASSWORD=x; "
	for _, r := range b.releases {
		casync += fmt.Sprintf("casync make --store=%s %s %s; ", in("casync"), in("casync/"+r+".caidx"), filepath.Join(trees, r))
	}
	return []packer{
		{"gofs", "everything in the store, from the tarballs", nil, in("store"), run(imports...), export(in("store"))},
		{"gofs compact", "the same after gofs compact, which took the time", nil, in("store"),
			run(b.gofs, "--store", in("store"), "-q", "compact"), export(in("store"))},
		{"SquashFS zstd-19", "", []string{"mksquashfs"}, in("squashfs"),
			run("mksquashfs", trees, in("squashfs"), "-comp", "zstd", "-Xcompression-level", "19", "-quiet", "-no-progress"), image("squashfs", in("squashfs"))},
		{"EROFS lz4hc", "clusters of 64 KiB", []string{"mkfs.erofs"}, in("erofs"),
			run("mkfs.erofs", "-zlz4hc,12", "-C65536", "--quiet", in("erofs"), trees), image("erofs", in("erofs"))},
		{"tar | zstd --long=31 -19", "one stream: reading means decoding what lies before", []string{"zstd"}, in("tar.zst"),
			shell(fmt.Sprintf("tar -C %s -c . | zstd -q -19 --long=31 -T0 -o %s", trees, in("tar.zst"))),
			inside(fmt.Sprintf("zstd -dcq --long=31 %s | tar -x ./%s", in("tar.zst"), b.release))},
		{"borg", "zstd, its default level", []string{"borg"}, in("borg"),
			shell(borg + fmt.Sprintf("borg init -e none %[1]s; cd %[2]s; borg create -C zstd %[1]s::all .", in("borg"), trees)),
			inside(borg + fmt.Sprintf("borg extract %s::all %s", in("borg"), b.release))},
		{"restic", "zstd, --compression max", []string{"restic"}, in("restic"),
			shell(restic + fmt.Sprintf("restic -q -r %[1]s init; restic -q -r %[1]s --compression max --no-cache backup %[2]s", in("restic"), trees)),
			inside(restic + fmt.Sprintf("restic -q -r %s --no-cache restore latest --include %s --target .", in("restic"), filepath.Join(trees, b.release)))},
		{"casync", "zstd chunks, an index for each release", []string{"casync"}, in("casync"),
			shell("mkdir " + in("casync") + "; " + casync),
			func(ctx context.Context, to string) error {
				return b.run(ctx, "casync", "extract", "--store="+in("casync"), in("casync/"+b.release+".caidx"), to)
			}},
		{"DwarFS", "its default level", []string{"mkdwarfs", "dwarfsextract"}, in("dwarfs"),
			run("mkdwarfs", "-i", trees, "-o", in("dwarfs"), "--no-progress"),
			inside(fmt.Sprintf("dwarfsextract -i %s -o . --pattern %s/**", in("dwarfs"), b.release))},
	}
}
