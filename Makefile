# Penstock. `make help` lists the targets; every target installs what it needs on Debian 12 with Rust.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

build: ## the daemons and the command line, optimised
	scripts/packages build
	cargo build --release --workspace --bins

deb: ## the Debian package, in target/deb
	scripts/packages build
	cargo build --release --workspace --bins
	packaging/build-deb target/release target/deb

demo: ## two gateways, two hosts, real traffic; HOLD=1 leaves them running
	scripts/packages build demo
	cargo build --release --workspace --bins
	target/release/penstock-demo $(if $(HOLD),--hold)

demo-l3vpn: ## two customers with the same addresses, two PEs, MPLS over ESP between them; HOLD=1 leaves them running
	scripts/packages build demo
	cargo build --release --workspace --bins
	target/release/penstock-demo-l3vpn $(if $(HOLD),--hold)

ebpf: ## the XDP object, rebuilt from source with Debian's toolchain
	ebpf/build-object ebpf/penstock-xdp.o

test: ## every test, as root; fails where one fails
	scripts/packages build test
	cargo test --workspace

test-vm: test-vlan ## in virtual machines without KVM: VLANs, VRFs, zero-copy on igb and virtio NICs; caches 0.8 GB in /var/tmp
	scripts/packages build demo machine vm
	bench/vm/prepare
	bench/vm/peers
	cargo test --workspace --test vm --test kernel_vrf --test kernel_pktgen --no-run
	cargo test --workspace --test kernel_vrf
	cargo test --workspace --test kernel_pktgen
	timeout --foreground 1800 cargo test --workspace --test vm -- --test-threads 1

# Runs test programs in a virtual machine of Debian's kernel.
in_machine = CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$(CURDIR)/bench/vm/run

test-vlan: ## VLAN ports with the kernel's VLAN links, in a virtual machine where this kernel has none
	scripts/packages build demo machine
	cargo build --workspace --bins
	modprobe 8021q 2>/dev/null || export $(in_machine); cargo test --workspace --test vlan -- --test-threads 1

loom: ## the concurrency models: replay window, sequence numbers, rings, publication
	scripts/packages build
	RUSTFLAGS="--cfg loom" cargo test -p dataplane --lib --target-dir target/loom loom_

bench: ## everything measured in memory: pipeline, AEADs, tables
	$(MAKE) bench-pipeline
	cargo bench --workspace --benches

bench-pipeline: ## cycles per packet of the packet path in memory; JSON=FILE keeps the records
	scripts/packages build
	cargo build --release -p bench --bin penstock-pipeline
	taskset -c $(or $(CORE),0) target/release/penstock-pipeline $(if $(JSON),--json $(JSON))

bench-e2e: ## throughput and processor time beside wireguard-go, strongSwan's userspace ESP and plain forwarding; about 10 minutes
	scripts/packages build demo e2e
	cargo build --release --workspace --bins
	target/release/penstock-e2e --report bench/results/end-to-end

bench-scrape: ## what a scrape costs, with 10,000 tunnels up: its time, and a worker's time a packet with and without it
	scripts/packages build demo test
	cargo build --release --workspace --bins
	target/release/penstock-scrape

ike-sim: ## IKEv2 between two endpoints over a network that does its worst; SEEDS=10000, FIRST=0
	scripts/packages build
	IKE_SIM_SEEDS=$(or $(SEEDS),10000) IKE_SIM_FIRST=$(or $(FIRST),0) cargo test --release -p ike --test simulation

instructions: ## instructions of the packet path, compared with the committed counts; WRITE=1 commits new ones
	scripts/packages build instructions
	cargo build --release -p bench --bin penstock-pipeline --bin penstock-instructions
	target/release/penstock-instructions $(if $(WRITE),--write)

ctgrind: ## no branch or address of the library-backed crypto depends on a key or a text: valgrind with these undefined
	scripts/packages build instructions
	cargo build -p esp-aead --example ctgrind
	valgrind -q --error-exitcode=9 target/debug/examples/ctgrind
	! valgrind -q --error-exitcode=9 --log-file=/dev/null target/debug/examples/ctgrind --leak

fuzz: ## every fuzz target, or TARGETS, for FOR seconds each (5)
	scripts/packages build
	fuzz/run $(or $(FOR),5) $(TARGETS)

docs: ## the book, in target/book; mdBook comes from PyPI's package of it
	scripts/packages build docs
	scripts/mdbook build docs

lint: ## format, clippy, documentation, dependency rules
	scripts/packages build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test vm --test vlan --test kernel_vrf --test kernel_pktgen -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	scripts/deny

.PHONY: ctgrind docs help build deb demo demo-l3vpn ebpf test test-vlan test-vm loom bench bench-pipeline bench-e2e bench-scrape ike-sim instructions fuzz lint
