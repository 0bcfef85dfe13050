#!/usr/bin/env bash
# docs/experiments/parity.md: nanoGPT's small model for characters in moe-train and in PyTorch, three seeds each, ten minutes of one core.
# PyTorch from PyPI is a download of 3 GB, which WORK keeps. PROGRAMS=FOLDER takes moe-data and moe-train from there instead of compiling.
#
#   bash scripts/experiments/parity.sh WORK [--seeds N] [--steps N]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
programs
mkdir -p "$1"
work=$(realpath "$1")
shift
python=$(venv "$work/venv" 'maturin==1.*' numpy torch)
if ! "$python" -c 'import moe_shards' 2>/dev/null; then
    "$work/venv/bin/maturin" build --quiet --release --locked --manifest-path "$repo/python/Cargo.toml" --out "$work" --target-dir "$target/python"
    venv "$work/venv" "$work"/moe_shards-*.whl > /dev/null
fi
"$python" "$repo/scripts/experiments/parity.py" "$programs" "$work" "$@"
