#!/usr/bin/env bash
# docs/experiments/repetition.md: 30 arms, three seeds each, two hours of one core. BIBLES names the folder of the translations.
# Runs with a receipt are not repeated. PROGRAMS=FOLDER takes moe-data and moe-train from there instead of compiling; other arguments go to
# run.py: --table, --seeds 1, --steps 100, --work DIR.
. "$(dirname "$0")/../lib.sh"
programs
cd "$repo"
python3 scripts/experiments/run.py docs/experiments/repetition.toml --programs "$programs" "$@"
# Only when nothing is made elsewhere, or made smaller.
[[ " $* " == *" --scale "* || " $* " == *" --steps "* || " $* " == *" --dry-run "* ]] || python3 scripts/experiments/worth.py docs/experiments/repetition.toml
