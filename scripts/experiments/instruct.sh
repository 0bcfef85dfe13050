#!/usr/bin/env bash
# docs/experiments/instruct.md: the three protocols of "Mixture-of-Experts Meets Instruction Tuning" (arXiv 2305.14705) at toy scale, dense and
# sparse, some minutes of one core. What has a receipt is not run again.
#   DATA=FOLDER has arc_easy, gsm8k_test, HumanEval and blimp_* as .jsonl.gz; PROGRAMS=FOLDER takes moe-data and moe-train from there and
# compiles nothing; further words go to instruct.py: --table, --seeds 1, --work DIR.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${PROGRAMS:-}" ]; then
    cargo build --release --package moe-data --package moe-train
    PROGRAMS=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
python3 scripts/experiments/instruct.py --programs "$PROGRAMS" --data "${DATA:-../shared/data/eval}" "$@"
