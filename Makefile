# Portico's developer manual. `make help` prints it: the text after ## says what a target does, ##@ starts a group.

.DEFAULT_GOAL := help
SHELL := /bin/bash
# rustup's folder, for shells whose profile has not been read.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# What `make run` hands to `portico run`; for example: make run ARGS="--manifests my-folder --echo 127.0.0.1:9000"
ARGS ?= --manifests examples/quickstart --echo 127.0.0.1:9000

##@ Try

.PHONY: run
run: setup ## Build and start the quickstart in the foreground (Ctrl-C ends it; other flags with ARGS="...")
	@cargo build --locked
	@exec target/debug/portico run $(ARGS)

##@ Develop

.PHONY: setup
setup: ## Install what is missing on a fresh Debian (run, check and test do this themselves)
	@bash scripts/setup.sh

.PHONY: check
check: setup ## Format, lints, documentation, house rules and dependencies: what a change must pass first
	@bash scripts/test.sh check

.PHONY: test
test: ## Everything: check, then every test; ends with a table and "N passed, N failed"
	@bash scripts/setup.sh $(if $(filter off,$(E2E)),test,e2e)
	@bash scripts/test.sh all

.PHONY: audit
audit: setup ## Compare the dependencies with the advisory database (needs the network)
	@bash scripts/audit.sh

.PHONY: docs
docs: setup ## Build the book of docs/ into target/docs (the first time that takes a minute more, for mdBook)
	@bash scripts/docs.sh

##@ Cluster

# The Gateway API CRDs of `make e2e-up`: standard or experimental.
CHANNEL ?= standard

# With PORTICO_E2E_KUBECONFIG=FILE, Portico runs against that cluster instead.
.PHONY: e2e-up
e2e-up: ## Start a Kubernetes cluster without containers, and Portico on it, and print its KUBECONFIG (as root)
	@bash scripts/setup.sh e2e
	@cargo build --locked --workspace --bins
	@target/debug/portico-e2e up --portico --channel $(CHANNEL)

.PHONY: e2e-down
e2e-down: ## End it and remove every trace, also of what crashed
	@cargo build --locked --quiet --workspace --bins
	@target/debug/portico-e2e down

.PHONY: conformance
conformance: ## Gateway API conformance suite on both channels, each on a new cluster; reports go to target/conformance (as root)
	@bash scripts/setup.sh e2e
	@bash scripts/conformance.sh

##@ Measure

.PHONY: bench
bench: setup ## Portico beside nginx, floods, instructions, plugins, edits, routes and consumers (twenty minutes on a quiet machine)
	@bash scripts/bench.sh

# What `make bench-cluster` hands to `portico-e2e bench`; for example: make bench-cluster BENCH="propagation --one-host"
BENCH ?=

.PHONY: bench-cluster
bench-cluster: ## Portico on a cluster: how soon a new route answers, writes of statuses, memory and CPU (as root; ten minutes)
	@bash scripts/setup.sh e2e
	@bash scripts/bench.sh cluster $(BENCH)

.PHONY: soak
soak: setup ## A minute at 2,000 requests per second while everything is edited: none may fail or go wrong
	@bash scripts/soak.sh

##@ Release

# amd64 or arm64; without it, the machine's own.
ARCH ?=

.PHONY: image-root
image-root: setup ## Build target/image-root, the image's root folder: static binary, CA roots, non-root user (ARCH=arm64)
	@bash scripts/setup.sh image $(ARCH)
	@bash scripts/image-root.sh $(ARCH)

.PHONY: image-reproducible
image-reproducible: setup ## Build it in two folders from the last commit and compare: both must be the same to the byte
	@bash scripts/image-reproducible.sh

.PHONY: sbom
sbom: setup ## Write target/sbom/portico-ARCH.cdx.json: every crate in the binary, as CycloneDX
	@bash scripts/sbom.sh

##@ Manual

.PHONY: help
help: ## Show this manual
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET" } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
