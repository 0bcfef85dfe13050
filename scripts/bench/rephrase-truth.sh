#!/bin/sh
# How many faithful rephrasings by people pass the gates, and how many planted faults they catch.
#
#   sh scripts/bench/rephrase-truth.sh VERSIONS PROSE.jsonl.gz...   > table.md
#
# VERSIONS is a folder with versions of the same chapters (one .jsonl.gz each; `group`, `version`, `text` with a verse a
# line); the other arguments are files of prose (`id`, `text`). Takes about two minutes.
set -eu
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n 2,8p "$0"; exit 2; }
target=${CARGO_TARGET_DIR:-target}
cargo build -q --release -p moe-data --example rephrase_truth
rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
n=0
for data in "$@"; do
    n=$((n + 1))
    "$target/release/examples/rephrase_truth" "$data" > "$rows/$n.tsv"
done
python3 scripts/bench/rephrase-truth.py "$rows"/*.tsv
