#!/usr/bin/env bash
# Raw text to a trained mixture-of-experts model in three commands, on a plain CPU.
# Input: 2.2 MB of text from datasets/. Output: out/ (shards and plan) and runs/tiny (checkpoints).
# Compiling takes a few minutes the first time, everything else a minute and a half, on two cores (docs/benchmarks/quickstart.md).
# PROGRAMS=FOLDER takes moe-data and moe-train from there instead of compiling.
. "$(dirname "$0")/lib.sh"
programs
cd "$repo"
export PATH="$programs:$PATH"

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
step() {
    say "$@"
    "$@"
}

started=$SECONDS
step moe-data build
step moe-data mix --epochs 4
if [ -e runs/tiny ]; then
    # A run is never overwritten; a finished one says so.
    step moe-train resume runs/tiny
else
    step moe-train --shards out/
fi
step moe-train sample runs/tiny --prompt "And the LORD said unto" --max-tokens 60
step moe-data report
step moe-train report runs/tiny
printf '\nquickstart: %d s without compiling\n' $((SECONDS - started))
