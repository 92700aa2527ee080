# `make demo` shows polylance working, `make check` is for every change, `make test` runs everything.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
POLYLANCE ?= $(TARGET)/release/polylance
CACHE ?= $(HOME)/.cache/polylance

# rustup installs the version in rust-toolchain.toml by itself, unless this is disabled: then its stable toolchain
# compiles, and cargo refuses one that is older than `rust-version`.
ifeq ($(shell rustc --version 2>/dev/null),)
export RUSTUP_TOOLCHAIN := stable
endif

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## install everything the build needs besides rustup's toolchain, gcc and git
	@.ci/setup protoc

.PHONY: setup-test
setup-test: setup
	@.ci/setup nextest deny python maturin typos page chromium cxx nvcc

.PHONY: build
build: setup ## the optimized binary
	cargo build --release --locked --package polylance-cli

.PHONY: page
page: ## the page that `polylance serve` shows; the next build puts it into the binary
	@.ci/setup page
	cd crates/server/page && npm ci --no-audit --no-fund && npm run build

# The build of the tests: it compiles in a fraction of the time, and computes as fast.
.PHONY: demo
demo: setup ## embed the quickstart corpus, then search it in three languages
	@if .ci/setup page; then $(MAKE) --no-print-directory page; else echo "This build has no web page."; fi
	cargo build --locked --package polylance-cli
	@POLYLANCE="$(TARGET)/debug/polylance" pipelines/demo.sh

# Package indices refuse files of more than 100 MB, so the built-in model is a wheel of its own.
.PHONY: wheel
wheel: setup page ## the Python package and its model as wheels in dist/, optimized
	@.ci/setup python maturin
	POLYLANCE_EXTERNAL_MODEL=1 "$$(.ci/setup maturin-path)/maturin" build --release --locked --strip \
	    -m crates/python/Cargo.toml -o dist
	"$$(.ci/setup maturin-path)/pip" wheel --quiet --no-deps --wheel-dir dist ./crates/python/model

.PHONY: check
check: setup ## formatting, lints and unit tests: under three minutes after the first build
	@.ci/setup nextest cxx
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo nextest run --workspace --lib --locked --no-fail-fast

.PHONY: test
test: setup-test page ## every check and every test
	cargo fmt --all --check
	"$$(.ci/setup typos-path)/typos"
	cargo deny --log-level error check bans licenses sources
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --locked --quiet
	cargo test --doc --workspace --locked --quiet
	@$(MAKE) --no-print-directory test-wheel
	cargo nextest run --workspace --locked --no-fail-fast

# A wheel of the tests' build, in a virtual environment: the source tree is not on Python's path.
.PHONY: test-wheel
test-wheel: setup ## the tests of the Python package
	@.ci/setup python maturin
	rm -rf "$(TARGET)/wheels"
	"$$(.ci/setup maturin-path)/maturin" build --quiet --profile dev --locked --strip -m crates/python/Cargo.toml \
	    -o "$(TARGET)/wheels"
	tests/wheel/run.sh "$(TARGET)/wheels" "$(CACHE)/venv-wheel"

.PHONY: test-crates
test-crates: setup ## the tests of the crates alone: no browser, no Python clients, no compiler of GPU kernels
	@.ci/setup nextest cxx
	cargo nextest run --workspace --exclude polylance-tests --locked --no-fail-fast \
	    -E 'not test(the_committed_binary_is_what_the_sources_give)'

.PHONY: spelling
spelling: ## look for misspelled words in code and prose
	@.ci/setup python typos
	"$$(.ci/setup typos-path)/typos"

.PHONY: deny
deny: ## check the licences and sources of the dependencies
	@.ci/setup deny
	cargo deny --log-level error check bans licenses sources

# The oldest Rust that Cargo.toml allows; rustup installs it.
MINIMUM_RUST = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: minimum-rust
minimum-rust: setup ## compile everything with the oldest Rust that is supported
	@.ci/setup cxx
	rustup toolchain install --profile minimal "$(MINIMUM_RUST)"
	cargo +"$(MINIMUM_RUST)" check --workspace --all-targets --locked

# Not part of `test`: advisories change without a change here, and need the network.
.PHONY: advisories
advisories: ## look for known vulnerabilities of the dependencies in the RustSec database
	@.ci/setup deny
	@if cargo deny --log-level error fetch db; then \
	    cargo deny --log-level error check advisories; \
	else \
	    echo "SKIPPED: the advisory database cannot be fetched, so the dependencies were NOT CHECKED for vulnerabilities" >&2; \
	fi

# Its findings go below the cache; copy those worth keeping into tests/fuzz/corpus by hand.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(notdir $(wildcard tests/fuzz/corpus/*))

.PHONY: fuzz
fuzz: setup ## look for input that breaks a reader, FUZZ_SECONDS per target (60)
	@.ci/setup fuzz
	cp Cargo.lock tests/fuzz/Cargo.lock
	for target in $(FUZZ_TARGETS); do \
	    mkdir -p "$(CACHE)/fuzz/$$target"; \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$$target" \
	        "$(CACHE)/fuzz/$$target" "tests/fuzz/corpus/$$target" -- \
	        -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=4096; \
	done

# Every instruction set that the CPU has; the runtime of the sanitizer comes with the stable toolchain.
.PHONY: sanitize
sanitize: ## the kernels' tests under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Copt-level=1" CARGO_TARGET_DIR="$(CACHE)/sanitize" \
	    cargo test --locked --package polylance-kernels --lib --target "$$(rustc --print host-tuple)"

# The folder for the ten million rows; it takes 3 GB.
SOAK ?= $(CACHE)/soak

.PHONY: soak
soak: setup-test ## the long form of the tests of kills, failures, concurrent writers and clusters, Slurm and Ray, and ten million rows
	@.ci/setup slurm
	POLYLANCE_KILLS=1000 POLYLANCE_ROUNDS=300 POLYLANCE_POWER=all POLYLANCE_CLUSTER_KILLS=500 POLYLANCE_CUTS=all \
	    cargo nextest run --profile soak --workspace --locked --no-fail-fast \
	    --test killed --test many_writers --test faults --test s3 --test disk_full --test power_loss --test runs --test cluster
	cargo nextest run --profile soak --workspace --locked --no-fail-fast \
	    --features polylance-tests/soak --test shards -E 'test(launchers::real)'
	POLYLANCE_ORDERS=3000000 cargo nextest run --profile soak --workspace --locked --lib -E 'test(protocol)'
	POLYLANCE_STATEMENTS=100000 cargo nextest run --profile soak --workspace --locked --lib -E 'test(no_nesting_of_functions)'
	cargo build --workspace --locked --bins
	rm -rf "$(SOAK)" && mkdir -p "$(SOAK)"
	"$(TARGET)/debug/fake-run" "$(SOAK)" 10000000
	"$(TARGET)/debug/fake-run" "$(SOAK)" 10000000
	"$(TARGET)/debug/fake-run" "$(SOAK)" 10000000

# Not part of `test`: PyTorch takes gigabytes.
.PHONY: wheel-mteb
wheel-mteb: ## two small tasks of mteb with the wheel in dist/
	python3 -m venv "$(CACHE)/wheel-mteb"
	"$(CACHE)/wheel-mteb/bin/pip" install --quiet --force-reinstall --no-deps dist/*.whl
	"$(CACHE)/wheel-mteb/bin/pip" install --quiet --requirement tests/wheel/requirements-mteb.txt
	"$(CACHE)/wheel-mteb/bin/pytest" tests/wheel/test_mteb.py

.PHONY: generate
generate: ## write the JSON Schema of the pipeline file
	cargo run --locked --package polylance-cli -- schema --write schemas

.PHONY: reference
reference: ## write docs/reference/commands.md and the key tables of pipeline.md from the definitions
	POLYLANCE_UPDATE_REFERENCE=1 cargo test --locked --workspace --lib reference_pages

.PHONY: bench
bench: build ## criterion benchmarks, then the encoder and whole runs against their peers
	cargo bench --workspace --locked
	python3 tests/peers/bench_encoders.py "$(POLYLANCE)"
	python3 tests/peers/bench_sentence_transformers.py "$(POLYLANCE)"
	python3 tests/peers/bench_heads.py "$(POLYLANCE)"

# The build of the tests: most devices sleep, and kernels are optimized in it.
.PHONY: bench-cluster
bench-cluster: setup-test ## clusters and shards of simulated devices, and of the built-in model: overhead, speed, kills, memory; a quarter of an hour
	cargo build --workspace --locked --bins
	"$(TARGET)/debug/cluster-bench"

.PHONY: cuda-kernels
cuda-kernels: ## recompile the GPU's kernels into crates/cuda/assets
	@.ci/setup nvcc
	crates/cuda/kernels/build.sh "$$(.ci/setup nvcc-path)" crates/cuda/assets/polylance.fatbin

.PHONY: gpu-kit
gpu-kit: ## prepare .gpu, the folder for checking and measuring the engine on a machine with a GPU
	@gpu/kit.sh
