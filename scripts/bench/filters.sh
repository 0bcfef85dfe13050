#!/usr/bin/env bash
# Reading and all rules of the profile `fineweb` but the language, over 40,000 pages of real text, beside datatrove 0.10.1 with two workers.
#
#   scripts/bench/filters.sh DATA [MOE_DATA]
#
# DATA is a folder of *.jsonl.gz from which scripts/bench/dedup/make_corpus.py makes the pages. MOE_DATA is the program; without it a
# release build is made. datatrove is installed into a temporary folder and takes minutes. SKIP_PEER=1 leaves it out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
program=${2:-}
if [ -z "$program" ]; then
  cargo build --quiet --release --package moe-data
  program=${CARGO_TARGET_DIR:-target}/release/moe-data
fi
program=$(realpath "$program")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 "$here/dedup/make_corpus.py" corpus --data "$data"
# The last filter drops all that is left, so that the build ends behind its filters.
cat > recipe.toml <<'TOML'
[[source]]
name = "pages"
paths = ["corpus/*.jsonl"]
id = "id"
[filters]
profile = "fineweb"
without = ["language"]
[[filter]]
name = "length"
min_chars = 900_000_000
max_chars = 1_000_000_000
[dedup]
exact = false
[tokenizer]
train = { vocab_size = 300 }
TOML
cat > run.py <<'PY'
import json, re, resource, subprocess, sys
docs, n_bytes = (json.load(open("corpus/truth.json"))[key] for key in ("docs", "bytes"))


def report(name, seconds, memory):
    rate = docs / seconds
    print(f"{name}: {seconds:.2f} s, {rate:.0f} documents/s, {rate / 2:.0f} documents/s/core, {n_bytes / seconds / 1e6:.1f} MB/s, largest process {memory / 1024:.0f} MiB", flush=True)


if sys.argv[1] == "ours":
    best = None
    for _ in range(3):
        subprocess.run(["rm", "-rf", "out"], check=True)
        done = subprocess.run([sys.argv[2], "build", "--recipe", "recipe.toml", "--threads", "2"], stderr=subprocess.PIPE, text=True)
        lines = {line.split()[0]: line for line in done.stderr.splitlines() if line.startswith(("read", "filter"))}
        if set(lines) != {"read", "filter"} or "no document is left" not in done.stderr:
            sys.exit(done.stderr)
        times = {name: float(re.search(r"([0-9.]+) s$", line).group(1)) for name, line in lines.items()}
        best = times if best is None or sum(times.values()) < sum(best.values()) else best
    print("\n".join(line for line in done.stderr.splitlines() if re.match(r"\s+[a-z_0-9]+: [0-9]+$", line)))
    report(f"moe-data (read {best['read']:.2f} s, filter {best['filter']:.2f} s; best of 3)", sum(best.values()), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
else:
    import time
    start = time.monotonic()
    subprocess.run([sys.executable, "peer.py"], check=True, stdout=subprocess.DEVNULL, stderr=open("peer.log", "w"))
    report("datatrove 0.10.1, 2 workers", time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
PY
cat > peer.py <<'PY'
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader

if __name__ == "__main__":
    steps = [JsonlReader("corpus", glob_pattern="*.jsonl"), GopherRepetitionFilter(), GopherQualityFilter(),
             C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]
    LocalPipelineExecutor(steps, tasks=4, workers=2, logging_dir="logs").run()
PY
python3 run.py ours "$program"
[ -z "${SKIP_PEER:-}" ] || exit 0
python3 -m venv venv
venv/bin/pip install --quiet 'datatrove==0.10.1' 'spacy==3.8.18' 'xxhash<4' orjson nltk
venv/bin/python run.py theirs
