#!/usr/bin/env bash
# A build on a Slurm of two nodes, which are processes of this machine, compared byte for byte with a build without Slurm: arrays
# that submit each other, a node that dies in the middle of a task, a job that is preempted, a job whose time limit ends, tasks that fail
# and are tried again. Slurm and munge come from Debian, and run in a folder of their own, without systemd. Ends with the seconds that
# each step took.
#
#   bash scripts/test-slurm.sh [MOE_DATA_BINARY]
. "$(dirname "$0")/lib.sh"
cd "$repo"
binary=$(program moe-data "${1:-}")

[ "$(id -u)" = 0 ] || { echo "nodes of Slurm need root to start jobs; run this as root"; exit 1; }
is_here() { command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; }
is_here > /dev/null || debian slurmctld slurmd slurm-client munge

scratch=$(mktemp -d /var/tmp/moe-slurm.XXXXXX)
export SLURM_CONF=$scratch/slurm.conf
declare -A pids=()
tests_started=$SECONDS
step_started=$SECONDS
step() {
    printf '%4d s  %s\n' $((SECONDS - step_started)) "$1"
    step_started=$SECONDS
}

# Processes of the jobs of a node: those with its name, and our configuration, in their environment.
jobs_of() {
    { grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ | xargs -r grep -lzxF "SLURMD_NODENAME=$1" | cut -d/ -f3; } 2> /dev/null || true
}
# The processes of Slurm that watch these.
watchers_of() {
    local process parent
    for process in "$@"; do
        parent=$(ps -o ppid= -p "$process" | tr -d ' ') || continue
        case $(ps -o args= -p "$parent") in slurmstepd*) echo "$parent" ;; esac
    done | sort -u
}
kill_node() {
    local jobs watchers
    jobs=$(jobs_of "$1")
    watchers=$(watchers_of $jobs)
    # The watcher first, or it would still tell the controller that the job has failed.
    kill -9 $watchers "${pids[$1]}" $jobs 2> /dev/null || true
    wait "${pids[$1]}" 2> /dev/null || true
}
start_node() {
    slurmd -D -N "$1" -f "$SLURM_CONF" > "$scratch/log/$1.out" 2>&1 &
    pids[$1]=$!
}
cleanup() {
    local status=$?
    if [ $status != 0 ]; then
        tail -n 30 "$scratch"/log/*.log "$scratch"/*/work/slurm/logs/*.log 2> /dev/null || true
    fi
    for node in n1 n2; do
        [ -z "${pids[$node]:-}" ] || kill_node $node
    done
    for name in controller munge; do
        [ -z "${pids[$name]:-}" ] || { kill "${pids[$name]}" && wait "${pids[$name]}"; } 2> /dev/null || true
    done
    rm -rf "$scratch"
    exit $status
}
trap cleanup EXIT

mkdir -p "$scratch"/{munge,state,run,log,spool-n1,spool-n2}
cd "$scratch"
read -r port1 port2 port3 < <(python3 -c '
import socket
open_sockets = [socket.socket() for _ in range(3)]
for s in open_sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in open_sockets))')
host=$(hostname -s)
cat > slurm.conf <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$scratch/munge/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/spool-%n
SlurmctldPidFile=$scratch/run/slurmctld.pid
SlurmdPidFile=$scratch/run/slurmd-%n.pid
SlurmctldLogFile=$scratch/log/slurmctld.log
SlurmdLogFile=$scratch/log/slurmd-%n.log
SlurmctldPort=$port1
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,requeue_delay=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdTimeout=5
BatchStartTimeout=3
MessageTimeout=10
JobRequeue=1
KillWait=1
MinJobAge=300
MaxArraySize=1001
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port2 CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port3 CPUs=1 RealMemory=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2
CONF
head -c 1024 /dev/urandom > munge/key
chmod 600 munge/key
chmod 755 munge "$scratch"
munged --foreground --force --key-file="$PWD/munge/key" --socket="$PWD/munge/munge.sock" --pid-file="$PWD/munge/munged.pid" \
    --log-file="$PWD/munge/munged.log" --seed-file="$PWD/munge/seed" > log/munge.out 2>&1 &
pids[munge]=$!
for _ in $(seq 100); do [ -S munge/munge.sock ] && break; sleep 0.05; done
slurmctld -D -f "$SLURM_CONF" > log/slurmctld.out 2>&1 &
pids[controller]=$!
start_node n1
start_node n2
for _ in $(seq 200); do
    [ "$(sinfo -h -N -p test -o %t 2> /dev/null | tr '\n' ' ')" = "idle idle " ] && break
    sleep 0.1
done
[ "$(sinfo -h -N -p test -o %t | tr '\n' ' ')" = "idle idle " ]
step "Slurm with two nodes is up"

# Every kind of task: texts in several files, fuzzy deduplication that compares, cuts, a trained tokenizer.
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
[tokenizer]
train = { vocab_size = 1000 }
[limits]
slice_bytes = "100KB"
TOML
"$binary" build --recipe recipe.toml --out local -q --strict --threads 2
step "build on one machine"

same() {
    local name
    for name in MANIFEST.json ledger.json tokenizer.json token_bytes.u16 shards audit; do
        diff -r "local/$name" "$1/$name"
    done
    [ ! -e "$1/work/tasks.jsonl" ]
}
# Waits until the build stands as it is asked for, or all is lost.
wait_for() {
    local out=$1 wanted=$2 standing=
    for _ in $(seq 600); do
        standing=$("$binary" slurm status "$out" --json 2> /dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["standing"])') || true
        [ "$standing" = "$wanted" ] && return 0
        [ "$standing" = at_work ] || break
        sleep 0.2
    done
    echo "$out is $standing, and should be $wanted"
    "$binary" slurm status "$out" || true
    return 1
}

# Stops a process of node n2 with a task under way: folders of attempts are called HOST-PID-N. A task takes some hundredths of a
# second, so the process goes on step by step until it is at one.
stop_at_task() {
    local process folder
    for _ in $(seq 3000); do
        for process in $(jobs_of n2); do
            grep -qzx task "/proc/$process/cmdline" 2> /dev/null || continue
            while kill -STOP "$process" 2> /dev/null; do
                # The signal arrives a moment later.
                sleep 0.02
                for folder in "$1"/work/*/*.tries/*-"$process"-*; do
                    echo "$folder"
                    return 0
                done
                kill -CONT "$process"
                sleep 0.003
            done
        done
        sleep 0.02
    done
    return 1
}

shopt -s nullglob
# With what both a shell and Slurm would take for their own.
ours="ours, 100%"
"$binary" slurm submit recipe.toml --out "$ours" --nodes 2 --max-array 5 --tasks-per-job 2 -- --strict
folder=$(stop_at_task "$ours")
kill_node n2
step "node n2 died with a task of $(basename "$(dirname "$(dirname "$folder")")") under way"
sleep 6
start_node n2
wait_for "$ours" finished
same "$ours"
requeued=$(grep -c "due to node failure" log/slurmctld.log)
[ "$requeued" -ge 1 ]
step "the same bytes as on one machine, with $requeued jobs that Slurm ran again"

# A job of others with a higher priority takes the node; later, the time limit of a job ends in the middle of a task.
"$binary" slurm submit recipe.toml --out preempted --nodes 2 --max-array 5 --tasks-per-job 2 --time 1:00:00 -q -- --strict
folder=$(stop_at_task preempted)
sbatch --quiet --partition=urgent --nodelist=n2 --output=/dev/null --wrap 'sleep 1'
for _ in $(seq 300); do grep -q "preempted JobId=" log/slurmctld.log && break; sleep 0.1; done
grep -q "preempted JobId=" log/slurmctld.log
step "a more urgent job took node n2 from a task of $(basename "$(dirname "$(dirname "$folder")")")"
folder=$(stop_at_task preempted)
# As in 57_4: the number of an array is also that of its last element, and then means all of them.
job=$(squeue --noheader --nodelist=n2 --format=%i)
scontrol update "JobId=$job" EndTime=now
wait_for preempted finished
grep -q "Time limit exhausted for JobId=" log/slurmctld.log
same preempted
step "the same bytes after that, and after the time limit of a job ended in a task of $(basename "$(dirname "$(dirname "$folder")")")"

# A task that cannot be done: where its attempts should be is a file.
status=0
"$binary" build --plan-tasks --recipe recipe.toml --out poisoned -q --strict || status=$?
[ $status = 8 ]
output=$(python3 -c '
import json
lines = [json.loads(line) for line in open("poisoned/work/tasks.jsonl")]
print(lines[2]["output"])')
mkdir -p "$(dirname "$output")"
touch "$output.tries"
"$binary" slurm submit recipe.toml --out poisoned --nodes 2 -q -- --strict
wait_for poisoned stopped
"$binary" slurm status poisoned > said && exit 1
grep -q "1 of [0-9]* tasks of .read. cannot be done" said
grep -q "failed 3 times, last on $host: .*tries: cannot read: Not a directory.*log: .*/logs/[0-9]*_[0-9]*.log" said
grep -q "Not a directory" "$(grep -o 'log: [^ ]*_[0-9]*\.log' said | head -1 | cut -d' ' -f2)"
step "a task that cannot be done is named with its log, and the others are done"
rm "$output.tries"
"$binary" slurm retry poisoned -q
wait_for poisoned finished
same poisoned
step "the same bytes after a retry"
printf '%4d s  in all, without building and installing\n' $((SECONDS - tests_started))
