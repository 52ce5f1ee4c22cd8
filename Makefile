# Targets for developers. `make help` prints them: the text after ## describes a target, ##@ starts a group.

.DEFAULT_GOAL := help
SHELL := /bin/bash
# rustup's folder, for shells that have not read the profile.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# Arguments of `portico run` in `make run`; for example: make run ARGS="--manifests my-folder --echo 127.0.0.1:9000"
ARGS ?= --manifests examples/quickstart --echo 127.0.0.1:9000

##@ Try

.PHONY: run
run: setup ## Build and start the quickstart in the foreground (Ctrl-C stops it; other flags with ARGS="...")
	@cargo build --locked --workspace --bin portico
	@exec target/debug/portico run $(ARGS)

##@ Develop

.PHONY: setup
setup: ## Install missing packages on a fresh Debian (run, check and test do this themselves)
	@bash scripts/setup.sh

.PHONY: check
check: setup ## Static checks that every change must pass: format, lints, documentation, house rules and dependencies
	@bash scripts/test.sh check

.PHONY: test
test: ## Run check and all tests but those of test-full; ends with a table and "N passed, N failed"
	@bash scripts/setup.sh $(if $(filter off,$(E2E)),test,e2e)
	@bash scripts/test.sh all

# BASE=COMMIT compares with another commit than the one at which the branch left origin/main.
BASE ?=

.PHONY: test-changed
test-changed: ## Run only the unit tests and suites that the changed files can reach (BASE=COMMIT to compare with)
	@bash scripts/setup.sh test
	@bash scripts/test.sh changed $(BASE)

.PHONY: test-full
test-full: ## Run check and every test, also those that take minutes and rarely find what the others do not
	@bash scripts/setup.sh $(if $(filter off,$(E2E)),caches,full)
	@bash scripts/test.sh full

# SUITES="proxy watch" names suites; `scripts/test.sh list` prints all. ROUNDS is how often each runs.
SUITES ?= unit
ROUNDS ?= 3

.PHONY: flaky
flaky: ## Run suites repeatedly while their processes are stopped at random (SUITES="proxy watch" ROUNDS=3)
	@bash scripts/setup.sh $(if $(filter off,$(E2E)),test,e2e)
	@bash scripts/flaky.sh $(ROUNDS) $(SUITES)

.PHONY: replay
replay: ## Replay public bug reports of other gateways (tests/replay), also with the tests of other suites that they name
	@bash scripts/setup.sh test
	@bash scripts/replay.sh

.PHONY: cache-tests
cache-tests: ## Run the public tests of HTTP caches, also with nginx and Varnish, and the scripts of varnishtest
	@bash scripts/setup.sh caches
	@cargo test --locked --workspace --test process -- --include-ignored --nocapture --test-threads=1 http_cache::

.PHONY: differential
differential: ## Compare Portico with nginx for generated Ingresses of ingress-nginx: 100,000 requests
	@bash scripts/setup.sh test
	@DIFFERENTIAL_SETS=1700 cargo test --locked --workspace --test process -- --nocapture ingress_nginx::served

# Number of cases that `make explore` generates for each property test.
CASES ?= 20000

.PHONY: explore
explore: setup ## Run the property tests with new random values, to find bugs that earlier runs missed (CASES=20000 for each test)
	@env -u PROPTEST_RNG_SEED PROPTEST_CASES=$(CASES) cargo test --locked --workspace --lib

# How long `make fuzz` runs each target, and which one; the default is all.
fuzz: SECONDS ?= 60
TARGET ?=

.PHONY: fuzz
fuzz: ## Fuzz every parser of untrusted bytes (SECONDS=60 for each; TARGET=http1)
	@bash scripts/setup.sh fuzz
	@bash scripts/fuzz.sh "$(SECONDS)" $(TARGET)

.PHONY: protos
protos: setup ## Generate the clients of gRPC services from the files in protos, after a change there
	@cargo run --quiet --manifest-path protos/Cargo.toml --target-dir target/protos
	@cargo fmt --all

.PHONY: audit
audit: setup ## Check the dependencies against the advisory database (needs the network)
	@bash scripts/audit.sh

.PHONY: docs
docs: setup ## Build the book of docs/ into target/docs (the first build takes a minute longer, for mdBook)
	@bash scripts/docs.sh

##@ Cluster

# The Gateway API CRDs of `make e2e-up`: standard or experimental.
CHANNEL ?= standard

# With PORTICO_E2E_KUBECONFIG=FILE, Portico runs against that cluster instead.
.PHONY: e2e-up
e2e-up: ## Start a Kubernetes cluster without containers, with Portico on it, and print its KUBECONFIG (as root)
	@bash scripts/setup.sh e2e
	@cargo build --locked --workspace --bins
	@target/debug/portico-e2e up --portico --channel $(CHANNEL)

.PHONY: e2e-down
e2e-down: ## Stop the cluster and remove everything that belongs to it, including leftovers of crashes
	@cargo build --locked --quiet --workspace --bins
	@target/debug/portico-e2e down

.PHONY: conformance
conformance: ## Run the Gateway API conformance suite for both channels; reports in target/conformance (as root)
	@bash scripts/setup.sh e2e
	@bash scripts/conformance.sh

##@ Measure

.PHONY: baseline
baseline: ## Count instructions and allocations per request and compare with benches/baseline.toml (UPDATE=1 accepts)
	@bash scripts/setup.sh test
	@bash scripts/image-root.sh --for-tests
	@cargo build --locked --workspace --bin portico-load
	@cargo test --locked --workspace --test allocations
	@target/debug/portico-load baseline --portico target/image-root-test/usr/bin/portico

.PHONY: plugin-costs
plugin-costs: ## Count the instructions that each plugin adds to a request, and write them to docs/plugin-costs.md
	@bash scripts/setup.sh test
	@bash scripts/image-root.sh --for-tests
	@cargo build --locked --workspace --bin portico-load
	@target/debug/portico-load plugin-costs --portico target/image-root-test/usr/bin/portico --page docs/plugin-costs.md

# CASE=HTTPS measures only cases with this word in their names; RESUME=1 continues an interrupted run.
CASE ?=
RESUME ?=

.PHONY: bench
bench: setup ## Compare with nginx, HAProxy and Envoy, also while endpoints fail (55 minutes, idle machine); CASE=HTTPS, RESUME=1
	@CASE="$(CASE)" RESUME="$(RESUME)" bash scripts/bench.sh default

.PHONY: bench-full
bench-full: setup ## The same, TCP and UDP, floods, instructions, plugins, edits, routes and consumers (110 minutes, idle machine)
	@bash scripts/bench.sh all

# Arguments of `portico-e2e bench` in `make bench-cluster`; for example: make bench-cluster BENCH="propagation
# --one-host"
BENCH ?=

.PHONY: bench-cluster
bench-cluster: ## Measure Portico on a cluster: propagation of new routes, status writes, memory and CPU (as root; 10 minutes)
	@bash scripts/setup.sh e2e
	@bash scripts/bench.sh cluster $(BENCH)

.PHONY: soak
soak: setup ## Send 2,000 requests per second for a minute while objects and certificates change: all responses must be right
	@bash scripts/soak.sh

# Duration of `make chaos`, the seed of the order of its disruptions, and further arguments of `portico-e2e chaos`; for
# example: make chaos SEED=7 CHAOS="--rate 500 --only flood"
chaos: SECONDS ?= 600
SEED ?= 1
CHAOS ?=

.PHONY: chaos
chaos: ## Kill, slow and break what Portico depends on, at 1,000 requests per second: SECONDS=600 SEED=1 (as root)
	@bash scripts/setup.sh e2e
	@bash scripts/chaos.sh --seconds $(SECONDS) --seed $(SEED) $(CHAOS)

##@ Release

# amd64 or arm64; the default is the machine's architecture.
ARCH ?=

.PHONY: image-root
image-root: setup ## Build target/image-root, the image's root folder: static binary, CA roots, non-root user (ARCH=arm64)
	@bash scripts/setup.sh image $(ARCH)
	@bash scripts/image-root.sh $(ARCH)

.PHONY: image-root-test
image-root-test: setup ## Build target/image-root-test for tests: the same folder, but compiled in a third of the time
	@bash scripts/image-root.sh --for-tests

.PHONY: image-reproducible
image-reproducible: setup ## Build the image root twice from the last commit, in two folders: both must be byte-identical
	@bash scripts/image-reproducible.sh

.PHONY: sbom
sbom: setup ## Write target/sbom/portico-ARCH.cdx.json: every crate in the binary, as CycloneDX
	@bash scripts/sbom.sh

##@ Manual

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET" } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
