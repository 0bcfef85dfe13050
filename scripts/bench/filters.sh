#!/usr/bin/env bash
# Reading and all rules of the profile `fineweb` except language and personal data, over 40,000 pages of real text, compared with datatrove 0.10.1 with two workers.
#
#   scripts/bench/filters.sh DATA [MOE_DATA]
#
# DATA is a folder of *.jsonl.gz from which scripts/bench/dedup/make_corpus.py makes the pages. MOE_DATA is the program; without it a
# release build is made. datatrove is installed into a temporary folder and takes minutes. SKIP_PEER=1 leaves it out, and
# PEER_FILES='part-0000[01].jsonl' gives it half of the pages; PEER_DOCS=600 runs only its rules on that many pages, in one process.
. "$(dirname "$0")/../lib.sh"
[ -d "${1:-}" ] || usage
data=$(realpath "$1")
program=$(program moe-data "${2:-}")
scratch
cd "$work"
python3 "$here/dedup/make_corpus.py" corpus --data "$data"
# The last filter drops all that is left, so that the build ends after its filters.
cat > recipe.toml <<'TOML'
[[source]]
name = "pages"
paths = ["corpus/*.jsonl"]
id = "id"
[filters]
profile = "fineweb"
without = ["language", "pii"]
[[filter]]
name = "length"
min_chars = 900_000_000
max_chars = 1_000_000_000
[dedup]
exact = false
[tokenizer]
train = { vocab_size = 300 }
TOML
cat > run.py <<'PY'
import ctypes, json, os, pathlib, re, resource, subprocess, sys, threading, time

# datatrove's workers outlive the process that asked for them; adopted, their time and memory are counted here.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
used = lambda: resource.getrusage(resource.RUSAGE_CHILDREN)


def held(session):
    """Bytes of memory of all processes of a session, what they share counted once."""
    total = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rsplit(")", 1)[1].split()[3]) == session:
                total += int(re.search(r"^Pss: +(\d+)", (process / "smaps_rollup").read_text(), re.M)[1]) * 1024
        except (OSError, TypeError):
            pass  # It has ended.
    return total


def report(name, docs, n_bytes, run):
    wall, cpu, memory = run
    print(f"{name}: {docs} documents, {n_bytes / 1e6:.1f} MB, {wall:.2f} s, {cpu:.2f} CPU seconds; {docs / wall / os.cpu_count():.0f} documents a second and core, "
          f"{n_bytes / wall / 1e6:.2f} MB/s; {docs / cpu:.0f} documents and {n_bytes / cpu / 1e6:.2f} MB a CPU second; all processes {memory / 2**20:.0f} MiB, "
          f"the largest {used().ru_maxrss / 1024:.0f} MiB", flush=True)


def timed(command):
    """Standard error, then seconds, CPU seconds and bytes of memory of a command with all that it starts."""
    before, start, peak = used(), time.monotonic(), 0
    with open("errors.log", "w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
    done = threading.Event()

    def sample():
        nonlocal peak
        while not done.is_set():
            began = time.monotonic()
            peak = max(peak, held(process.pid))
            # Sampling takes time from what is measured.
            done.wait(max(0.05, 50 * (time.monotonic() - began)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    process.wait()
    wall = time.monotonic() - start
    done.set()
    sampler.join()
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    after = used()
    return open("errors.log").read(), process.returncode, (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def size(pattern):
    import glob
    texts = [json.loads(line)["text"] for path in glob.glob(pattern) for line in open(path, encoding="utf-8")]
    return len(texts), sum(len(text.encode()) for text in texts)


if sys.argv[1] == "ours":
    runs = []
    for _ in range(3):
        subprocess.run(["rm", "-rf", "out"], check=True)
        errors, _, run = timed([sys.argv[2], "build", "--recipe", "recipe.toml", "--threads", "2"])
        if "no document is left" not in errors:
            sys.exit(errors)
        runs.append(run)
    print("\n".join(line for line in errors.splitlines() if re.match(r"(read|filter) |\s+[a-z_0-9]+: [0-9]+$", line)))
    report("moe-data, read and filter, best of 3", *size("corpus/*.jsonl"), min(runs))
else:
    errors, status, run = timed([sys.executable, "peer.py", sys.argv[2]])
    if status != 0:
        sys.exit(errors)
    report("datatrove 0.10.1, 2 workers", *size("corpus/" + sys.argv[2]), run)
PY
cat > peer.py <<'PY'
import json, sys, time

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader

if __name__ == "__main__":
    steps = [JsonlReader("corpus", glob_pattern=sys.argv[1]), GopherRepetitionFilter(), GopherQualityFilter(),
             C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]
    if len(sys.argv) < 3:
        LocalPipelineExecutor(steps, tasks=4, workers=2, logging_dir="logs").run()
        sys.exit()
    # The first pages, in this process, without startup and reading.
    lines = [json.loads(line)["text"] for line in open("corpus/part-00000.jsonl", encoding="utf-8")][: int(sys.argv[2]) + 10]
    documents = [Document(text=text, id=str(n)) for n, text in enumerate(lines)]
    for n, document in enumerate(documents):
        if n == 10:
            start = time.process_time()
        all(rule.filter(document) is True for rule in steps[1:])
    cpu, n_bytes = time.process_time() - start, sum(len(document.text.encode()) for document in documents[10:])
    n = len(documents) - 10
    print(f"datatrove 0.10.1, rules alone in one process: {n} documents, {cpu:.2f} CPU seconds, {n / cpu:.0f} documents and {n_bytes / cpu / 1e6:.2f} MB a CPU second")
PY
python3 run.py ours "$program"
[ -z "${SKIP_PEER:-}" ] || exit 0
python=$(venv venv "${datatrove[@]}")
if [ -n "${PEER_DOCS:-}" ]; then
  "$python" peer.py "" "$PEER_DOCS"
else
  "$python" run.py theirs "${PEER_FILES:-*.jsonl}"
fi
