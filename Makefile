# The two commands of a newcomer are `make run` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
GO ?= go
BIN := bin/embargo
UNIT = $(shell $(GO) list ./... | grep -v '/test/')
STATICCHECK := .tools/bin/staticcheck
STORAGES := .tools/bin/versitygw .tools/npm/node_modules/azurite

.PHONY: help run build check lint test test-long demo bench mutate-routes fuzz dist tools

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: build ## build and start a registry on ./embargo-data (README's first command)
	exec ./$(BIN) serve

build: ## build bin/embargo
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/embargo

check: lint $(STORAGES) ## format, vet, staticcheck, import rules, unit tests: about two minutes
	scripts/with-storage scripts/with-postgres $(GO) test -short -parallel 4 $(UNIT)

lint: $(STATICCHECK) ## check without its unit tests
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt: $$(gofmt -l $$(git ls-files '*.go'))"; exit 1; }
	$(GO) vet ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) vet ./cmd/embargo
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) vet ./cmd/embargo
	$(STATICCHECK) ./...
	$(GO) test ./test/rules

test: ## everything a change must pass; installs what the tests need (README's second command)
	scripts/test

test-long: build ## by hand: longer crash loops, fuzzing and the like
	scripts/install-test-tools
	EMBARGO_CRASH_KILLS=2000 scripts/with-postgres $(GO) test -timeout 120m ./test/crash
	$(MAKE) fuzz FUZZ=2000000x

dist: ## binaries, Debian packages, an image, SBOMs and checksums of this version in dist/
	$(GO) run ./packaging

demo: build ## the mission's story on a fresh instance, every command printed
	scripts/install-test-tools
	scripts/demo

bench: ## Go benchmarks; figures are in docs/performance.md
	EMBARGO_TEST_POSTGRES_FSYNC=on scripts/with-postgres $(GO) test -run '^$$' -bench . -benchtime 1s -count 5 -timeout 60m ./test/bench

mutate-routes: ## force each route's rule open and see its named test fail
	scripts/with-storage scripts/with-postgres $(GO) run ./test/mutate

FUZZ ?= 20000x
fuzz: ## each fuzz target for FUZZ inputs
	scripts/fuzz $(FUZZ)

$(STATICCHECK):
	GOBIN=$(CURDIR)/.tools/bin $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2

$(STORAGES) &:
	scripts/install-storages
