#!/usr/bin/env bash
# Trains page classifiers, with moe-data and with fastText's Python package on the same pages, and compares accuracy, time and speed.
#
#   bash scripts/bench/classifier.sh --data DIR
#
# DIR holds peps*.jsonl.gz, django_docs_5.2.jsonl.gz, rust_book_editions.jsonl.gz, us_speeches.jsonl.gz, books.jsonl.gz and
# bible/KJV.jsonl.gz with fields `id` and `text`. The package is installed into a temporary folder. Two experiments:
# "same": technical reference against speeches, novels and scripture, every fifth document held out of training;
# "other": trained on PEPs and Django against speeches and the Bible, tested on the Rust book against novels.
. "$(dirname "$0")/../lib.sh"
[ "${1:-}" = --data ] && [ -d "${2:-}" ] || usage
scratch
program=$(program moe-data "${MOE_DATA:-}")
python=$(venv "$work/venv" fasttext-wheel==0.9.2 'numpy<2')
"$python" "$here/classifier.py" "$2" "$work" "$program"
