#!/usr/bin/env bash
# Kills programs with kill -9 at random moments, runs them again, and compares everything with undisturbed runs.
#
#   scripts/kills.sh build [COUNT] [SEED]   build, mix, mix --extend and export of moe-data, COUNT times each (100), each restarted until it is through
#   scripts/kills.sh client [COUNT]         runs of the language model client, COUNT times (50)
#   scripts/kills.sh save [COUNT]           training runs that save after every step, COUNT times (100)
#
# For `build`, MOE_DATA names the program [default: a release build], and STEPS the commands [default: "build mix extend export"].
. "$(dirname "$0")/lib.sh"
count=${2:-}
case ${1:-} in
build) ;;
client)
    cd "$repo"
    MOE_TEST_KILLS=${count:-50} exec cargo test -p moe-llm --test it -- --exact --nocapture \
        kills::killed_runs_end_with_the_same_set_and_ask_little_twice
    ;;
save)
    cd "$repo"
    MOE_TEST_KILLS=${count:-100} exec cargo test -p moe-train --test it -- --exact --nocapture \
        kills::runs_killed_while_they_save_end_with_the_same_parameters
    ;;
*) usage ;;
esac
count=${count:-100}
RANDOM=${3:-1}
moe_data=$(program moe-data "${MOE_DATA:-}")
scratch
cd "$work"

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

# Digests of all files except those in the work folder, which is not a result.
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
  echo "$step: $count kills ($hits while it was running, which takes $took s), same bytes as an undisturbed run"
  rm -rf done; mv whole done; before=done
done
echo PASS
