#!/usr/bin/env bash
# Requests per second and memory of the client with the scripted server, both on the same machine.
#
#   scripts/bench/llm-client.sh [REQUESTS]
. "$(dirname "$0")/../lib.sh"
n=${1:-100000}
throughput=$(example throughput moe-llm)
scripted_server=$(example scripted_server moe-llm)
work=$(mktemp -d)
"$scripted_server" --no-bodies >"$work/url" &
server=$!
trap 'kill $server; rm -r "$work"' EXIT
until [ -s "$work/url" ]; do sleep 0.1; done
url=$(head -n 1 "$work/url")
for concurrency in 16 64 256 1024; do
  echo "concurrency $concurrency: $("$throughput" "$url" "$n" "$concurrency" 2000 "$work/cache-$concurrency")"
done
echo "from the cache: $("$throughput" "$url" "$n" 256 2000 "$work/cache-256")"
du -sh "$work"/cache-256 | cut -f 1
