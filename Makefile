GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 5s
DEMO ?= /tmp/gofs-demo

.PHONY: build install demo check vet test fuzz clean

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

test:
	$(GO) test -race -timeout 20m ./...

# fuzz gives every fuzz target FUZZTIME.
fuzz:
	@bench/fuzz.sh $(FUZZTIME)

clean:
	rm -f gofs
