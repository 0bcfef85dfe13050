#!/usr/bin/env bash
# Requests a second and memory of the client against the scripted server, both on this machine.
#
#   scripts/bench/llm-client.sh [REQUESTS]
set -euo pipefail
cd "$(dirname "$0")/../.."
n=${1:-100000}
cargo build --release -q -p moe-llm --example throughput --example scripted_server
bin=${CARGO_TARGET_DIR:-target}/release/examples
work=$(mktemp -d)
"$bin/scripted_server" --no-bodies >"$work/url" &
server=$!
trap 'kill $server; rm -r "$work"' EXIT
until [ -s "$work/url" ]; do sleep 0.1; done
url=$(head -n 1 "$work/url")
for concurrency in 16 64 256 1024; do
  echo "concurrency $concurrency: $("$bin/throughput" "$url" "$n" "$concurrency" 2000 "$work/cache-$concurrency")"
done
echo "from the cache: $("$bin/throughput" "$url" "$n" 256 2000 "$work/cache-256")"
du -sh "$work"/cache-256 | cut -f 1
