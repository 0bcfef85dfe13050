#!/usr/bin/env bash
# Does `--memory` hold? Builds one corpus with exact and fuzzy deduplication and both kinds of cuts under several limits, and prints what
# the process takes at its peak before deduplication begins, and until it ends.
#
#   scripts/bench/dedup-memory.sh DATA DOCUMENTS "LIMIT..." [MOE_DATA]
#
# such as scripts/bench/dedup-memory.sh data 400000 "32MiB 128MiB 1GiB". DATA has the collections from which the pages are made;
# MOE_DATA is the program, without it a release build is made. Needs Python 3 and disk for four times the text.
set -euo pipefail
data=$(realpath "${1:?the folder with the collections}")
docs=${2:?a number of documents}
limits=${3:?limits, such as "32MiB 1GiB"}
program=${4:-}
cd "$(dirname "$0")/../.."
if [ -z "$program" ]; then
  cargo build --quiet --release --package moe-data
  program=${CARGO_TARGET_DIR:-target}/release/moe-data
fi
program=$(realpath "$program")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 scripts/bench/dedup/make_corpus.py "$work/corpus" --docs "$docs" --files 8 --data "$data" >&2
cat > "$work/recipe.toml" <<TOML
[[source]]
name = "pages"
paths = ["$work/corpus/*.jsonl"]
id = "id"
[tokenizer]
train = { vocab_size = 4096, sample_bytes = "1MB" }
[dedup.minhash]
estimate = 0
[dedup.paragraph]
min_documents = 3
[dedup.substring]
TOML
echo "| documents | limit | peak before | peak until the last cut | added | time until then |"
echo "| ---: | ---: | ---: | ---: | ---: | ---: |"
for limit in $limits; do
  rm -rf "$work/out"
  python3 - "$program" "$work" "$limit" "$docs" <<'PY'
import pathlib, subprocess, sys, time
program, work, limit, docs = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
start = time.monotonic()
process = subprocess.Popen([program, "--quiet", "build", "--recipe", work / "recipe.toml", "--out", work / "out", "--memory", limit])
before = after = 0
while process.poll() is None:
    try:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    except OSError:
        break
    if not (work / "out/work/removed").exists():
        before = peak
    if not (work / "out/work/train").exists():
        after, seconds = peak, time.monotonic() - start
    time.sleep(0.002)
assert process.wait() == 0
mib = lambda kib: f"{kib / 1024:.0f} MiB"
print(f"| {docs:,} | {limit} | {mib(before)} | {mib(after)} | {mib(after - before)} | {seconds:.0f} s |", flush=True)
PY
done
