# make test: everything that CI runs, on a fresh machine too. make sim: a longer simulation.
.PHONY: test install check compat work page page-pictures crash crash-smoke sim fuzz

test: install check compat work page crash-smoke

# What the checks and the clients need, on Debian and Ubuntu; does nothing, quickly, when all is there.
install:
	tests/install.sh

# Style, unit and property tests, simulation and fuzz smoke runs, instruction counts.
check:
	cargo xtask ci

# Real clients of seven languages and libraries against the running server.
compat: install
	cargo build --release
	python3 tests/compat/run.py

# `leveret work` with real programs: how they end, are ended and killed, ten thousand at a time.
work:
	cargo build --release
	python3 tests/work/run.py

# The page in a real browser. `make page-pictures` makes docs/page-*.png anew.
page: install
	cargo build --release
	node tests/page/run.mjs

page-pictures: install
	cargo build --release
	node tests/page/run.mjs --pictures

# Kills of the real process under mixed load, a filesystem that is filled up (as root), backups, and directories that are
# taken away, held against every confirm.
CRASH_ROUNDS ?= 300
crash:
	cargo build --release
	python3 tests/crash/kill.py --rounds $(CRASH_ROUNDS)
	python3 tests/crash/full_disk.py --rounds 6
	python3 tests/crash/backup.py --copies 60
	python3 tests/crash/directory.py

crash-smoke:
	cargo build --release
	python3 tests/crash/kill.py --seconds 40
	python3 tests/crash/full_disk.py --rounds 1
	python3 tests/crash/backup.py --copies 4
	python3 tests/crash/directory.py

SIM_SECONDS ?= 600
sim:
	cargo run --release -p leveret-sim -- --seconds $(SIM_SECONDS)

FUZZ_SECONDS ?= 600
fuzz:
	for target in frame method table connection recovery; do \
		cargo run --profile fuzz -p leveret-fuzz -- $$target --seconds $(FUZZ_SECONDS) || exit 1; \
	done
