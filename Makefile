# Vix: every program in its own virtual machine, every window on your desktop.
# `make help` lists the targets. What the machine lacks (QEMU >= 11, sway, a
# kernel image) is prepared once, in the user's cache, by scripts/sysroot.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 10s
SEQUENCES ?= 200000
MINUTES  ?= 60
CLIENTS  ?= 2000
# Packages whose tests run at once: they wait more than they compute.
JOBS     ?= 2
VERSION  := $(shell scripts/version)

export HOME ?= /root
# Without it a build fails where the checkout belongs to another user.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vix
IN_ROOT := $(CURDIR)/scripts/in-root
LINT    := $(CACHE)/tools/golangci-lint-$(shell sed -n 's,.*golangci-lint/v2 \(v[0-9.]*\).*,\1,p' tools/go.mod)
# The race detector needs a C compiler; without one the tests run without it.
RACE    := $(if $(shell command -v $${CC:-gcc} 2>/dev/null),-race)
UNIT     = $$($(GO) list ./... | grep -v '^vix/e2e')
# These need make and git, which the system root has not.
OUTSIDE := ./scripts ./packaging
INSIDE   = $$($(GO) list ./... | grep -vE '^vix/(e2e|scripts$$|packaging$$)')

# A failed test's files: the logs of its VMs, and what its processes said.
KEEP    := -artifacts -outputdir $(CURDIR)/build/test

.PHONY: build
build: need-go ## the programs, in build/bin
	@mkdir -p build/bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w -X main.version=$(VERSION)' -o build/bin/ ./cmd/vix-launcher ./cmd/vix-waylandproxy
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o build/bin/ ./cmd/vix-guest ./cmd/vix-menu
	@ln -sf vix-launcher build/bin/vix

.PHONY: docs
docs: export SOURCE_DATE_EPOCH ?= $(shell scripts/version --epoch)
docs: build ## man pages, completions, licences of what is linked in
	@GO=$(GO) packaging/docs build

.PHONY: demo
demo: need-go setup ## a program in a VM shows its window: leaves build/demo/desktop.png
	@mkdir -p build/demo
	@begin=$$EPOCHREALTIME; $(MAKE) --no-print-directory build; \
	CGO_ENABLED=0 $(GO) build -trimpath -o build/demo/demo ./e2e/demo; \
	VIX_BUILD_SECONDS=$$(awk "BEGIN { print $$EPOCHREALTIME - $$begin }") \
	$(IN_ROOT) build/demo/demo -bin build/bin -out build/demo

.PHONY: test
test: static setup ## every test: check, compositor-level and VM-level
	@$(MAKE) --no-print-directory build
	@# -vet=off: static has vetted all.
	@rm -rf build/test/_artifacts; mkdir -p build/test; $(GO) build -o build/test/ ./scripts/testsum
	@build/test/testsum -complete -show '^threat ' -again 3 -excused scripts/testsum/unsteady -out build/test \
	  -- $(GO) test -json -vet=off -p 1 -timeout 30m $(OUTSIDE) \
	  -- $(GO) test -json -vet=off -p $(JOBS) $(RACE) -timeout 30m $(KEEP) -exec $(IN_ROOT) $(INSIDE) \
	  -- $(GO) test -json -vet=off -p $(JOBS) -timeout 30m $(KEEP) -exec $(IN_ROOT) ./e2e/...

.PHONY: check
check: static ## static checks and unit tests; no VM
	@mkdir -p build/test; $(GO) build -o build/test/ ./scripts/testsum
	@build/test/testsum -out build/test -- $(GO) test -json -vet=off -short $(RACE) -timeout 5m $(UNIT)

.PHONY: static
static: need-go ## gofmt, vet, golangci-lint, generated files up to date
	@$(MAKE) -j 2 --no-print-directory setup $(LINT)
	@$(GO) mod download # all, because tests in the system root reach no proxy
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "gofmt: would change:" $$bad >&2; exit 1; }
	$(GO) vet ./...
	$(LINT) run --allow-parallel-runners ./...
	@for f in .ci/run $$(grep -d skip -lE '^#!.*sh$$' scripts/* packaging/* packaging/*/*); do bash -n "$$f"; done
	@scripts/generated

.PHONY: e2e
e2e: need-go setup build ## the VM-level tests, and programs driven one by one; RUN=regexp chooses
	@mkdir -p build/test; $(GO) build -o build/test/ ./scripts/testsum
	@VIX_E2E_PROGRAMS=1 build/test/testsum -v -complete -out build/test -- $(GO) test -json -p 1 -count=1 -timeout 20m -exec $(IN_ROOT) $(if $(RUN),-run '$(RUN)') ./e2e/...

.PHONY: e2e-full
e2e-full: need-go ## adds browsers, GTK 3, Qt 6, video (a larger system root, once); RUN=regexp
	@scripts/sysroot --full
	@$(MAKE) --no-print-directory build; mkdir -p build/test; $(GO) build -o build/test/ ./scripts/testsum
	@VIX_SYSROOT=full VIX_E2E_FULL=1 build/test/testsum -v -complete -out build/test -- $(GO) test -json -p 1 -count=1 -timeout 60m -exec $(IN_ROOT) $(if $(RUN),-run '$(RUN)') ./e2e/...

.PHONY: threats
threats: need-go setup build ## the threat table, row by row: held or broken
	@mkdir -p build/test; $(GO) build -o build/test/ ./scripts/testsum
	@build/test/testsum -complete -show '^threat ' -out build/test -- $(GO) test -json -p 1 -count=1 -timeout 20m -exec $(IN_ROOT) -run TestThreat ./e2e/threats ./e2e/frame

.PHONY: bench
bench: need-go setup build ## what it costs: tables, and build/bench/*.json
	@mkdir -p build/bench
	CGO_ENABLED=0 $(GO) build -trimpath -o build/bench/ ./bench/wlbench
	$(IN_ROOT) build/bench/wlbench compare -bin build/bin -json build/bench/wlbench.json
	$(IN_ROOT) build/bench/wlbench vm -bin build/bin -json build/bench/vm.json
	VIX_BENCH_OUT=$(CURDIR)/build/bench $(GO) test -count=1 -timeout 90m -exec $(IN_ROOT) -run '^$$' -bench . $(UNIT) ./e2e ./e2e/clipboard
	VIX_BENCH_OUT=$(CURDIR)/build/bench $(GO) test -count=1 -timeout 20m -exec $(IN_ROOT) -run TestFlood ./e2e/threats
	@cat build/e2e/flood.txt

.PHONY: bench-profile
bench-profile: need-go build ## where the local proxy's time and allocations go: build/bench/profile
	@mkdir -p build/bench
	CGO_ENABLED=0 $(GO) build -trimpath -o build/bench/ ./bench/wlbench
	build/bench/wlbench profile -bin build/bin -out build/bench/profile -go $(GO)

.PHONY: fuzz
fuzz: need-go setup ## every fuzz target for FUZZTIME each, and SEQUENCES random ones through the filter and the agent's protocol
	@scripts/fuzz $(FUZZTIME)
	$(GO) test -count=1 -timeout 2h -run 'TestMachine|TestHostileGuest|TestHostileHost' ./internal/agent -sequences=$$(($(SEQUENCES) / 10))
	$(GO) test -count=1 -timeout 2h -run TestPictureMachine ./e2e/machine -sequences=$(SEQUENCES)
	$(GO) test -count=1 -timeout 2h -exec $(IN_ROOT) -run 'TestPictureOnSway|TestInputMachine' ./e2e/machine -sway=$$(($(SEQUENCES) / 200)) -input=$$(($(SEQUENCES) / 400))

.PHONY: soak
soak: need-go setup build ## MINUTES of random operations and faults on real VMs, as many of plain work, CLIENTS short-lived clients: build/e2e/soak.txt
	$(GO) test -count=1 -timeout 30m -exec $(IN_ROOT) -run TestSoak ./internal/filter -connections=2000
	$(GO) test -v -count=1 -timeout 0 -exec $(IN_ROOT) ./e2e/soak -minutes=$(MINUTES) -clients=$(CLIENTS)
	@cat build/e2e/soak.txt build/e2e/clients.txt

.PHONY: generate
generate: need-go setup ## the tables generated from the protocol XML
	$(IN_ROOT) $(GO) generate ./...

# What is installed stands in packaging/install.
.PHONY: install
install: docs ## everything into PREFIX (under DESTDIR)
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) packaging/install

.PHONY: uninstall
uninstall: ## what install has laid down in PREFIX
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) packaging/install --uninstall

.PHONY: deb
deb: docs ## a Debian package, in build/deb
	@packaging/deb/build build/deb

.PHONY: dist
dist: ## the sources of the last commit as a tarball, in build/dist
	@scripts/dist build/dist

.PHONY: clean
clean: ## what was built here
	rm -rf build

.PHONY: distclean
distclean: clean ## also the system root, tools and kernels in the user's cache
	scripts/sysroot --remove
	rm -rf $(CACHE)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) FUZZTIME=$(FUZZTIME) MINUTES=$(MINUTES) CLIENTS=$(CLIENTS) JOBS=$(JOBS) RUN=regexp"

.PHONY: setup
setup:
	@scripts/sysroot

.PHONY: need-go
need-go:
	@command -v $(GO) >/dev/null || { echo "go: not found; install Go 1.26 or newer and put it on PATH" >&2; exit 1; }

# Built once per machine: from source it takes two to three minutes.
$(LINT):
	@echo "building golangci-lint into $(CACHE)/tools (once)"
	@mkdir -p $(@D)
	cd tools && CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o $@.tmp$$$$ github.com/golangci/golangci-lint/v2/cmd/golangci-lint && mv $@.tmp$$$$ $@
