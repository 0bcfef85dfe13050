#!/usr/bin/env bash
# Builds on executors of Apache Ballista, which are processes of this machine, compared byte for byte with a build without them: with one
# executor and with two, one of which is killed while it does a task, or killed with its rows while keys are compared; a driver that is
# killed; an executor that stands still for longer than it may; a task that always fails; executors with very little memory; processes that are
# told to end. Ends with the seconds that each step took.
#
#   bash scripts/test-ballista.sh [MOE_DATA_BINARY]     a program with the feature `cluster`; without one, it is compiled, and the feature's unit
#                                                       tests are run first
. "$(dirname "$0")/lib.sh"
cd "$repo"
if [ -n "${1:-}" ]; then
    binary=$(realpath "$1")
else
    cluster=(--quiet --profile cluster-test --package moe-data --package moe-ballista --features moe-data/cluster)
    # Nice, since much else is compiled and tested at the same time in .ci/run.
    nice cargo test "${cluster[@]}" --lib -- cores cluster::
    # With an example, so that all crates have the features that they had for the tests above.
    nice cargo build "${cluster[@]}" --bin moe-data --example signatures
    binary=$target/cluster-test/moe-data
fi

work=$(mktemp -d /var/tmp/moe-ballista.XXXXXX)
declare -A pids=()
tests_started=$SECONDS
step_started=$SECONDS
step() {
    printf '%4d s  %s\n' $((SECONDS - step_started)) "$1"
    step_started=$SECONDS
}
cleanup() {
    local status=$? pid
    [ $status = 0 ] || tail -n 40 "$work"/log/* || true
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2> /dev/null || true
    done
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT
mkdir "$work/log"
cd "$work"
port=$(python3 -c '
import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])')

# start_executor NAME [FLAGS]: its log is log/NAME, its rows are in rows-NAME.
start_executor() {
    local name=$1
    shift
    "$binary" -v executor --scheduler "127.0.0.1:$port" --vcores "${vcores:-1}" --memory "${memory:-64MB}" --patience 120 --work-dir "$work/rows-$name" \
        "$@" 2>> "log/$name" &
    pids[$name]=$!
}
# end NAME SIGNAL: ends a process, and sets `ended` to its exit code.
end() {
    kill "-$2" "${pids[$1]}"
    ended=0
    wait "${pids[$1]}" 2> /dev/null || ended=$?
    unset "pids[$1]"
}
# Sets `pids[driver]` to a build into OUT.
start_build() {
    local out=$1
    shift
    "$binary" build --engine ballista --listen "127.0.0.1:$port" --executor-timeout 8 --recipe recipe.toml --out "$out" --strict \
        --threads 2 "$@" 2>> log/driver &
    pids[driver]=$!
}
# Waits for the build, and returns its exit code.
finish_build() {
    local status=0
    wait "${pids[driver]}" || status=$?
    unset "pids[driver]"
    return $status
}
same() {
    local name
    for name in MANIFEST.json ledger.json tokenizer.json token_bytes.u16 shards audit; do
        diff -r "local/$name" "$1/$name"
    done
    [ ! -e "$1/work/ballista" ]
}
# stop_when NAME CONDITION...: stops a process when CONDITION, a command, holds while it stands still. Nothing is left to the clock: the
# process goes on step by step until then.
stop_when() {
    local pid=${pids[$1]}
    shift
    for _ in $(seq 20000); do
        kill -STOP "$pid"
        # The signal arrives a moment later.
        sleep 0.02
        ! "$@" || return 0
        kill -CONT "$pid"
        sleep 0.005
    done
    echo "never: $*"
    return 1
}
# Whether an executor is at a task: folders of attempts are called HOST-PID-N.
is_at_task() { compgen -G "$1/work/*/*.tries/*-${pids[$2]}-*" > /dev/null; }
# Whether an executor has rows of the first step of a query whose second one has begun: a job has a folder JOB/STEP, from 1, and only queries have
# two steps.
is_in_query() {
    local rows job
    for rows in rows-"$1"/*/*/1/*; do
        [ -e "$rows" ] || continue
        job=$(basename "$(dirname "$(dirname "$rows")")")
        ! compgen -G "rows-*/*/$job/2" > /dev/null || return 0
    done
    return 1
}

# Every kind of task: texts in several files, exact and fuzzy deduplication, cuts, a trained tokenizer.
datasets_in_parts data
cat > recipe.toml <<'TOML'
[[source]]
name = "bible"
paths = ["data/bible_*.jsonl"]
id = "id"
[[source]]
name = "django"
paths = ["data/django_*.jsonl"]
id = "id"
[[filter]]
name = "length"
[dedup.minhash]
[dedup.paragraph]
[dedup.substring]
[tokenizer]
train = { vocab_size = 1000 }
[limits]
slice_bytes = "200KB"
TOML
"$binary" build --recipe recipe.toml --out local -q --strict --threads 2
step "build without executors"

start_executor one
start_build one-executor
finish_build
same one-executor
grep -q "task [0-9]* of .exact_keys. is done" log/one
grep -q "task [0-9]* of .band_keys. is done" log/one
step "the same bytes with one executor"

# With what both a shell and a URL would take for their own; the executor waits for the next build.
ours="ours, 100% [x]"
start_executor two
start_build "$ours"
finish_build
same "$ours"
for name in one two; do grep -q "of .tokenize. is done" log/$name; done
step "the same bytes with two executors"

start_build killed
stop_when two is_at_task killed two
task=$(compgen -G "killed/work/*/*.tries/*-${pids[two]}-*" | head -1)
end two KILL
finish_build
same killed
step "the same bytes after an executor died in a task of $(basename "$(dirname "$(dirname "$task")")")"

vcores=2 start_executor three
start_build lost
stop_when three is_in_query three
end three KILL
rm -r rows-three
finish_build
same lost
step "the same bytes after an executor that did two tasks at a time died with its rows in a query"

# Others do what it has in hand, and what it does afterwards harms nothing.
vcores=2 start_executor still
start_build waited
stop_when still is_at_task waited still
finish_build
same waited
kill -CONT "${pids[still]}"
end still KILL
step "the same bytes while an executor stood still in a task"

start_executor four
is_partly_done() { [ "$(compgen -G "again/work/*/*/report.json" | wc -l)" -ge 12 ]; }
for name in one four; do wc -l < log/$name > log/$name.before; done
start_build again
stop_when driver is_partly_done
end driver KILL
# What an executor has begun it brings to an end, without a driver.
while compgen -G "again/work/*/*.tries" > /dev/null; do sleep 0.1; done
# Longer than Ballista's own executors wait.
sleep 15
n_done=$(compgen -G "again/work/*/*/report.json" | wc -l)
start_build again
finish_build
same again
done_twice=$(for name in one four; do tail -n "+$(($(cat log/$name.before) + 1))" log/$name; done | grep "is done" | sort | uniq -d)
[ -z "$done_twice" ] || { echo "done twice: $done_twice"; exit 1; }
for name in one four; do grep -q "^  task .* is done: again/" <(tail -n "+$(($(cat log/$name.before) + 1))" log/$name); done
step "the same bytes after the driver died with $n_done tasks done, which were not repeated, by executors that waited for it"

# A task that cannot be done: where its attempts should be is a file.
status=0
"$binary" build --plan-tasks --recipe recipe.toml --out poisoned -q --strict --threads 2 || status=$?
[ $status = 8 ]
output=$(python3 -c '
import json
lines = [json.loads(line) for line in open("poisoned/work/tasks.jsonl")]
print(lines[2]["output"])')
mkdir -p "$(dirname "$output")"
touch "$output.tries"
start_build poisoned
status=0
finish_build || status=$?
[ $status = 2 ]
grep -q "^error: task [0-9]* of .read. failed once on $(hostname -s): .*tries: cannot read: Not a directory" log/driver
rm "$output.tries"
start_build poisoned
finish_build
same poisoned
step "a task that cannot be done is named with its cause; without the cause, the same bytes"

for name in one four; do
    end $name TERM
    [ "$ended" = 130 ] || { echo "executor $name: exit code $ended"; exit 1; }
    [ -z "$(ls rows-$name)" ] || { find "rows-$name" | head -n 40; exit 1; }
done
said=$(wc -l < log/driver)
start_build interrupted
until tail -n "+$((said + 1))" log/driver | grep -q "start some: moe-data executor --scheduler 127.0.0.1:$port"; do sleep 0.05; done
end driver INT
[ "$ended" = 130 ]
step "a driver and executors that are told to end do so, and leave no rows"

# Band keys of 27 MB, in two partitions.
python3 - <<'PY'
import random
words = random.Random(1)
with open("many.jsonl", "w") as file:
    for i in range(120_000):
        # Of three documents, one is like an earlier one and one in nine is equal to it.
        text = random.Random(i if i % 3 else i // 9 % 1000)
        line = [f"w{text.randrange(50_000)}" for _ in range(16)]
        if i % 9:
            line[words.randrange(16)] = "other"
        file.write(f'{{"id": "{i}", "text": "{" ".join(line)}"}}\n')
PY
cat > recipe.toml <<'TOML'
[[source]]
name = "many"
paths = ["many.jsonl"]
id = "id"
[dedup.minhash]
max_source_removed = 1.0
[limits]
slice_bytes = "4MB"
TOML
"$binary" build --recipe recipe.toml --out many -q --threads 2 --text-only
step "build of many documents without executors"
# Whether rows that do not fit are on the disk.
is_spilled() { [ -n "$(find rows-small rows-smaller -path '*/datafusion-*' -type f -print -quit 2> /dev/null)" ]; }
for name in small smaller; do memory=14MB start_executor $name; done
start_build many-small --text-only
stop_when driver is_spilled
kill -CONT "${pids[driver]}"
finish_build
diff -r -x work -x .lock many many-small
step "the same with 14 MB of memory for each executor, less than a partition of the band keys"
printf '%4d s  in all, without compiling\n' $((SECONDS - tests_started))
