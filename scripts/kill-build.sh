#!/bin/bash
# Kills build, mix, mix --extend and export at random moments, COUNT times each (100 unless told), starts each again until it is
# through, and compares all that is left with an undisturbed run, byte for byte. Needs python3.
#   scripts/kill-build.sh [COUNT] [SEED]
# MOE_DATA names the binary (else target/release/moe-data), STEPS the commands (else "build mix extend export").
set -eu
repo=$(cd "$(dirname "$0")/.." && pwd)
count=${1:-100}
RANDOM=${2:-1}
moe_data=${MOE_DATA:-$repo/target/release/moe-data}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

python3 - <<'P'
import json, random
words = "river stone light paper morning harbour engine letter window salt copper road village teacher machine forest".split()
for name, numbers in (("a.jsonl", range(400)), ("b.jsonl", range(400, 800))):
    with open(name, "w") as f:
        for i in numbers:
            r = random.Random(i)
            f.write(json.dumps(dict(id=f"d{i}", text=" ".join(r.choice(words) for _ in range(80)) + f" {i}.")) + "\n")
P
cat > r.toml <<'R'
[[source]]
name = "a"
paths = ["a.jsonl"]
id = "id"
[[source]]
name = "b"
paths = ["b.jsonl"]
id = "id"
[[filter]]
name = "length"
[tokenizer]
train = { vocab_size = 400 }
R
declare -A steps=(
  [build]="build --recipe r.toml --threads 2"
  [mix]="mix --epochs 2 --seq-len 64"
  [extend]="mix --extend --from 20 --epochs 3 --seq-len 64"
  [export]="export --megatron --npy --plan-npy --rows"
)
# Words of the command of a step are split on purpose.
run() { exec "$moe_data" -q ${steps[$1]} --out "$2" > /dev/null; }

# Digests of all files but those of the work folder, which is nobody's result.
digests() { (cd "$1" && find . -type f ! -path './work/*' ! -name .lock -print0 | sort -z | xargs -0 sha256sum); }
# Seconds that a command takes.
seconds() { local start end; start=$(date +%s.%N); ("$@"); end=$(date +%s.%N); echo "$start $end" | awk '{print $2 - $1}'; }

before=""
for step in ${STEPS:-build mix extend export}; do
  rm -rf whole killed base
  if [ -n "$before" ]; then cp -a "$before" base; cp -a base whole; fi
  took=$(seconds run "$step" whole)
  digests whole > whole.sums
  hits=0
  for round in $(seq "$count"); do
    rm -rf killed
    if [ -n "$before" ]; then cp -a base killed; fi
    after=$(awk -v took="$took" -v r="$RANDOM" 'BEGIN { print took * r / 32768 }')
    run "$step" killed 2> /dev/null & pid=$!
    sleep "$after"
    if kill -9 "$pid" 2> /dev/null; then hits=$((hits + 1)); fi
    wait "$pid" 2> /dev/null || true
    (run "$step" killed)
    digests killed > killed.sums
    if ! cmp -s whole.sums killed.sums; then
      echo "FAIL: $step, round $round, killed after $after s"
      diff whole.sums killed.sums | head
      exit 1
    fi
    if find killed -name '*.moe-tmp' | grep .; then
      echo "FAIL: $step, round $round: temporary files are left"
      exit 1
    fi
  done
  "$moe_data" -q verify killed
  echo "$step: $count kills ($hits while it ran, which takes $took s), the bytes of an undisturbed run"
  rm -rf done; mv whole done; before=done
done
echo PASS
