#!/usr/bin/env bash
# Plans ten million documents: time and peak memory of `moe-data mix`, with one pass and with four. The index is synthetic (real
# `.mdx` files, log-normal lengths), the tokens are holes in sparse files, so the disk does not matter. Takes about a
# minute after compiling, and 1.2 GB of disk.
#   scripts/bench/mix-10m.sh FOLDER [DOCUMENTS]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
out=$(mkdir -p "$1" && realpath "$1")
docs=${2:-10000000}
binary=$(program moe-data)
cd "$repo"
[ -f "$out/MANIFEST.json" ] || cargo bench -q -p moe-shards --bench synthetic_build -- --out "$out" --docs "$docs"

echo "| packing | passes | seconds | CPU seconds | peak memory, MiB | bytes of plan |"
echo "| --- | ---: | ---: | ---: | ---: | ---: |"
for packing in best-fit concat; do
    sed "s/^packing = .*/packing = \"$packing\"/" scripts/bench/mix-10m.toml >"$out/mixture.toml"
    for passes in 1 4; do
        rm -rf "$out/plan" "$out/plan.lock" "$out/plan.toml"
        sync
        /usr/bin/time -f "%e %U %S %M" -o "$out/time" "$binary" mix --quiet --out "$out" --mixture "$out/mixture.toml" \
            --epochs "$passes" >/dev/null
        bytes=$(cat "$out"/plan.lock "$out"/plan/*/* | wc -c)
        awk -v p="$packing" -v n="$passes" -v b="$bytes" \
            '{ printf "| %s | %d | %.1f | %.1f | %d | %d |\n", p, n, $1, $2 + $3, $4 / 1024, b }' "$out/time"
    done
done
