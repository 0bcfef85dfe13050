#!/usr/bin/env bash
# Kills training runs that save after every step a hundred times (or as often as said) with kill -9 at random moments, resumes
# them, and compares parameters, data and metrics with those of a run that was not killed.
#
#   scripts/kill-save.sh [KILLS]
set -euo pipefail
cd "$(dirname "$0")/.."
MOE_TEST_KILLS=${1:-100} cargo test -p moe-train --test it -- --exact --nocapture \
  kills::runs_killed_while_they_save_end_with_the_same_parameters
