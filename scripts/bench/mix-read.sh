#!/usr/bin/env bash
# What a trainer waits for: opening a plan and its first sample, a sample anywhere, samples in order, compared with a plain read of the same
# mapped tokens. 200,000 synthetic documents with tokens (300 MB), one pass. Takes about a minute after the build.
#   scripts/bench/mix-read.sh FOLDER [DOCUMENTS]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
out=$(mkdir -p "$1" && realpath "$1")
docs=${2:-200000}
cd "$repo"

bench() { cargo bench -q -p moe-shards --bench "$@"; }
[ -f "$out/MANIFEST.json" ] || bench synthetic_build -- --out "$out" --docs "$docs" --tokens
cargo run -q --release -p moe-data -- mix --quiet --force --out "$out" --epochs 1 --mixture scripts/bench/mix-10m.toml >"$out/worth.txt"
bench samples -- --plan "$out"
bench interleave
