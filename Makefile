GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 2s
DEMO ?= /tmp/gofs-demo

.PHONY: build install demo check vet test fuzz hostile bench bench-short clean

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

# test runs everything with the race detector but what is all arithmetic or
# whole releases, which it makes ten times slower and cannot see more in.
test:
	$(GO) test -race -short -skip '^TestReal' -timeout 20m ./...
	$(GO) test ./blobstore/internal/goprog ./index/compact
	$(GO) test -run '^TestReal' ./importer/...

# fuzz gives every fuzz target FUZZTIME.
fuzz:
	@bench/fuzz.sh $(FUZZTIME)

# hostile gives the whole corpus of hostile archives and stores to every verb;
# check gives each store to verify, and every other one to one verb more.
hostile:
	$(GO) test -count 1 -v -run 'TestCorpus|TestHostile|TestStoreLinks' ./internal/hostile ./cmd/gofs

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
