#!/usr/bin/env bash
# What decontamination finds: in all texts of a folder (where nothing was planted), and in 40,000 pages with planted evaluation texts.
#
#   bash scripts/bench/decontamination.sh --data DIR
#
# DIR holds JSONL files with a `text` field, and in DIR/eval the evaluation sets gsm8k_test, HumanEval, arc_easy and blimp_* as .jsonl.gz.
. "$(dirname "$0")/../lib.sh"
[ "${1:-}" = --data ] && [ -d "${2:-}" ] || usage
scratch
program=$(program moe-data "${MOE_DATA:-}")
python3 "$here/dedup/make_corpus.py" "$work/corpus" --data "$2" > /dev/null
python3 "$here/decontamination.py" "$2" "$work" "$program"
