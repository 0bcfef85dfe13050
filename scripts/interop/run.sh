#!/usr/bin/env bash
# Exports a build and its plan, and reads everything back with Megatron-Core's own IndexedDataset and
# with NumPy. Size: the packages are about 20 MB; PyTorch is not installed, see check_megatron.py.
#
# Usage: scripts/interop/run.sh OUT [MOE_DATA]    (OUT: a folder with shards and a plan)
set -euo pipefail
out=$(realpath "$1")
moe_data=${2:-moe-data}
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet numpy
"$scratch/venv/bin/pip" install --quiet --no-deps megatron-core==0.16.1

"$moe_data" export --megatron --npy --plan-npy --rows --out "$out" --to "$scratch/export" >/dev/null
"$scratch/venv/bin/python" "$here/check_megatron.py" "$out"
"$scratch/venv/bin/python" "$here/check_numpy.py" "$out" "$scratch/export"
