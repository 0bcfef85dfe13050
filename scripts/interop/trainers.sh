#!/usr/bin/env bash
# Tests the adapters of the Python package against PyTorch, torchdata, torchtitan, Megatron-Core, transformers and nanotron from PyPI, on the
# CPU. By hand: they are a download of 4 GB, and 6 GB on the disk. Some minutes.
#
#   bash scripts/interop/trainers.sh OUT PHASED VENV
#
# OUT has a plan of one length of sequences, PHASED one of 256 and 512 tokens (configs/mix-phases.toml). VENV is made, or used again.
set -euo pipefail
out=$(realpath "$1") phased=$(realpath "$2") venv=$3
repo=$(cd "$(dirname "$0")/../.." && pwd)
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'maturin==1.*' numpy torch torchdata datasets transformers accelerate megatron-core torchtitan
    # Its dependencies ask for older versions of the others' and for a compiler of CUDA.
    "$venv/bin/pip" install --quiet --no-deps nanotron dacite
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$venv/bin/maturin" build --quiet --release --locked --manifest-path "$repo/python/Cargo.toml" --out "$scratch" \
    --target-dir "$(realpath -m "${CARGO_TARGET_DIR:-$repo/target}")/python"
"$venv/bin/pip" install --quiet --no-deps --force-reinstall "$scratch"/moe_shards-*.whl
"$venv/bin/python" "$repo/scripts/interop/check_trainers.py" "$out" "$phased"
"$venv/bin/python" "$repo/scripts/interop/check_loop.py" "$out" "$scratch" 3 "$repo/scripts/interop/train_loop_torch.py"
