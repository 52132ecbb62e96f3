// Package doctor finds out why the wrong go runs, or why it runs badly: it
// exists as a package of its own because its checks look at the whole machine
// (shell start-up files, processes, mounts, caches), which no other part of
// gofs has to know.
//
// A check adds a finding for something that is wrong and nothing for what is
// right. Each finding has a name that does not change, its cause, and the one
// command that mends it. Some can be mended by the doctor itself; what it
// takes out of a file of the user's stays there as a comment.
//
// # The go in PATH
//
//	path-other-go          PATH finds a go of another version than the rules pick
//	path-many-gos          another go of another version stands behind the first one
//	path-no-go             PATH finds none, the rules pick one
//	go-broken              the go in use does not run
//	go-mixed               it says another version than the VERSION file beside it
//	tool-broken            its compiler or linker does not run
//	tool-mismatch          its compiler or linker is of another version
//
// # Settings
//
//	goroot-other           GOROOT is not that of the go in use
//	goroot-missing         GOROOT holds no release
//	goroot-symlink         GOROOT leads through a symbolic link
//	gotooldir-set          GOTOOLDIR is set
//	goexperiment-set       GOEXPERIMENT is set
//	goflags-set            GOFLAGS has flags that choose what is built or by what
//	gotoolchain-pinned     GOTOOLCHAIN makes every go run another release than the rules pick
//
// # The project
//
//	not-imported           no imported release satisfies its files
//	rules-conflict         no release whatever satisfies them together
//	rule-unreadable        one of them cannot be read
//	project-other-go       nothing is mounted, and the go in use is none that they allow
//	project-overridden     GOFS_VERSION goes against them
//	vendor-newer           a vendored module wants a newer go than the one in use
//	cgo-no-cc              CGO_ENABLED=1 without a C compiler
//
// # Caches
//
//	cache-unusable         GOCACHE or GOMODCACHE is no folder, or no absolute path (off)
//	gocache-shared         others can write to it
//	gocache-unwritable     this user cannot
//	gocache-network        it is on a network disk
//	gocache-quota          the disk quota is used up
//	gocache-full           little room is left on its disk
//	gocache-large          it holds more than 20 GB
//	gomodcache-shared      likewise for GOMODCACHE
//	gomodcache-unwritable
//	gomodcache-network
//	gomodcache-quota
//	gomodcache-full
//	gomodcache-large
//
// # Processes, mounts, the store
//
//	process-mismatch       a running go tool and its GOROOT do not belong together
//	mount-missing          the folder that should show the releases is not there
//	mount-dead             a mount has no server any more
//	mount-hung             a mount does not answer
//	mount-stale            a mount shows a store that is gone
//	mount-unreadable       a mount cannot be listed
//	kernel-readahead       the kernel reads ahead less than is good for a mount
//	kernel-old             the kernel has no FUSE passthrough
//	fuse-conf              other users cannot see the mounts of this one
//	store-full             little room is left for the store
//	store-damaged          the last gofs verify found damage
//	out-of-support         the release in use gets no security fixes any more
package doctor
