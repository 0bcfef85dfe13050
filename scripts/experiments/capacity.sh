#!/usr/bin/env bash
# docs/experiments/capacity.md: four capacities in training by four in evaluation, five seeds each, a quarter of an hour of one core.
# What has a receipt is not run again. PROGRAMS=FOLDER takes moe-data and moe-train from there and compiles nothing; further words go to
# run.py: --table, --seeds 2, --steps 100, --work DIR.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${PROGRAMS:-}" ]; then
    cargo build --release --package moe-data --package moe-train
    PROGRAMS=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
python3 scripts/experiments/run.py docs/experiments/capacity.toml --programs "$PROGRAMS" "$@"
