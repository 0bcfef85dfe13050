#!/usr/bin/env bash
# Measures the cleaning rules on one thread, in MB of text per CPU second, compared with datatrove 0.10.1 where it has the same,
# and counts what `pii` finds. datatrove is installed into a temporary folder.
#
#   bash scripts/bench/cleaning.sh --data DIR     all *.jsonl and *.jsonl.gz below DIR with a `text` field
. "$(dirname "$0")/../lib.sh"
[ "${1:-}" = --data ] && [ -d "${2:-}" ] || usage
scratch
rules=$(example apply_rules)
python=$(venv "$work/venv" "${datatrove[@]}")
"$python" "$here/cleaning.py" "$2" "$rules"
