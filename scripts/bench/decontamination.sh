#!/bin/bash
# What decontamination finds: in all texts of a folder (where nothing was planted), and in 40,000 pages with planted evaluation texts.
#
#   bash scripts/bench/decontamination.sh --data DIR
#
# DIR holds JSONL files with a `text` field, and in DIR/eval the evaluation sets gsm8k_test, HumanEval, arc_easy and blimp_* as .jsonl.gz.
set -euo pipefail
[ "${1:-}" = "--data" ] && [ -d "${2:-}" ] || { echo "usage: $0 --data DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
program=${MOE_DATA:-}
if [ -z "$program" ]; then
    cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p moe-data
    program=$target/release/moe-data
fi
python3 "$here/dedup/make_corpus.py" "$scratch/corpus" --data "$2" > /dev/null
python3 "$here/decontamination.py" "$2" "$scratch" "$program"
