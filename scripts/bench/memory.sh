#!/usr/bin/env bash
# Builds from about 2 GB of generated text with a memory limit, and fails if the process used more than
# the limit. Needs 8 GB of disk, which is freed, and about five minutes on two cores.
#
#   scripts/bench/memory.sh MOE_DATA [MEMORY_IN_MIB] [INPUT_IN_MB]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 1 ] || usage
binary=$(program moe-data "$1")
memory=${2:-1024}
megabytes=${3:-2000}
scratch
cd "$work"

# Documents of 1 to 8 KB from 20,000 words by Zipf's law; every tenth is a copy of an earlier one with a word changed.
python3 - "$megabytes" <<'PY'
import itertools, json, random, sys

random.seed(1)
letters = "etaoinshrdlucmfwypvbgk"
words = ["".join(random.choice(letters) for _ in range(random.randint(2, 9))) for _ in range(20_000)]
weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(words))))
stream = iter(())
left, n, old = int(sys.argv[1]) * 1_000_000, 0, []
common = ["the", "be", "to", "of", "and", "that", "have", "with"]
with open("corpus.jsonl", "w") as file:
    # Sentences are drawn once and recombined for each document: drawing every word would take an hour.
    sentences = [
        " ".join(random.choices(words, cum_weights=weights, k=random.randint(6, 24)) + random.sample(common, 2)).capitalize() + "."
        for _ in range(400_000)
    ]
    while left > 0:
        if n % 10 == 9:
            text = random.choice(old).replace(" the ", f" {words[n % 20_000]} ", 1)
        else:
            picked = random.choices(sentences, k=random.randint(10, 80))
            text = "\n".join(" ".join(picked[i : i + 5]) for i in range(0, len(picked), 5))
            if len(old) < 1000:
                old.append(text)
            else:
                old[n % 1000] = text
        line = json.dumps({"id": f"doc-{n}", "text": text}) + "\n"
        file.write(line)
        left -= len(line)
        n += 1
print(f"{n} documents", file=sys.stderr)
PY
cat > recipe.toml <<'TOML'
[[source]]
name = "generated"
paths = ["corpus.jsonl"]
id = "id"
[[filter]]
name = "length"
[[filter]]
name = "gopher_quality"
[dedup.minhash]
[tokenizer]
train = { vocab_size = 4096 }
TOML
"$binary" build --recipe recipe.toml --threads 2 --memory "${memory}MiB" -q &
build=$!
peak=0
while kill -0 "$build" 2> /dev/null; do
    # VmHWM is the highest resident size so far; mapped files that the system may drop at any time count in it.
    now=$(awk '/^VmHWM/ { print $2 }' "/proc/$build/status" 2> /dev/null || true)
    [ -z "$now" ] || peak=$now
    sleep 0.2
done
status=0
wait "$build" || status=$?
[ "$status" = 0 ] || { echo "the build failed with $status"; exit 1; }
input=$(stat -c %s corpus.jsonl)
echo "input $((input / 1000000)) MB, --memory ${memory}MiB, peak resident $((peak / 1024)) MiB"
[ "$((peak / 1024))" -le "$memory" ] || { echo "more than the limit"; exit 1; }
