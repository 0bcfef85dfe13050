#!/usr/bin/env bash
# Builds the fuzz targets of the readers with libFuzzer's instrumentation, without a sanitizer and so with the stable compiler, and runs
# each for a few seconds, starting from the seeds in fuzz/seeds. The first build recompiles all dependencies.
#
#   bash scripts/fuzz.sh [SECONDS_EACH] [TARGET...]
. "$(dirname "$0")/lib.sh"
cd "$repo"
seconds=${1:-60}
shift || true
targets=${*:-jsonl json csv text parquet arrow warc arc html archive any}
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
out=${FUZZ_TARGET_DIR:-target/fuzz}
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, build scripts and macros are not instrumented.
[ -n "${FUZZ_NO_BUILD:-}" ] ||
    RUSTFLAGS="$flags" cargo build --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$out" --bins
for target in $targets; do
    corpus=$out/corpus/$target
    mkdir -p "$corpus" "$out/artifacts"
    echo "=== $target"
    "${FUZZ_BIN_DIR:-$out/$host/debug}/$target" "$corpus" "fuzz/seeds/$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 \
        -malloc_limit_mb=1024 -max_len=65536 -artifact_prefix="$out/artifacts/$target-" -print_final_stats=1 -verbosity=0
done
