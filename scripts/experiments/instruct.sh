#!/usr/bin/env bash
# docs/experiments/instruct.md: the three protocols of "Mixture-of-Experts Meets Instruction Tuning" (arXiv 2305.14705) at toy scale, dense and
# sparse, a few minutes on one core. Runs with a receipt are not repeated.
# DATA=FOLDER [default: data] has arc_easy, gsm8k_test, HumanEval and blimp_* as .jsonl.gz; PROGRAMS=FOLDER takes moe-data and moe-train from there
# instead of compiling; other arguments go to instruct.py: --table, --seeds 1, --work DIR.
. "$(dirname "$0")/../lib.sh"
programs
cd "$repo"
python3 scripts/experiments/instruct.py --programs "$programs" --data "${DATA:-data}" "$@"
