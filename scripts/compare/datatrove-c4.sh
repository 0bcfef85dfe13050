#!/bin/bash
# Compares the rules c4_quality and c4_paragraphs with the Python package datatrove 0.10.1, which is installed into a
# temporary folder: verdict, reason, sentences and the text that is left, document by document.
#
#   bash scripts/compare/datatrove-c4.sh --data DIR     all *.jsonl and *.jsonl.gz below DIR with a `text` field
#
# Prints a Markdown table; ends with 1 when more than 1 % of the verdicts or texts differ.
set -euo pipefail
[ "${1:-}" = "--data" ] && [ -d "${2:-}" ] || { echo "usage: $0 --data DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p moe-data --example apply_rules
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'datatrove==0.10.1' 'spacy==3.8.18' 'xxhash<4' orjson nltk
"$scratch/venv/bin/python" "$here/datatrove_c4.py" "$2" "$target/release/examples/apply_rules"
