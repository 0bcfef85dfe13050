#!/usr/bin/env bash
# Reads the same tokenized samples with moe-shards in Rust and in Python, mosaicml-streaming and litdata, one after the other on this machine, and
# prints one table: samples per second in order and shuffled, and the time to resume at half an epoch. Needs Python 3, pip and
# 4 GB of disk (both peers need torch), and takes about five minutes after the installation.
#   scripts/bench/mix-peers.sh FOLDER [DOCUMENTS]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
work=$(mkdir -p "$1" && realpath "$1")
docs=${2:-200000}
cd "$repo"

python=$(venv "$work/venv" mosaicml-streaming==0.13.0 litdata==0.2.76 'maturin==1.*')
"$work/venv/bin/maturin" build --quiet --release --locked --manifest-path python/Cargo.toml --out "$work/wheels"
"$work/venv/bin/pip" install -q --no-deps --force-reinstall "$work"/wheels/moe_shards-*.whl

bench() { cargo bench -q -p moe-shards --bench "$@"; }
[ -f "$work/build/MANIFEST.json" ] || bench synthetic_build -- --out "$work/build" --docs "$docs" --tokens
cargo run -q --release -p moe-data -- mix --out "$work/build" --epochs 1 --mixture scripts/bench/mix-10m.toml >"$work/worth.txt"
bench read_plan -- --plan "$work/build" --export "$work/samples.u32"
bench read_plan -- --plan "$work/build" >"$work/ours.json"
"$python" scripts/bench/mix_peers.py "$work/samples.u32" "$work/ours.json" "$work"
