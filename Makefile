GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 2s
DEMO ?= /tmp/gofs-demo

.PHONY: build install demo check vet test fuzz crash fail kill soak bench bench-short clean

build:
	CGO_ENABLED=0 $(GO) build -o gofs ./cmd/gofs

install:
	CGO_ENABLED=0 $(GO) install ./cmd/gofs

# demo sets up what is missing, imports a release, mounts it, builds a program
# with it and unmounts. It leaves nothing but the store in $(DEMO).
demo: build
	@bench/demo.sh $(DEMO)

# check is what CI runs.
check: vet test fuzz

vet:
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# test runs everything with the race detector but what is all arithmetic,
# whole releases or other processes, which it makes ten times slower and cannot
# see more in.
test:
	$(GO) test -race -short -skip '^TestReal' -timeout 20m $$($(GO) list ./... | grep -v /internal/durable)
	$(GO) test ./blobstore/internal/goprog ./index/compact ./internal/durable
	$(GO) test -run '^TestReal' ./importer/...

# fuzz gives every fuzz target FUZZTIME.
fuzz:
	@bench/fuzz.sh $(FUZZTIME)

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
	rm -f gofs
