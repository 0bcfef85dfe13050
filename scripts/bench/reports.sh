#!/usr/bin/env bash
# Time and memory of the report of a build with N documents, and of the report of two builds, for docs/benchmarks/reports.md: a third of the documents
# are copies, a fifth too short, the others 150 bytes long.
#   bash scripts/bench/reports.sh 1000000 target/release FOLDER
. "$(dirname "$0")/../lib.sh"
[ $# -eq 3 ] || usage
n=$1
programs=$(realpath "$2")
mkdir -p "$3"
cd "$3"
export PATH="$programs:$PATH"

[ -s corpus.jsonl ] || python3 - "$n" << 'PYTHON'
import json, random, sys
random.seed(1)
words = "the mountain of river and behind that with because have morning to winter wandering be stones under quiet gardens".split()
parts = [" ".join(random.choices(words, k=12)) for _ in range(5000)]
n = int(sys.argv[1])
with open("corpus.jsonl", "w", buffering=1 << 20) as file:
    for i in range(n):
        kind = i % 15
        if kind < 5:  # a copy of one of a few texts, or of many
            text = parts[i % 5000] + ". " + parts[i * 7 % 5000] + "."
        elif kind < 8:
            text = f"short {i}"
        else:
            text = f"{parts[i % 5000]}. {parts[i * 31 % 5000]} {i}."
        file.write(f'{{"id":"page-{i}","text":"{text}"}}\n')
PYTHON
recipe() {
    printf '[[source]]\nname = "pages"\npaths = ["corpus.jsonl"]\nid = "id"\n[[filter]]\nname = "length"\nmin_chars = %s\n[tokenizer]\ntrain = { vocab_size = 512, sample_bytes = "4MiB" }\n' "$1"
}
recipe 50 > a.toml
recipe 155 > b.toml
measure() {
    python3 - "$@" << 'PYTHON'
import resource, subprocess, sys, time
start = time.time()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{' '.join(sys.argv[1:3])}: {time.time() - start:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU, {used.ru_maxrss / 1024:.0f} MiB at most")
PYTHON
}
measure moe-data build --recipe a.toml --out a
measure moe-data mix --out a --epochs 2 --seq-len 256
measure moe-data report a
ls -l a/report.html
measure moe-data build --recipe b.toml --out b
measure moe-data report --compare a b -o compare.html
ls -l compare.html
