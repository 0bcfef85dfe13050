#!/usr/bin/env bash
# Builds the Python package (python/) and tests the wheel in a fresh virtual environment: samples against the Rust reader, damaged files, and a
# training loop that is killed. About a minute with compiling. maturin and NumPy come from PyPI.
#
#   bash scripts/interop/python.sh [MOE_DATA]
#
# What needs PyTorch is in scripts/interop/trainers.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
repo=$PWD
moe_data=${1:-}
if [ -z "$moe_data" ]; then
    cargo build --quiet --release --package moe-data
    moe_data=${CARGO_TARGET_DIR:-target}/release/moe-data
fi
moe_data=$(realpath "$moe_data")
# Its dependencies have other features than those of the programs.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/python
export CARGO_TARGET_DIR=$target
# What maturin sets, so that clippy finds the dependencies compiled.
export PYO3_BUILD_EXTENSION_MODULE=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check 'maturin==1.*' numpy
cargo fmt --manifest-path python/Cargo.toml --check
cargo clippy --quiet --locked --manifest-path python/Cargo.toml -- -D warnings
"$scratch/venv/bin/maturin" build --quiet --locked --manifest-path python/Cargo.toml --out "$scratch"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "$scratch"/moe_shards-*.whl

cd "$scratch"
sed "s|\"\.\./datasets|\"$repo/datasets|" "$repo/configs/build.toml" > recipe.toml
"$moe_data" build --recipe recipe.toml --out out -q
cp -r out phased
"$moe_data" mix --out out --epochs 6 --seq-len 128 >mix.log 2>&1
"$moe_data" mix --out phased --mixture "$repo/configs/mix-phases.toml" >>mix.log 2>&1
"$moe_data" export --plan-npy --rows --out out --to export >export.log 2>&1
here=$repo/scripts/interop
venv/bin/python "$here/check_python.py" out export phased "$repo/shards/tests/compat/plan-v2-best-fit" "$moe_data"
venv/bin/python "$here/check_loop.py" out runs
