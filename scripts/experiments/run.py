#!/usr/bin/env python3
"""Runs a preregistered experiment, one receipt for each run, and makes the tables of its page from the receipts.

    run.py docs/experiments/NAME.toml --programs DIR --work DIR     run what has no receipt yet, then make the tables
    run.py docs/experiments/NAME.toml --table                       make the tables only

NAME.toml was written before the first run: arms, seeds, metrics, the rule of decision. Receipts are in docs/experiments/NAME/ARM-SEED.json
and hold the hash of NAME.toml; another hash is refused. A run that was killed continues where it stopped. --steps and --seeds make an
experiment smaller; receipts say so. `nice` and RAYON_NUM_THREADS change the time alone: runs are the same bit for bit.

Data is `recipe`, `mixture` and `epochs` of the whole experiment, or those of an arm. With `[corpus.NAME] make = [...]` an arm's `corpus` is
made by that script of this folder with --out; `recipe`, `mixture` and `tasks` are then files of what it makes. `tasks` are answered by every
trained model; a metric with `task` and `number` (and `group`) is a number of one of them. An arm whose plan has more padding has `steps` of its own, to
train on as many tokens. Without `capacities` no capacity is tried.

`[start]` is a run of each seed that arms continue: with `start = ["--from"]` from its weights, with `start = ["upcycle", "--experts", "8"]` as what
that command makes of it. Receipts of such arms record the hash of its parameters, the loss before the first step, and the loss on the held-out
documents of `[start]` after the last. Its time is in nobody's `seconds`.
"""
import argparse, collections, concurrent.futures, hashlib, json, math, os, pathlib, platform, shutil, subprocess, sys, threading, time, tomllib

from tables import fail, figure, metric, tables

REPO = pathlib.Path(__file__).resolve().parents[2]
# Arms of one seed wait for the run that they continue.
MAKING_STARTS = collections.defaultdict(threading.Lock)
STARTS = {}
BEGIN, END = "<!-- tables: made by scripts/experiments/run.py -->", "<!-- end of tables -->"


def run(command):
    """A command that must succeed; what it prints on stdout."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def machine():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return {"system": platform.system(), "processor": processor, "cores": os.cpu_count(), "threads": os.environ.get("RAYON_NUM_THREADS", "all")}


def make_corpus(plan, name, programs, work):
    """The folder of a corpus, made once. With `tokenizer = "OTHER"` it has the tokenizer of a build of that one, so that both have the same tokens."""
    corpus = plan["corpus"][name]
    made = hashlib.sha256(json.dumps([corpus, plan["corpus"].get(corpus.get("tokenizer"))]).encode()).hexdigest()[:8]
    base = work / "corpora" / f"{name}-{made}"
    if not (base / "recipe.toml").exists():
        script, *more = corpus["make"]
        run([sys.executable, REPO / "scripts" / "experiments" / script, *more, "--out", base])
    if "tokenizer" in corpus and not (base / "tokenizer.json").exists():
        other, built = make_corpus(plan, corpus["tokenizer"], programs, work), work / "data" / f"tokenizer-of-{name}-{made}"
        run([programs / "moe-data", "-q", "build", "--recipe", other / plan["recipe"], "--out", built])
        shutil.copy(built / "tokenizer.json", base / "tokenizer.json")
    return base


def make_data(plan, arm, programs, work):
    """The folder of an arm's shards and plan, and that of its corpus; both are made once."""
    say = lambda key: arm.get(key, plan.get(key))
    base, name = REPO, arm.get("corpus")
    if name:
        base = make_corpus(plan, name, programs, work)
    identity = hashlib.sha256(json.dumps([name and base.name, say("recipe"), say("mixture"), say("epochs")]).encode()).hexdigest()[:12]
    data = work / "data" / identity
    if not (data / "plan.lock").exists():
        epochs = [] if say("epochs") is None else ["--epochs", say("epochs")]
        run([programs / "moe-data", "-q", "build", "--recipe", base / say("recipe"), "--out", data])
        run([programs / "moe-data", "-q", "mix", "--mixture", base / say("mixture"), *epochs, "--out", data])
    return data, base


def before_of(folder):
    """The file with the loss of a run before its first step, which is measured before it is trained."""
    return folder.with_name(folder.name + ".before")


def train(plan, arm, parent, settings, steps, programs, data, folder):
    """Trains a run of an arm, from where it was killed; the loss before the first step, if it continues another run, and whether it was killed."""
    trainer, how = programs / "moe-train", arm.get("start")
    flags = [flag for setting in settings for flag in ("--set", setting)]
    loss = lambda path: json.loads(run([trainer, "-q", "eval", path, "--shards", data, "--device", "cpu", "--json"]))["all"]["ce"]
    before, is_upcycled = before_of(folder), how is not None and how != ["--from"]
    is_resumed = (folder / "checkpoints" / "latest").exists() and (before.exists() or not is_upcycled)
    if not is_resumed:
        if folder.exists():
            # Killed before its first checkpoint: the trainer starts no run in a folder with metrics.
            shutil.rmtree(folder)
        if is_upcycled:
            run([trainer, "-q", *how, parent, "--shards", data, "--steps", steps, "--device", "cpu", "--run", folder, *flags])
            write(before, str(loss(folder)))
        else:
            base = ["--config", REPO / plan["config"]] if "config" in plan else ["--preset", plan["preset"]]
            origin = base if how is None else ["--from", parent]
            run([trainer, "-q", "--shards", data, *origin, "--steps", steps, "--device", "cpu", "--run", folder, *flags])
    if is_resumed or is_upcycled:
        run([trainer, "-q", "resume", folder, "--shards", data, "--device", "cpu"])
    if how is None:
        return None, is_resumed
    return float(before.read_text()) if is_upcycled else loss(parent), is_resumed


def make_start(plan, digest, seed, programs, work):
    """The run of a seed that arms continue, made once, and the folder of its data."""
    start = plan["start"]
    folder = work / "runs" / f"{plan['name']}-{digest[:8]}-start-{seed}"
    with MAKING_STARTS[seed]:
        if seed not in STARTS:
            data, _ = make_data(plan, start, programs, work)
            settings = plan.get("set", []) + start.get("set", []) + [f"run.seed={seed}"]
            train(plan, {}, None, settings, start["steps"], programs, data, folder)
            STARTS[seed] = folder, data
    return STARTS[seed]


def make_run(plan, digest, arm, seed, steps, programs, work, data, base_folder):
    """Trains, evaluates, and returns the receipt and the folder of the run, which may go once the receipt is written."""
    folder, trainer = work / "runs" / f"{plan['name']}-{digest[:8]}-{arm['name']}-{seed}-{steps}", programs / "moe-train"
    settings = plan.get("set", []) + arm["set"] + [f"run.seed={seed}", "run.save_every=100", f"run.eval_every={steps}"]
    parent, start_data = make_start(plan, digest, seed, programs, work) if "start" in arm else (None, None)
    started = time.monotonic()
    before, is_resumed = train(plan, arm, parent, settings, steps, programs, data, folder)
    seconds = time.monotonic() - started
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = {kind: [line for line in lines if line["step"] == steps and f"{kind}/ce" in line] for kind in ("train", "validation")}
    # A corpus that is learned by heart has no held-out part; its tasks show what was learned.
    if not last["train"] or not (last["validation"] or plan.get("tasks")):
        raise RuntimeError(f"{folder}: metrics.jsonl has no lines of step {steps}")
    state = json.loads(run([trainer, "inspect", folder, "--json"]))["state"]
    evaluate = lambda *words: json.loads(run([trainer, "-q", "eval", folder, *words, "--device", "cpu", "--json"]))
    capacities = plan.get("capacities")
    sweep = evaluate("--shards", data, "--capacity", ",".join(capacities))["capacities"] if capacities else []
    tasks = [base_folder / task for task in plan.get("tasks", [])]
    answers = evaluate("--tasks", *tasks)["tasks"] if tasks else {}
    receipt = {
        "experiment": plan["name"], "preregistration": digest, "arm": arm["name"], "seed": seed, "steps": steps, "settings": settings,
        "program": state["program"], "config": state["config_fingerprint"], "plan": state["plan_id"], "data": state["data_hash"],
        "parameters": state["parameter_hash"], "seconds": round(seconds, 1), "resumed": is_resumed, "machine": machine(),
        "train": {key: value for key, value in last["train"][-1].items() if not key.startswith("perf/")},
        "validation": last["validation"][-1] if last["validation"] else {}, "capacities": sweep, "tasks": answers,
    }
    if parent is not None:
        origin = json.loads(run([trainer, "inspect", parent, "--json"]))["state"]
        found = evaluate("--shards", start_data)["all"]
        receipt["start"] = {
            "steps": origin["step"], "plan": origin["plan_id"], "parameters": origin["parameter_hash"], "loss_before": before, "loss_on_its_data": found["ce"],
        }
    return receipt, folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    draft.replace(path)


def scaled(plan, by):
    """The experiment for a machine that is `by` times as fast: what `[scale]` names, times `by`."""
    if "scale" not in plan:
        fail(f"--scale: {plan['name']} does not say what grows: it has no [scale]")
    if "start" in plan:
        fail(f"--scale: {plan['name']} has a [start], which does not grow")
    larger, names = dict(plan), plan["scale"]
    times = lambda key, value: str(int(value) * by) if key in names.get("make", []) else value
    if "steps" in plan:
        larger["steps"] = plan["steps"] * by
    if "seconds" in plan:
        larger["seconds"] = plan["seconds"] * by
    larger["arm"] = [{**arm, "steps": arm["steps"] * by} if "steps" in arm else arm for arm in plan["arm"]]
    larger["corpus"] = {
        name: {**corpus, "make": [times(before, word) for before, word in zip(["", *corpus["make"]], corpus["make"])]}
        for name, corpus in plan.get("corpus", {}).items()
    }
    grow = lambda setting: "{}={}".format((pair := setting.split("=", 1))[0], int(pair[1]) * by) if setting.split("=")[0] in names.get("set", []) else setting
    larger["set"] = [grow(setting) for setting in plan.get("set", [])]
    return larger


def read_receipts(folder, digest, steps_of):
    receipts = {}
    for path in sorted(folder.glob("*.json")):
        receipt = json.loads(path.read_text())
        if receipt["preregistration"] != digest:
            fail(f"{path} is of another preregistration, {receipt['preregistration'][:16]}; this one is {digest[:16]}")
        expected = steps_of(receipt["arm"])
        if receipt["steps"] != expected:
            fail(f"{path} is of a run of {receipt['steps']} steps, expected {expected}; move it away, or give --steps")
        receipts[receipt["arm"], receipt["seed"]] = receipt
    return receipts


def check(plan):
    """Refuses mistakes about `[start]` before anything runs."""
    for arm in plan["arm"]:
        how = arm.get("start")
        if how is not None and how != ["--from"] and not (isinstance(how, list) and how[:1] == ["upcycle"]):
            fail(f"arm {arm['name']}: start = {how!r}, expected [\"--from\"] or [\"upcycle\", ...]")
        if how is not None and "steps" not in plan.get("start", {}):
            fail(f"arm {arm['name']} has a start, but there is no [start] with steps")
    for each in plan["metric"]:
        if each.get("start", "loss_before") not in ("loss_before", "loss_on_its_data"):
            fail(f"metric {each['name']}: start = {each['start']!r}, expected \"loss_before\" or \"loss_on_its_data\"")


def say_how_long(plan, wanted, receipts, jobs):
    """What would run, with the time by the receipts of the same arm, of any arm, or by what the preregistration expects."""
    took = lambda arms: [receipt["seconds"] for (arm, _), receipt in receipts.items() if arm in arms]
    seconds, everyone = 0.0, [arm["name"] for arm in plan["arm"]]
    for arm, seed in wanted:
        known = took([arm["name"]]) or took(everyone) or ([plan["seconds"]] if "seconds" in plan else [])
        told = f"{sum(known) / len(known):.0f} s" if known else "nobody knows how long"
        seconds += sum(known) / len(known) if known else math.nan
        print(f"{arm['name']} seed {seed}: {told}")
    total = "" if math.isnan(seconds) else f", about {seconds / jobs / 60:.0f} minutes with {jobs} at a time"
    print(f"{len(wanted)} runs{total}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=pathlib.Path, help="the preregistration")
    parser.add_argument("--programs", type=pathlib.Path, default=REPO / "target" / "release", help="folder of moe-data and moe-train")
    parser.add_argument("--work", type=pathlib.Path, default=REPO / "target" / "experiments", help="folder of data and runs")
    parser.add_argument("--steps", type=int, help="fewer steps than preregistered")
    parser.add_argument("--seeds", type=int, metavar="N", help="run only the first N seeds")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="run only these arms")
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="a larger experiment, by the [scale] of the preregistration; receipts and page in the work folder")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; RAYON_NUM_THREADS=1 gives each one thread")
    parser.add_argument("--figure", metavar="METRIC", help="also draw this metric, for a preregistration without [figure]")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and how long it takes")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    text = args.plan.read_bytes()
    plan, digest = tomllib.loads(text.decode()), hashlib.sha256(text).hexdigest()
    check(plan)
    page, folder, work = args.plan.parent / plan["page"], args.plan.parent / plan["name"], args.work
    if args.scale != 1:
        plan, work = scaled(plan, args.scale), args.work / f"x{args.scale}"
        page, folder = work / plan["page"], work / plan["name"]
    arms = {arm["name"]: arm for arm in plan["arm"]}
    for name in args.only or []:
        if name not in arms:
            fail(f"--only {name}: no such arm, there are {', '.join(arms)}")
    steps_of = lambda arm: args.steps or arms[arm].get("steps") or plan["steps"]
    receipts = read_receipts(folder, digest, steps_of)
    # All arms of a seed before the next seed, so that pairs are complete wherever it stops.
    wanted = [
        (arm, seed) for seed in plan["seeds"][: args.seeds] for arm in plan["arm"]
        if (arm["name"], seed) not in receipts and arm["name"] in (args.only or arms)
    ]
    if args.dry_run:
        return say_how_long(plan, wanted, receipts, args.jobs)
    if not args.table:
        data, problem = {arm["name"]: make_data(plan, arm, args.programs, work) for arm, _ in wanted}, None
        if any("start" in arm for arm, _ in wanted):
            make_data(plan, plan["start"], args.programs, work)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            begun = [pool.submit(make_run, plan, digest, arm, seed, steps_of(arm["name"]), args.programs, work, *data[arm["name"]]) for arm, seed in wanted]
            for number, done in enumerate(concurrent.futures.as_completed(begun), 1):
                if done.cancelled():
                    continue
                if done.exception():
                    # What is running finishes and keeps its receipt.
                    problem = problem or done.exception()
                    pool.shutdown(wait=False, cancel_futures=True)
                    continue
                receipt, run_folder = done.result()
                arm, seed = receipt["arm"], receipt["seed"]
                write(folder / f"{arm}-{seed}.json", json.dumps(receipt, indent=1) + "\n")
                shutil.rmtree(run_folder)
                before_of(run_folder).unlink(missing_ok=True)
                receipts[arm, seed] = receipt
                print(f"{number}/{len(wanted)} {arm} seed {seed}: {plan['metric'][0]['name']} {metric(receipt, plan['metric'][0]):.4f}, {receipt['seconds']:.0f} s", flush=True)
        if problem:
            fail(problem)
    if args.scale != 1 and not page.exists():
        write(page, f"# {plan['name']}, {args.scale} times as large\n\n{BEGIN}\n{END}\n")
    before, _, rest = page.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        fail(f"{page} has no lines {BEGIN!r} and {END!r}")
    write(page, before + BEGIN + "\n\n" + tables(plan, digest, receipts) + "\n\n" + END + after)
    if args.figure:
        what = next((each["what"] for each in plan["metric"] if each["name"] == args.figure), None)
        if what is None:
            fail(f"--figure {args.figure}: no such metric, there are {', '.join(each['name'] for each in plan['metric'])}")
        plan["figure"] = {"metric": args.figure, "title": before.partition("\n")[0].lstrip("# "), "axis": what.partition(";")[0]}
    if "figure" in plan:
        write(page.with_suffix(".svg"), figure(plan, receipts))


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        fail(error)
