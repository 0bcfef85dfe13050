#!/usr/bin/env bash
# docs/experiments/capacity.md: four capacities in training with four in evaluation, five seeds each, a quarter of an hour of one core.
# Runs with a receipt are not repeated. PROGRAMS=FOLDER takes moe-data and moe-train from there instead of compiling; other arguments go to
# run.py: --table, --seeds 2, --steps 100, --work DIR.
. "$(dirname "$0")/../lib.sh"
programs
cd "$repo"
python3 scripts/experiments/run.py docs/experiments/capacity.toml --programs "$programs" --figure loss "$@"
