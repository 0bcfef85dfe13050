#!/usr/bin/env bash
# Everything that has to be measured on an NVIDIA GPU, in one run of under nine minutes, without network.
#
#   scripts/gpu-check.sh MOE_TRAIN SHARDS OUT
#
# MOE_TRAIN is a release build with the feature `cuda` (it may be xz-compressed), SHARDS a folder with shards and plan (such as `out/` of
# the quickstart, with its tokenizer), OUT a folder for the results, including OUT/gpu-check.md, the table. Each word of OTHERS is a
# further build, NAME=FILE, whose 50 steps are compared with the first one's, and KERNEL_TESTS the test program of the crate
# `moe-kernels`, built with the feature `cuda`. PYTHON names a Python with PyTorch. DEVICE=cpu and PRESETS=smoke try the script itself.
#
# Build and carry: cargo build --release --package moe-train --features cuda
#   as OTHERS:     cargo build --release --package moe-train --features cuda-nvrtc
#                  cargo build --release --package moe-train --features cuda --no-default-features      (without fusion)
#   KERNEL_TESTS:  cargo test --release --package moe-kernels --features cuda --no-run
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 3 ] || { sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2; }
shards=$(realpath "$2")
mkdir -p "$3"
out=$(realpath "$3")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unpack() {
    case $1 in
        *.xz) xz -dc "$1" > "$work/$2" ;;
        *) cp "$1" "$work/$2" ;;
    esac && chmod +x "$work/$2"
}
unpack "$1" moe-train || exit 2
program=$work/moe-train
started=$SECONDS
device=${DEVICE:-cuda}
failed=()

# part NAME SECONDS COMMAND...: runs it within the time, keeps its output, notes a failure and continues.
part() {
    local name=$1 limit=$2
    shift 2
    local start=$SECONDS
    echo "=== $name"
    # In a shell of its own, since `timeout` knows programs and no functions.
    timeout "$limit" bash -c '"$@"' part "$@" > "$out/$name.log" 2>&1
    local code=$?
    tail -n 12 "$out/$name.log"
    echo "=== $name: exit $code, $((SECONDS - start)) s"
    [ $code -eq 0 ] || failed+=("$name")
    return $code
}

# train DIR DEVICE ARGS...: a short run of `tiny`.
train() {
    local dir=$1 device=$2
    shift 2
    "$program" --shards "$shards" --preset tiny --device "$device" --run "$work/$dir" \
        --set run.log_every=1 --set run.eval_every=100000 --set run.save_every=100000 --set data.validation_samples=8 "$@"
}

# losses DIR: step and cross-entropy of every step.
losses() { python3 -c '
import json, sys
for line in open(sys.argv[1]):
    record = json.loads(line)
    if "train/ce" in record:
        print(record["step"], record["train/ce"])' "$work/$1/metrics.jsonl"; }

compare() {
    python3 - "$@" <<'PY'
import sys
read = lambda path: {int(a): float(b) for a, b in map(str.split, open(path))}
a, b, limit = read(sys.argv[1]), read(sys.argv[2]), float(sys.argv[3])
steps = sorted(a.keys() & b.keys())
assert steps, "no step in common"
worst = max(steps, key=lambda step: abs(a[step] - b[step]))
print(f"{len(steps)} steps, largest difference of the loss {abs(a[worst] - b[worst]):.2e} at step {worst}; last losses {a[steps[-1]]:.5f} and {b[steps[-1]]:.5f}")
sys.exit(abs(a[worst] - b[worst]) > limit)
PY
}

export -f train compare
export program shards work

{ nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader; date -u +%F; "$program" --version; } | tee "$out/machine.txt"

# 1. Kernels compared with their plain forms, then 50 steps compared with the CPU.
[ -z "${KERNEL_TESTS:-}" ] || part kernel-tests 120 "$KERNEL_TESTS" --test-threads 1
part cpu-50 120 train cpu cpu --steps 50
part cuda-50 90 train cuda "$device" --steps 50
losses cpu > "$out/cpu.txt"
losses cuda > "$out/cuda.txt"
part cuda-against-cpu 10 compare "$out/cpu.txt" "$out/cuda.txt" 2e-3
part bf16-50 60 train bf16 "$device" --steps 50 --set precision.compute=bf16
losses bf16 > "$out/bf16.txt"
part bf16-against-cpu 10 compare "$out/cpu.txt" "$out/bf16.txt" 5e-2
part plain-50 60 train plain "$device" --steps 50 --set precision.compute=bf16 --set precision.tensor_cores=false
losses plain > "$out/plain.txt"
part plain-bf16-against-cpu 10 compare "$out/cpu.txt" "$out/plain.txt" 5e-2
first=$program
for other in ${OTHERS:-}; do
    name=${other%%=*}
    unpack "${other#*=}" "$name" || continue
    program=$work/$name
    part "$name-50" 60 train "run-$name" "$device" --steps 50
    losses "run-$name" > "$out/$name.txt"
    part "$name-against-cpu" 10 compare "$out/cpu.txt" "$out/$name.txt" 2e-3
done
program=$first

# 2. Resume: 40 steps at once, and 20 steps with 20 more after them.
part whole-40 60 train whole "$device" --steps 40 --json
part half-40 60 train half "$device" --steps 40 --set run.save_every=20 --json
part resumed-40 60 "$program" resume "$work/half" --from step-00000020 --device "$device" --json
python3 - "$out" <<'PY' | tee "$out/resume.txt"
import json, re, sys
def hash_of(name):
    text = open(f"{sys.argv[1]}/{name}.log").read()
    found = re.search(r'"parameter_hash": "([0-9a-f]+)"', text)
    return found.group(1)[:16] if found else "none"
hashes = [hash_of(name) for name in ("whole-40", "half-40", "resumed-40")]
print("parameters after 40 steps: at once", hashes[0], "| again", hashes[1], "| resumed at 20", hashes[2])
PY

# 3. Memory over 1,000 steps.
(while sleep 5; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null; done > "$out/memory.txt") &
watcher=$!
part steps-1000 120 "$program" --shards "$shards" --preset smoke --device "$device" --run "$work/long" --set run.steps=1000 \
    --set run.log_every=100 --set run.eval_every=100000 --set run.save_every=100000
kill $watcher
wait $watcher 2>/dev/null

# 4. Speed: parts compared with the machine's limits, whole steps, and PyTorch with the same geometry.
python=${PYTHON:-python3}
for preset in ${PRESETS:-mini-1b wide-1b}; do
    part "bench-$preset" 100 "$program" bench --preset "$preset" --steps 5 --repeats 5 --device "$device" --json
    part "bench-plain-$preset" 60 "$program" bench --preset "$preset" --steps 3 --repeats 3 --device "$device" --json --set precision.tensor_cores=false
    part "torch-$preset" 60 "$python" "$here/gpu/torch_moe.py" --preset "$preset" --steps 5 $([ "$device" = cpu ] && echo --cpu)
done
[ "$device" = cpu ] || part torch-compiled 90 "$python" "$here/gpu/torch_moe.py" --preset mini-1b --steps 5 --compile

python3 "$here/gpu/table.py" "$out" > "$out/gpu-check.md"
cat "$out/gpu-check.md"
echo "all of it: $((SECONDS - started)) s; failed: ${failed[*]:-nothing}"
[ ${#failed[@]} -eq 0 ]
