#!/usr/bin/env bash
# Builds the Python package (python/) and tests the wheel in a fresh virtual environment: samples against the Rust reader, damaged files, and a
# training loop that is killed. About a minute with compiling. maturin and NumPy come from PyPI.
#
#   bash scripts/interop/python.sh [MOE_DATA]
#
# What needs PyTorch is in scripts/interop/trainers.sh.
. "$(dirname "$0")/../lib.sh"
moe_data=$(program moe-data "${1:-}")
cd "$repo"
# Its dependencies have different features from those of the programs.
export CARGO_TARGET_DIR=$target/python
# What maturin sets, so that clippy finds the dependencies compiled.
export PYO3_BUILD_EXTENSION_MODULE=1
scratch
python=$(venv "$work/venv" 'maturin==1.*' numpy)
cargo fmt --manifest-path python/Cargo.toml --check
cargo clippy --quiet --locked --manifest-path python/Cargo.toml -- -D warnings
"$work/venv/bin/maturin" build --quiet --locked --manifest-path python/Cargo.toml --out "$work"
venv "$work/venv" "$work"/moe_shards-*.whl > /dev/null

cd "$work"
sed "s|\"\.\./datasets|\"$repo/datasets|" "$repo/configs/build.toml" > recipe.toml
"$moe_data" build --recipe recipe.toml --out out -q
cp -r out phased
"$moe_data" mix --out out --epochs 6 --seq-len 128 >mix.log 2>&1
"$moe_data" mix --out phased --mixture "$repo/configs/mix-phases.toml" >>mix.log 2>&1
"$moe_data" export --plan-npy --rows --out out --to export >export.log 2>&1
"$python" "$here/check_python.py" out export phased "$repo/shards/tests/compat/plan-v2-best-fit" "$moe_data"
"$python" "$here/check_loop.py" out runs
