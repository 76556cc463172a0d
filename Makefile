# What a person does with Plenum, one word each; `make` lists them.
# Every target installs what it needs and this machine lacks (perf/setup.sh).

SECONDS ?= 60
TARGET ?= 127.0.0.1:5060
SEEDS ?= 2000

.DEFAULT_GOAL := help
.PHONY: help build run call test sim sim-cost sipp bench demo kernel-times kernels flamegraph fuzz lint

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build:  ## the release binary, target/release/plenum
	@perf/setup.sh cmake
	cargo build --release -p engine

run: build  ## start a server on 127.0.0.1; more arguments in ARGS="..."
	@echo
	@echo "call in:  any SIP phone to sip:lobby@127.0.0.1:5060, or in another terminal: make call"
	@echo "look in:  http://127.0.0.1:8080/api/v1/status and /metrics      stop: Ctrl-C"
	@echo
	@cargo run --quiet --release -p engine -- serve $(ARGS)

call: build  ## call the running server with a tone for ten seconds
	@cargo run --quiet --release -p engine -- call sip:lobby@$(TARGET) --tone 440 --seconds 10

test:  ## every test, end to end with SIPp, baresip, linphone and Kamailio too
	@perf/setup.sh cmake sipp baresip linphonec kamailio kill xmllint ip
	cargo test --workspace

sim:  ## the whole service in virtual time, SEEDS=2000 of them; PLENUM_SIM_SEED=1 replays one
	@perf/setup.sh cmake
	PLENUM_SIM_SEEDS=$(SEEDS) cargo test -p engine --lib sim::tests::every_seed -- --nocapture

sim-cost:  ## what 3, 10 and 50 servers say to each other, and how long callers wait, in virtual time
	@perf/setup.sh cmake
	PLENUM_SIM_COST=1 cargo test --release -p engine --lib sim::tests::costs_and_waits -- --nocapture

sipp:  ## SIPp scenarios against a running server, TARGET=host:port
	@perf/setup.sh sipp
	perf/sipp/run.sh $(TARGET)

bench:  ## how much: limit, capacity, calls, memory, peers, into perf/RESULTS.md; half an hour
	@perf/setup.sh cmake sipp janus curl kill
	cargo build --release -p engine -p perf
	perf/bench.sh $(SECTIONS)

demo:  ## a conference paper's experiment, live: a service that grows against one server; ARGS="..."
	@perf/setup.sh cmake
	cargo build --release -p engine -p perf
	@cargo run --quiet --release -p perf -- paper $(ARGS) >/dev/null

kernel-times:  ## how fast: the audio kernels, and a shard's turn without the network
	@perf/setup.sh cmake
	cargo bench --workspace

kernels:  ## instructions of every audio kernel at every level, the same on each run
	@perf/setup.sh valgrind
	perf/kernels.sh

flamegraph:  ## where the time goes under load, into flamegraphs/; W=hall for one workload
	@perf/setup.sh cmake sipp
	flamegraphs/record.sh $(W)

fuzz:  ## hostile bytes; SECONDS=60 for each target, FUZZ_TARGET=one for one
	@perf/setup.sh c++ cargo-fuzz
	perf/fuzz/run.sh $(SECONDS) $(FUZZ_TARGET)

# The protocol crates take time and bytes as arguments and never ask the world for
# them: .ci/sans-io/clippy.toml names the calls that would.
lint:  ## format, clippy and documentation, warnings are errors
	@perf/setup.sh cmake rustfmt clippy
	cargo fmt --all --check
	cargo fmt --manifest-path perf/fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	CLIPPY_CONF_DIR=$(CURDIR)/.ci/sans-io cargo clippy --lib -p sip -p cfw -p rtp -p mixer-simd -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
