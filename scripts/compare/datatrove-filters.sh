#!/bin/bash
# Compares the verdicts and reasons of `gopher_quality`, `gopher_repetition` and `fineweb_quality`, document by document, with those of
# the Python package datatrove 0.10.1, which is installed into a temporary folder: once with our own words, once with datatrove's words given to both.
#
#   bash scripts/compare/datatrove-filters.sh --data DIR     all JSONL and WARC files below DIR
#
# Of records without a `text` field all that is text is taken, of pages all but tags. Files are shared out among processes, one a core.
# Prints a table by the files and folders of DIR, and ends with 1 when any verdict or reason differs on the same words.
set -euo pipefail
[ "${1:-}" = "--data" ] && [ -d "${2:-}" ] || { echo "usage: $0 --data DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p moe-data --example filter_verdicts
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'datatrove==0.10.1' 'spacy==3.8.18' 'xxhash<4' orjson nltk
"$scratch/venv/bin/python" "$here/datatrove_filters.py" "$2" "$target/release/examples/filter_verdicts"
