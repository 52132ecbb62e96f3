GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 400x
DEMO ?= /tmp/gofs-demo

PREFIX ?= /usr/local

.PHONY: build install install-systemd demo check packages vet test fuzz hostile crash fail kill soak bench bench-short clean

build:
	CGO_ENABLED=0 $(GO) build -o ./ ./cmd/...

install:
	CGO_ENABLED=0 $(GO) install ./cmd/...

# install-systemd installs gofs, gofs-go, mount.gofs for /etc/fstab and the units. It
# starts nothing.
install-systemd: build
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 gofs gofs-go $(DESTDIR)$(PREFIX)/bin
	install -d $(DESTDIR)/sbin
	ln -sf $(PREFIX)/bin/gofs $(DESTDIR)/sbin/mount.gofs
	install -d $(DESTDIR)/etc/systemd/system $(DESTDIR)/etc/systemd/user
	sed 's,/usr/local/bin,$(PREFIX)/bin,' cmd/gofs/systemd/gofs.service >$(DESTDIR)/etc/systemd/system/gofs.service
	sed 's,/usr/local/bin,$(PREFIX)/bin,' cmd/gofs/systemd/gofs-user.service >$(DESTDIR)/etc/systemd/user/gofs.service

# demo sets up what is missing, imports a release, mounts it, builds a program
# with it and unmounts. It leaves nothing but the store in $(DEMO).
demo: build
	@bench/demo.sh $(DEMO)

# check is what CI runs. The tests mount, so they need root.
check: packages vet test fuzz

packages:
	@bench/packages.sh fuse3 gcc libc6-dev git bash zsh fish direnv procps attr systemd util-linux

vet:
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# test runs with the race detector what threads are in, and without it what is
# arithmetic, whole releases or other processes, which it makes ten times slower
# and cannot see more in.
UNRACED = ^Test(Real|Rebase|Killed|Patch|Pending|EveryByte|EveryLength|Repair|Memory|FullDisk|TarLimits|ZipHuge|Damaged|Cunning)
RACED = $$($(GO) list ./... | grep -v -e /internal/durable -e /index/compact -e /bench -e /cmd/gofs$$)
test:
	$(GO) test -race -short -skip '$(UNRACED)' -timeout 20m $(RACED)
	$(GO) test -race -run '^Test(Meanwhile|Cancelled)$$/^gc$$' ./index/compact
	$(GO) test -race -short -run '^TestStore$$/^(import|mount|mount_hot|supervise|warm)$$' ./cmd/gofs
	$(GO) test -short -run '$(UNRACED)' ./blobstore ./blobstore/internal/delta ./importer/... ./index
	$(GO) test -short ./bench ./cmd/gofs ./blobstore/internal/goprog ./index/compact ./internal/durable

# fuzz gives every fuzz target FUZZTIME: inputs, since one that ends by the clock fails
# at times with "context deadline exceeded", which is no finding.
fuzz:
	@bench/fuzz.sh $(FUZZTIME)

# hostile gives the whole corpus of hostile archives and stores to every verb;
# check gives each store to verify, and every other one to one verb more.
hostile:
	$(GO) test -count 1 -v -timeout 1h -run 'TestCorpus|TestHostile|TestStoreLinks' ./internal/hostile ./cmd/gofs

# crash replays every prefix of what an import, a removal, gc, a compaction and
# a rebuild of the index ask a disk for, with everything lost that may be:
# see docs/RELIABILITY.md for this and the targets below.
crash:
	GOFS_CRASH=all $(GO) test -count=1 -v -timeout 2h -run '^TestCrash$$' ./internal/durable

# fail has every operation of the same work fail, and a disk full in steps of 512 bytes.
fail:
	GOFS_FAIL=all GOFS_FULL_STEP=512 $(GO) test -count=1 -v -timeout 2h -run '^Test(FailingDisk|FullDisk)$$' ./internal/durable

# kill kills the same work a thousand times.
kill:
	GOFS_KILL_POINTS=1000 $(GO) test -count=1 -v -timeout 2h -run '^TestKilled' ./internal/durable

# soak lets eight processes write and four mounts read for SECONDS.
SECONDS ?= 300
soak:
	GOFS_SOAK=$(SECONDS) $(GO) test -count=1 -v -timeout 2h -run '^TestSoak$$' ./internal/durable

# bench measures gofs beside its peers and writes bench/report. It needs root,
# an hour, 6 GB and a machine that does nothing else; go run ./bench -h has
# the choices that BENCHFLAGS can make.
bench:
	$(GO) run ./bench $(BENCHFLAGS)

# bench-short is a look of some minutes.
bench-short:
	$(GO) run ./bench -short $(BENCHFLAGS)

clean:
	rm -f gofs gofs-go
