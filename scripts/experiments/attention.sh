#!/usr/bin/env bash
# docs/experiments/attention.md: seven kinds of attention, three seeds each, three quarters of an hour of one core.
# Runs with a receipt are not repeated. PROGRAMS=FOLDER takes moe-data and moe-train from there instead of compiling; other arguments go to
# run.py: --table, --seeds 1, --steps 100, --work DIR.
. "$(dirname "$0")/../lib.sh"
programs
cd "$repo"
python3 scripts/experiments/run.py docs/experiments/attention.toml --programs "$programs" --figure loss "$@"
