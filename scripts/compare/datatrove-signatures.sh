#!/bin/bash
# Compares every MinHash signature of the profiles `datatrove` and `fineweb-v1` with those of the Python package
# datatrove 0.10.1, which is installed into a temporary folder.
#
#   bash scripts/compare/datatrove-signatures.sh --data DIR     all *.jsonl and *.jsonl.gz below DIR with a `text` field
#
# Prints, for each file and profile, how many signatures are equal, and ends with 1 when any differs.
set -euo pipefail
[ "${1:-}" = "--data" ] && [ -d "${2:-}" ] || { echo "usage: $0 --data DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p moe-data --example signatures
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'datatrove==0.10.1' 'spacy==3.8.18' 'xxhash<4' orjson nltk tokenizers
"$scratch/venv/bin/python" "$here/datatrove_signatures.py" "$2" "$target/release/examples/signatures"
