#!/usr/bin/env bash
# Tables of labelled near-duplicates against MinHash, for docs/benchmarks/dedup.md.
#
#   scripts/bench/dedup-truth.sh DATA
#
# DATA has truth/dedup_dev_*.tsv (Jaccard index of word 5-grams, id, id) and the collections they name.
set -euo pipefail
data=$(realpath "${1:?the folder with truth/ and the collections}")
cd "$(dirname "$0")/../.."
cargo build --release --quiet -p moe-data --example dedup_truth
program=${CARGO_TARGET_DIR:-target}/release/examples/dedup_truth
table() { "$program" --name "$1" --truth "$data/truth/dedup_dev_$2.tsv" "${@:3}"; }
table "Django 4.2 and 5.2 documentation" django "$data"/django_docs_{4.2,5.2}.jsonl.gz
table "The Rust book, five editions" rustbook "$data"/rust_book_editions.jsonl.gz
table "Books, PEPs and speeches" books_peps_speeches "$data"/{books,peps_even,us_speeches}.jsonl.gz
table "Five English Bibles by chapter" bible "$data"/bible/{KJV,ASV,BBE,YLT,WEB}.jsonl.gz
