#!/usr/bin/env bash
# docs/experiments/balancers.md: eight ways of balancing experts, five seeds each, half an hour of one core.
# Runs with a receipt are not repeated. PROGRAMS=FOLDER takes moe-data and moe-train from there instead of compiling; other arguments go to
# run.py: --table, --seeds 2, --steps 100, --work DIR.
. "$(dirname "$0")/../lib.sh"
programs
cd "$repo"
python3 scripts/experiments/run.py docs/experiments/balancers.toml --programs "$programs" --figure maxvio "$@"
