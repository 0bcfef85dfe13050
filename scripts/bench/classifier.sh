#!/bin/bash
# Trains classifiers of pages, here and with fastText's Python package on the same pages, and compares accuracy, time and speed.
#
#   bash scripts/bench/classifier.sh --data DIR
#
# DIR holds peps*.jsonl.gz, django_docs_5.2.jsonl.gz, rust_book_editions.jsonl.gz, us_speeches.jsonl.gz, books.jsonl.gz and
# bible/KJV.jsonl.gz with fields `id` and `text`. The package is installed into a temporary folder. Two experiments:
# "same": technical reference against speeches, novels and scripture, every fifth document held out of training;
# "other": trained on PEPs and Django against speeches and the Bible, tested on the Rust book against novels.
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
"$scratch/venv/bin/python" "$here/classifier.py" "$2" "$scratch" "$program"
