#!/usr/bin/env bash
# docs/experiments/upcycling.md: a dense model, three mixtures made of it, and two from nothing, five seeds each, half an hour of one core.
# Runs with a receipt are not repeated. PROGRAMS=FOLDER takes moe-data and moe-train from there instead of compiling; other arguments go to
# run.py: --table, --seeds 2, --steps 100, --work DIR.
. "$(dirname "$0")/../lib.sh"
programs
cd "$repo"
python3 scripts/experiments/run.py docs/experiments/upcycling.toml --programs "$programs" "$@"
