#!/usr/bin/env bash
# Fuzzes a target with libFuzzer and coverage, on stable Rust: run.sh TARGET [SECONDS]. What it finds worth keeping goes
# to target/corpus below this folder; an input that fails is written there too, beside a line that names it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
target=${1:?name a target: frame, method, table, connection, recovery}
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares)
host=$(rustc -vV | sed -n 's/^host: //p')
# --target keeps the flags from build scripts.
RUSTFLAGS="${coverage[*]}" cargo build --release --target "$host"
found=${CARGO_TARGET_DIR:-target}/corpus/$target
mkdir -p "$found"
TARGET=$target exec "${CARGO_TARGET_DIR:-target}/$host/release/leveret-fuzz-coverage" -max_total_time="${2:-60}" \
    -max_len=20000 -artifact_prefix="$found/failed-" "$found" "../corpus/$target"
