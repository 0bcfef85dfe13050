#!/usr/bin/env bash
# Tests the adapters of the Python package against PyTorch, torchdata, torchtitan, Megatron-Core, transformers and nanotron from PyPI, on the
# CPU. Run by hand: they are a download of 4 GB, and 6 GB on disk. Takes a few minutes.
#
#   bash scripts/interop/trainers.sh OUT PHASED VENV
#
# OUT has a plan with one sequence length, PHASED one with 256 and 512 tokens (configs/mix-phases.toml). VENV is created, or reused.
. "$(dirname "$0")/../lib.sh"
[ $# -eq 3 ] || usage
out=$(realpath "$1") phased=$(realpath "$2") folder=$3
python=$(venv "$folder" 'maturin==1.*' numpy torch torchdata datasets transformers accelerate megatron-core torchtitan)
# Its dependencies ask for older versions than those of the others, and for a CUDA compiler.
venv "$folder" --no-deps nanotron dacite > /dev/null
scratch
"$folder/bin/maturin" build --quiet --release --locked --manifest-path "$repo/python/Cargo.toml" --out "$work" --target-dir "$target/python"
venv "$folder" --no-deps --force-reinstall "$work"/moe_shards-*.whl > /dev/null
"$python" "$here/check_trainers.py" "$out" "$phased"
"$python" "$here/check_loop.py" "$out" "$work" 3 "$here/train_loop_torch.py"
