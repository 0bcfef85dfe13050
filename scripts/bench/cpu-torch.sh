#!/usr/bin/env bash
# Training steps on the CPU compared with PyTorch, eager and compiled, on the same cores: tokens/s, CPU seconds and peak
# memory of small mixtures and of dense models of equal active size, with one thread and with all. Prints the table in
# docs/benchmarks/cpu.md and fails if PyTorch is faster or smaller.
# PyTorch with its CUDA libraries is a download of 3 GB, which WORK keeps. Takes half an hour on two cores, 5 minutes
# with --quick. Needs g++ for torch.compile.
#
# Usage: scripts/bench/cpu-torch.sh WORK [MOE_TRAIN] [--quick] [--only NAME] [--threads N,...] [--rounds N]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
mkdir -p "$1"
work=$(realpath "$1")
shift
moe_train=moe-train
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
    moe_train=$1
    shift
fi
moe_train=$(realpath "$(command -v "$moe_train")")
python=$(venv "$work/venv" torch numpy)
exec "$python" "$here/cpu_torch.py" "$work" "$moe_train" "$@"
