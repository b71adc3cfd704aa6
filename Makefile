# otrproxy: build, test, bench, lint. "make test" is all that CI runs.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
# A count, not a time: go test ends time-limited fuzzing with a false "deadline exceeded" now and then.
FUZZTIME ?= 20000x

.PHONY: build test prepare lint unit fuzz scenarios bench bench-check dist clean

build:
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o otrproxy ./cmd/otrproxy

# Everything. What the tests need is installed first; a program that cannot be had is
# named in the last lines, and fails in CI.
test: prepare lint unit fuzz
	@test/scenarios.sh

prepare:
	@test/install.sh

lint:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# Afresh: some tests look at what the cache does not know of, such as who imports whom.
unit:
	test/quiet.sh $(GO) test -race -count=1 $$($(GO) list ./... | grep -vE "/test/(real|interop|browser|packages)$$")

fuzz:
	@test/fuzz.sh $(FUZZTIME)

scenarios:
	@test/scenarios.sh

# What the proxy costs, beside others; ARGS as in "go run ./test/bench -help".
bench:
	@test/install.sh haproxy nginx libnginx-mod-stream stunnel4 libotr5-dev libgcrypt20-dev gcc
	$(GO) test -run xxx -bench . -benchmem ./stanza ./proxy/...
	$(GO) run ./test/bench $(ARGS)

# Whether it costs more than what was landed last (test/bench/landed.json).
bench-check:
	$(GO) run ./test/bench check

# What is handed out: the same commit gives the same bytes, anywhere.
dist:
	$(GO) run -C packaging/dist . -root $(CURDIR) -out $(CURDIR)/dist -version $(VERSION)

clean:
	rm -rf otrproxy dist
