#!/usr/bin/env bash
# Near-duplicate removal by moe-data, datatrove and rensa on one corpus, one after the other on this machine: time, peak memory of
# the process tree, recall and precision against brute force. Prints the table of docs/benchmarks/dedup.md.
#
#   scripts/bench/dedup-peers.sh DATA FOLDER [MOE_DATA]
#
# DATA has the collections (*.jsonl.gz) from which the corpus is made; FOLDER keeps the corpora, truths and the virtual environment
# (4 GB), so that a second run is shorter. MOE_DATA is the program; without it a release build is made. Needs Python 3 and pip.
# SIZES (default "40000 400000") and SLOWEST, the largest size that datatrove gets (default 40000), may be set. Larger corpora are not scored:
# finding all true pairs takes much longer than any of the tools.
. "$(dirname "$0")/../lib.sh"
data=$(realpath "${1:?the folder with the collections}")
work=$(mkdir -p "${2:?a folder for the corpora}" && realpath "$2")
program=$(program moe-data "${3:-}")
cd "$repo"
tools=scripts/bench/dedup
python=$(venv "$work/venv" "datatrove[processing]==0.10.1" rensa==0.5.0 spacy orjson nltk "xxhash<4" numpy pyarrow)
slowest=${SLOWEST:-40000}
row() { # name, size, corpus, survivors, measurement
  rm -f "$work/score.json"
  [ "$2" -gt "$slowest" ] || "$python" $tools/score.py --truth "$work/truth-$2.tsv" --ids "$3" --survivors "$4" --json > "$work/score.json"
  "$python" - "$1" "$2" "$5" "$work/score.json" "$4" <<'PY'
import json, os, sys
name, size, run = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3]))
score = json.load(open(sys.argv[4])) if os.path.exists(sys.argv[4]) else None
removed = score["removed"] if score else size - sum(1 for _ in open(sys.argv[5], encoding="utf-8"))
scored = f"{score['recall']:.3f} | {score['precision']:.3f}" if score else "not scored | not scored"
print(f"| {name} | {size:,} | {run['wall_s']:.1f} s | {run['cpu_s']:.1f} s | {run['cpu_s'] / size * 1000:.2f} ms | {run['peak_mb']:.0f} MB "
      f"| {removed:,} | {scored} |", flush=True)
PY
}
ours() { # name, size, corpus, keys
  { printf '[[source]]\nname = "pages"\npaths = ["%s/*.jsonl"]\nid = "id"\n' "$3"
    printf '[tokenizer]\ntrain = { vocab_size = 4096, sample_bytes = "4MB" }\n[dedup.minhash]\nestimate = 0\n%b' "$4"; } > "$work/recipe.toml"
  rm -rf "$work/out"
  "$python" $tools/measure.py -- "$program" --quiet build --recipe "$work/recipe.toml" --out "$work/out" > "$work/run.json"
  "$python" $tools/survivors.py "$3" "$work/out" > "$work/survivors.txt"
  row "$1" "$2" "$3" "$work/survivors.txt" "$work/run.json"
}
peer() { # name, size, corpus, script, more arguments
  rm -rf "$work/peer"
  "$python" $tools/measure.py -- "$python" $tools/"$4" "$3" "$work/peer" "${@:5}" > "$work/run.json" 2> "$work/peer.log"
  row "$1" "$2" "$3" "$work/peer/survivors.txt" "$work/run.json"
}
echo "| tool | documents | wall time | CPU time | CPU time a document | peak memory | removed | recall | precision |"
echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
for size in ${SIZES:-40000 400000}; do
  corpus=$work/corpus-$size
  [ -f "$corpus/truth.json" ] || "$python" $tools/make_corpus.py "$corpus" --docs "$size" --data "$data" >&2
  [ "$size" -gt "$slowest" ] || [ -f "$work/truth-$size.tsv" ] || {
    "$python" $tools/truth.py "$corpus" --min 0.6 --out "$work/truth.tmp" >&2
    mv "$work/truth.tmp" "$work/truth-$size.tsv"
  }
  ours "moe-data, the whole build" "$size" "$corpus" ''
  ours "moe-data, the whole build, \`profile = \"datatrove\"\`, \`verify = \"off\"\`" "$size" "$corpus" 'profile = "datatrove"\nverify = "off"\n'
  peer "rensa 0.5.0, in Python" "$size" "$corpus" peer_rensa.py
  [ "$size" -gt "$slowest" ] || peer "datatrove 0.10.1, 2 workers" "$size" "$corpus" peer_datatrove.py --workers 2
done
