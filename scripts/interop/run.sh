#!/usr/bin/env bash
# Exports a build and reads it back with Megatron-Core's own IndexedDataset and with NumPy. Size: the packages are about 20 MB; PyTorch is not installed, see check_megatron.py.
#
# Usage: scripts/interop/run.sh OUT [MOE_DATA]    (OUT: a folder with shards)
set -euo pipefail
out=$(realpath "$1")
moe_data=${2:-moe-data}
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet numpy
"$scratch/venv/bin/pip" install --quiet --no-deps megatron-core==0.16.1

"$moe_data" export --megatron --npy --out "$out" --to "$scratch/export" >/dev/null
"$scratch/venv/bin/python" "$here/check_megatron.py" "$out"
"$scratch/venv/bin/python" "$here/check_numpy.py" "$out" "$scratch/export"
