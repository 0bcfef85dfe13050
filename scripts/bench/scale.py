#!/usr/bin/env python3
"""Measures what a build on many machines costs for each document, and says what that makes for a billion of them.

    scale.py measure MOE_DATA OUT.json CORPUS...    builds each corpus of make_corpus.py in rounds, as a cluster would
    scale.py tables OUT.json                        the tables of docs/scale.md; OUT.json is docs/benchmarks/scale.json

A round is one `moe-data build --collect`, the driver, and one `moe-data task run`, a node with one thread. Bytes in memory are what the kernel
gave the process without a file behind it (`RssAnon`, sampled 50 times a second); pages of mapped files, which it can take back, are counted apart.
"""
import json, os, pathlib, subprocess, sys, tempfile, time

# What a machine of the model has: 16 cores for tasks, of which each takes as long as here.
CORES_PER_NODE = 16
BANDS = 14
# `--memory`, which bounds sorts: so little that they reach it with the smallest corpus, so that what still grows has no bound.
MEMORY = "4MiB"
RECIPE = pathlib.Path(__file__).with_suffix(".toml")
# Bytes of a row of MinHash in the shuffle of executors: the key of a band and a rank.
ROW = 16


def run(command, ok):
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    memory, mapped = 0, 0
    while True:
        done, status, used = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        try:
            for line in open(f"/proc/{process.pid}/status"):
                if line.startswith("RssAnon:"):
                    memory = max(memory, int(line.split()[1]) * 1024)
                elif line.startswith("RssFile:"):
                    mapped = max(mapped, int(line.split()[1]) * 1024)
        except OSError:
            pass
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ok:
        sys.exit(f"{' '.join(map(str, command))} ended with exit code {process.returncode}")
    return process, {"seconds": time.monotonic() - started, "cpu": used.ru_utime + used.ru_stime, "memory": memory, "mapped": mapped}


def size(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"bytes": sum(path.stat().st_size for path in files), "files": len(files)}


def build(program, corpus, folder):
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.read_text().replace("CORPUS", str(corpus)))
    out = folder / "out"
    stage, drivers, tasks = "start", {}, {}
    while True:
        process, used = run([program, "-q", "build", "--collect", "--json", "--recipe", recipe, "--out", out, "--threads", "1",
                             "--memory", MEMORY], {0, 8})
        drivers[stage] = used
        said = json.loads(process.stdout.read())
        if process.returncode == 0:
            break
        stage = said["stage"]
        used = run([program, "-q", "task", "run", "--out", out, "--array", "0/1", "--threads", "1", "--memory", MEMORY], {0})[1]
        tasks[stage] = used | {"tasks": said["tasks"]}
        print(f"  {stage:10} driver {drivers[list(drivers)[-1]]['seconds']:6.1f} s, {said['tasks']:4} tasks {used['seconds']:6.1f} s", file=sys.stderr)
    truth = json.loads((corpus / "truth.json").read_text())
    folders = {path.name: size(path) for path in sorted((out / "work").iterdir()) if path.is_dir()}
    folders["output"] = {"bytes": 0, "files": 0}
    for path in out.iterdir():
        if path.name != "work":
            one = size(path) if path.is_dir() else {"bytes": path.stat().st_size, "files": 1}
            folders["output"] = {key: folders["output"][key] + one[key] for key in one}
    return {"documents": truth["docs"], "bytes": truth["bytes"], "drivers": drivers, "tasks": tasks, "folders": folders}


def slope(points):
    """Of the line of least squares through (documents, value)."""
    n = len(points)
    x, y = (sum(p[i] for p in points) / n for i in (0, 1))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def constants(runs):
    """For each document: seconds of a core in tasks and in the driver, bytes of memory of the driver, bytes of files, by stage."""
    of = lambda what, value: slope([(run["documents"], value(run[what])) for run in runs])
    stages = list(runs[0]["tasks"])
    return {
        "tasks": {s: of("tasks", lambda t: t[s]["cpu"]) for s in stages},
        "drivers": {s: of("drivers", lambda d: d[s]["cpu"]) for s in ["start"] + stages},
        "memory": {s: of("drivers", lambda d: d[s]["memory"]) for s in ["start"] + stages},
        "mapped": {s: of("drivers", lambda d: d[s]["mapped"]) for s in ["start"] + stages},
        "task_memory": {s: max(run["tasks"][s]["memory"] for run in runs) for s in stages},
        "files": {f: of("folders", lambda d: d.get(f, {"bytes": 0})["bytes"]) for f in runs[0]["folders"]},
    }


def si(value):
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}".rstrip()
        value /= 1000
    return f"{value:.3g} E"


def tables(runs):
    c = constants(runs)
    sizes = ", ".join(f"{run['documents']:,}" for run in runs)
    mean = runs[-1]["bytes"] / runs[-1]["documents"]
    print(f"Corpora of {sizes} documents, of {mean:,.0f} bytes on average in the largest.\n")
    print("| stage | tasks, µs of a core per document | memory of a task, MB | driver after it, µs per document | its memory, bytes per document | its mapped files, bytes per document |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for stage in ["start"] + list(c["tasks"]):
        task = f"{c['tasks'][stage] * 1e6:.1f} | {c['task_memory'][stage] / 1e6:.0f}" if stage in c["tasks"] else " | "
        print(f"| {stage} | {task} | {c['drivers'][stage] * 1e6:.2f} | {c['memory'][stage]:.1f} | {c['mapped'][stage]:.1f} |")
    print(f"| in all | {sum(c['tasks'].values()) * 1e6:.1f} | | {sum(c['drivers'].values()) * 1e6:.2f} | {max(c['memory'].values()):.1f} at most | {max(c['mapped'].values()):.1f} at most |\n")
    print("| folder | bytes per document | files |\n| --- | ---: | ---: |")
    for name, value in c["files"].items():
        print(f"| {name} | {value:.1f} | {runs[-1]['folders'][name]['files']:,} |")
    print("\n| documents | 10⁹ | 3.9 × 10¹⁰ |\n| --- | ---: | ---: |")
    counts = (1e9, 3.9e10)
    hours = lambda seconds: f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"
    row = lambda name, value: print(f"| {name} | " + " | ".join(value(n) for n in counts) + " |")
    row("text", lambda n: si(n * mean) + "B")
    row("tasks on one core", lambda n: hours(n * sum(c["tasks"].values())))
    for nodes in (1, 8, 64):
        row(f"tasks on {nodes} node{'s' * (nodes > 1)} of {CORES_PER_NODE} cores", lambda n: hours(n * sum(c["tasks"].values()) / nodes / CORES_PER_NODE))
    row("driver", lambda n: hours(n * sum(c["drivers"].values())))
    row("driver, memory that grows", lambda n: si(n * max(c["memory"].values())) + "B")
    row("driver, files that it maps", lambda n: si(n * max(c["mapped"].values())) + "B")
    row("files of the work folder", lambda n: si(n * sum(v for k, v in c["files"].items() if k != "output")) + "B")
    row("output", lambda n: si(n * c["files"]["output"]) + "B")
    row(f"rows of {BANDS} bands through the shuffle of executors", lambda n: si(n * BANDS * ROW) + "B")


def main():
    match sys.argv[1:]:
        case ["measure", program, out, *corpora] if corpora:
            runs = []
            for corpus in map(pathlib.Path, corpora):
                print(corpus.name, file=sys.stderr)
                with tempfile.TemporaryDirectory(dir=pathlib.Path(out).resolve().parent) as folder:
                    runs.append(build(program, corpus.resolve(), pathlib.Path(folder)))
                pathlib.Path(out).write_text(json.dumps(runs, indent=1) + "\n")
        case ["tables", out]:
            tables(json.loads(pathlib.Path(out).read_text()))
        case _:
            sys.exit(__doc__)


main()
