#!/usr/bin/env bash
# Tables of true near-duplicates against MinHash, for docs/benchmarks/dedup.md.
#
#   scripts/bench/dedup-truth.sh DATA
#
# DATA has the collections and truth/dedup_dev_*.tsv (Jaccard index of word 5-grams, id, id). The labels leave out most pairs
# of short pages made from a template, so all pairs are found again by brute force, and the labeled ones must be among them.
. "$(dirname "$0")/../lib.sh"
data=$(realpath "${1:?the folder with truth/ and the collections}")
scratch
python=$(venv "$work/venv" numpy)
program=$(example dedup_truth)
cd "$repo"
table() {
    "$python" scripts/bench/dedup/truth.py "${@:3}" --min 0.3 --out "$work/$2.tsv" >&2
    "$python" scripts/bench/dedup/agree.py "$data/truth/dedup_dev_$2.tsv" "$work/$2.tsv"
    "$program" --name "$1" --truth "$work/$2.tsv" "${@:3}"
}
table "Django 4.2 and 5.2 documentation" django "$data"/django_docs_{4.2,5.2}.jsonl.gz
table "The Rust book, five editions" rustbook "$data"/rust_book_editions.jsonl.gz
table "Books, PEPs and speeches" books_peps_speeches "$data"/{books,peps_even,us_speeches}.jsonl.gz
table "Five English Bibles by chapter" bible "$data"/bible/{KJV,ASV,BBE,YLT,WEB}.jsonl.gz
