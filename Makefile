# make test: everything that CI runs, on a fresh machine too. make sim: a longer simulation.
.PHONY: test check compat sim fuzz

test: check compat

# Style, unit and property tests, simulation and fuzz smoke runs.
check:
	cargo xtask ci

# Real clients of seven languages and libraries against the running server.
compat:
	tests/install.sh
	cargo build --release
	python3 tests/compat/run.py

SIM_SECONDS ?= 600
sim:
	cargo run --release -p leveret-sim -- --seconds $(SIM_SECONDS)

FUZZ_SECONDS ?= 600
fuzz:
	for target in frame method table connection recovery; do \
		cargo run --profile fuzz -p leveret-fuzz -- $$target --seconds $(FUZZ_SECONDS) || exit 1; \
	done
