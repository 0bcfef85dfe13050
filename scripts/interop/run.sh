#!/usr/bin/env bash
# Exports a build and reads it back with Megatron-Core's own IndexedDataset and with NumPy. Size: the packages are about 20 MB; PyTorch is not installed, see check_megatron.py.
#
# Usage: scripts/interop/run.sh OUT [MOE_DATA]    (OUT: a folder with shards)
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
out=$(realpath "$1")
moe_data=$(program moe-data "${2:-moe-data}")
scratch
python=$(venv "$work/venv" numpy)
venv "$work/venv" --no-deps megatron-core==0.16.1 > /dev/null

"$moe_data" export --megatron --npy --out "$out" --to "$work/export" >/dev/null
"$python" "$here/check_megatron.py" "$out"
"$python" "$here/check_numpy.py" "$out" "$work/export"
