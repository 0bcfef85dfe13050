#!/usr/bin/env bash
# What a build on executors of Apache Ballista costs over one in a single process, and what a second executor gains: the same build of
# generated pages (scripts/bench/dedup/make_corpus.py) with one and two threads, and on one and two executors of one core each, all on
# this machine, one after the other. The outputs must be the same. Prints the table of docs/scale.md.
#
#   scripts/bench/executors.sh MOE_DATA DATA FOLDER
#
# MOE_DATA has the feature `cluster`; DATA has the collections (*.jsonl.gz) from which the corpus is made; FOLDER keeps the corpus. SIZE
# (default 400000) is the number of documents. Nothing else may run meanwhile, since the driver and two executors share the cores.
. "$(dirname "$0")/../lib.sh"
[ $# = 3 ] || usage
binary=$(realpath "$1")
data=$(realpath "$2")
folder=$(mkdir -p "$3" && realpath "$3")
size=${SIZE:-400000}
[ -f "$folder/corpus-$size/truth.json" ] ||
    python3 "$repo/scripts/bench/dedup/make_corpus.py" "$folder/corpus-$size" --docs "$size" --data "$data" >&2
work=$(mktemp -d "$folder/executors.XXXXXX")
executors=()
cleanup() {
    for pid in "${executors[@]}"; do
        kill -KILL "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
sed "s|CORPUS|$folder/corpus-$size|" "$here/scale.toml" > recipe.toml
port=$(python3 -c '
import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])')

# CPU time of all executors so far, in ticks of the clock.
used() {
    local pid total=0
    for pid in "${executors[@]}"; do
        total=$((total + $(awk '{ print $14 + $15 }' "/proc/$pid/stat")))
    done
    echo "$total"
}
# row NAME FLAGS...: a build, its seconds, and the CPU seconds of the build and of its executors.
row() {
    local name=$1 before
    shift
    rm -rf out
    before=$(used)
    python3 "$repo/scripts/bench/dedup/measure.py" -- "$binary" --quiet build --recipe recipe.toml --out out --memory 256MiB "$@" > run.json
    python3 - "$name" run.json "$before" "$(used)" "$(getconf CLK_TCK)" <<'PY'
import json, sys
name, run, before, after, ticks = sys.argv[1:]
run = json.load(open(run))
others = (int(after) - int(before)) / int(ticks)
print(f"| {name} | {run['wall_s']:.1f} s | {run['cpu_s']:.1f} s | {others:.1f} s | {run['peak_mb']:.0f} MB |", flush=True)
PY
    sha=$(cd out && find MANIFEST.json ledger.json shards -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
    [ "${first:=$sha}" = "$sha" ] || { echo "$name: other bytes"; exit 1; }
}
echo "| $size documents | wall time | CPU time of the build | CPU time of executors | peak memory of the build |"
echo "| --- | ---: | ---: | ---: | ---: |"
row "one process, one thread" --threads 1
row "one process, two threads" --threads 2
for n in 1 2; do
    "$binary" -q executor --scheduler "127.0.0.1:$port" --vcores 1 --memory 256MB --patience 600 --work-dir "$work/rows-$n" &
    executors+=($!)
    row "$n executor$([ $n = 1 ] || echo s) of one core" --engine ballista --listen "127.0.0.1:$port" --threads 1
done
