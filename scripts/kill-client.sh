#!/usr/bin/env bash
# Kills runs of the client fifty times (or as often as said) with kill -9 and compares the cache with that of a run that was not.
#
#   scripts/kill-client.sh [KILLS]
set -euo pipefail
cd "$(dirname "$0")/.."
MOE_TEST_KILLS=${1:-50} cargo test -p moe-llm --test it -- --exact --nocapture \
  kills::killed_runs_end_with_the_same_set_and_ask_little_twice
