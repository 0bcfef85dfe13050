#!/usr/bin/env bash
# How many faithful human rephrasings pass the gates, and how many planted faults the gates catch.
#
#   bash scripts/bench/rephrase-truth.sh VERSIONS PROSE.jsonl.gz...   > table.md
#
# VERSIONS is a folder with versions of the same chapters (one .jsonl.gz each; `group`, `version`, `text` with one verse per
# line); the other arguments are files of prose (`id`, `text`). Takes about two minutes.
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
rephrase_truth=$(example rephrase_truth)
scratch
n=0
for data in "$@"; do
    n=$((n + 1))
    "$rephrase_truth" "$data" > "$work/$n.tsv"
done
python3 "$here/rephrase-truth.py" "$work"/*.tsv
