#!/usr/bin/env python3
"""Runs a preregistered experiment, one receipt for each run, and makes the tables of its page from the receipts.

    run.py docs/experiments/NAME.toml --programs DIR --work DIR     run what has no receipt yet, then make the tables
    run.py docs/experiments/NAME.toml --table                       make the tables only

NAME.toml was written before the first run: arms, seeds, metrics, the rule of decision. Receipts are in docs/experiments/NAME/ARM-SEED.json
and hold the hash of NAME.toml; another hash is refused. A run that was killed continues where it stopped. --steps and --seeds make an
experiment smaller; receipts say so. `nice` and RAYON_NUM_THREADS change the time alone: runs are the same bit for bit.

Data is `recipe`, `mixture` and `epochs` of the whole experiment, or those of an arm. With `[corpus.NAME] make = [...]` an arm's `corpus` is
made by that script of this folder with --out; `recipe`, `mixture` and `tasks` are then files of what it makes. `tasks` are answered by every
trained model; a metric with `task` and `number` is a number of one of them. Without `capacities` no capacity is tried.
"""
import argparse, concurrent.futures, hashlib, json, math, os, pathlib, platform, shutil, subprocess, sys, time, tomllib

REPO = pathlib.Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- tables: made by scripts/experiments/run.py -->", "<!-- end of tables -->"
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086]


def fail(message):
    sys.exit(f"run.py: {message}")


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


def make_data(plan, arm, programs, work):
    """The folder of an arm's shards and plan, and that of its corpus; both are made once."""
    say = lambda key: arm.get(key, plan.get(key))
    base, name = REPO, say("corpus")
    if name:
        base = work / "corpora" / name
        if not (base / "recipe.toml").exists():
            script, *more = plan["corpus"][name]["make"]
            run([sys.executable, REPO / "scripts" / "experiments" / script, *more, "--out", base])
    identity = hashlib.sha256(json.dumps([name, say("recipe"), say("mixture"), say("epochs")]).encode()).hexdigest()[:12]
    data = work / "data" / identity
    if not (data / "plan.lock").exists():
        epochs = [] if say("epochs") is None else ["--epochs", say("epochs")]
        run([programs / "moe-data", "-q", "build", "--recipe", base / say("recipe"), "--out", data])
        run([programs / "moe-data", "-q", "mix", "--mixture", base / say("mixture"), *epochs, "--out", data])
    return data, base


def make_run(plan, digest, arm, seed, steps, programs, work, data, base_folder):
    """Trains, evaluates, and returns the receipt and the folder of the run, which may go once the receipt is written."""
    base = ["--config", REPO / plan["config"]] if "config" in plan else ["--preset", plan["preset"]]
    folder, trainer = work / "runs" / f"{plan['name']}-{digest[:8]}-{arm['name']}-{seed}-{steps}", programs / "moe-train"
    settings = plan.get("set", []) + arm["set"] + [f"run.seed={seed}", "run.save_every=100", f"run.eval_every={steps}"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    started, is_resumed = time.monotonic(), (folder / "checkpoints" / "latest").exists()
    if is_resumed:
        run([trainer, "-q", "resume", folder, "--shards", data, "--device", "cpu"])
    else:
        if folder.exists():
            # Killed before its first checkpoint: the trainer starts no run in a folder with metrics.
            shutil.rmtree(folder)
        run([trainer, "-q", "--shards", data, *base, "--steps", steps, "--device", "cpu", "--run", folder, *flags])
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
    return receipt, folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    draft.replace(path)


def metric(receipt, each):
    validation, name = receipt["validation"], each["name"]
    if "task" in each:
        return receipt["tasks"][each["task"]][each["number"]]
    layers = [value for key, value in validation.items() if key.startswith("validation/router/") and key.endswith("/" + {"maxvio": "maxvio", "effective": "e_eff"}.get(name, "?"))]
    if name == "loss":
        return validation["validation/ce"]
    if name == "dropped":
        return next(100 * found["dropped"] for found in receipt["capacities"] if found["capacity"] == "1.25")
    if not layers:
        fail(f"receipts have no metric {name!r}")
    return sum(layers) / len(layers)


def interval(values):
    """Mean and half of the 95 % interval; no interval for one value."""
    mean, n = sum(values) / len(values), len(values)
    if n < 2:
        return mean, math.nan
    if n - 2 >= len(T):
        fail(f"the table of Student's t ends at {len(T) + 1} seeds")
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, T[n - 2] * deviation / math.sqrt(n)


def grid(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def tables(plan, digest, receipts):
    arms = [arm["name"] for arm in plan["arm"]]
    seeds = [seed for seed in plan["seeds"] if all((arm, seed) in receipts for arm in arms)]
    if not seeds:
        fail("no seed has a receipt for every arm yet")
    steps = sorted({receipt["steps"] for receipt in receipts.values()})
    plans = sorted({receipts[arm, seed]["plan"][:12] for arm in arms for seed in seeds})
    out = [f"Preregistration `{digest[:16]}`, {', '.join(map(str, steps))} steps, seeds {', '.join(map(str, seeds))}, {'plan' if len(plans) == 1 else 'plans'} {', '.join(f'`{plan}`' for plan in plans)}."]
    names, metrics = [each["name"] for each in plan["metric"]], {each["name"]: each for each in plan["metric"]}

    # Pairs of an arm and the control, also for seeds that other arms do not have yet.
    pairs = {arm: [seed for seed in plan["seeds"] if (arm, seed) in receipts and (plan["control"], seed) in receipts] for arm in arms}

    def differences(arm, name):
        return [metric(receipts[arm, seed], metrics[name]) - metric(receipts[plan["control"], seed], metrics[name]) for seed in pairs[arm]]

    def told(arm, name):
        if arm == plan["control"]:
            return "0"
        mean, half = interval(differences(arm, name))
        if math.isnan(half):
            return f"{mean:+.3f}"
        text = f"{mean:+.3f} ± {half:.3f}"
        return f"**{text}**" if abs(mean) > half else text

    out.append("Means over seeds that every arm has:")
    values = {(arm, name): [metric(receipts[arm, seed], metrics[name]) for seed in seeds] for arm in arms for name in names}
    out.append(grid(["arm", *names], [[f"`{arm}`", *(f"{interval(values[arm, name])[0]:.3f}" for name in names)] for arm in arms]))
    out.append(f"Difference to `{plan['control']}` of the same seed: mean and 95 % interval, bold where it excludes 0; one pair has no interval.")
    out.append(grid(["arm", "pairs", *names], [[f"`{arm}`", str(len(pairs[arm])), *(told(arm, name) for name in names)] for arm in arms]))
    capacities = plan.get("capacities", [])

    def at(arm, capacity, key):
        found = [each[key] for seed in seeds for each in receipts[arm, seed]["capacities"] if each["capacity"] == capacity]
        return sum(found) / len(found)

    if len(capacities) > 1:
        out.append("Loss, and percent of dropped choices, when the same parameters are evaluated with this many slots per expert:")
        cells = [[f"`{arm}`", *(f"{at(arm, c, 'ce'):.3f}, {100 * at(arm, c, 'dropped'):.1f} %" for c in capacities)] for arm in arms]
        out.append(grid(["arm", *capacities], cells))
    for each in plan["metric"]:
        out.append(f"`{each['name']}`: {each['what']}. Expected: {each['expected']}.")
        begun = [seed for seed in plan["seeds"] if any((arm, seed) in receipts for arm in arms)]
        cell = lambda arm, seed: f"{metric(receipts[arm, seed], each):.4f}" if (arm, seed) in receipts else ""
        out.append(grid(["arm", *(f"seed {seed}" for seed in begun)], [[f"`{arm}`", *(cell(arm, seed) for seed in begun)] for arm in arms]))
    return "\n\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=pathlib.Path, help="the preregistration")
    parser.add_argument("--programs", type=pathlib.Path, default=REPO / "target" / "release", help="folder of moe-data and moe-train")
    parser.add_argument("--work", type=pathlib.Path, default=REPO / "target" / "experiments", help="folder of data and runs")
    parser.add_argument("--steps", type=int, help="fewer steps than preregistered")
    parser.add_argument("--seeds", type=int, metavar="N", help="run only the first N seeds")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; RAYON_NUM_THREADS=1 gives each one thread")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    text = args.plan.read_bytes()
    plan, digest = tomllib.loads(text.decode()), hashlib.sha256(text).hexdigest()
    page, folder, steps = args.plan.parent / plan["page"], args.plan.parent / plan["name"], args.steps or plan["steps"]
    receipts = {}
    for path in sorted(folder.glob("*.json")):
        receipt = json.loads(path.read_text())
        if receipt["preregistration"] != digest:
            fail(f"{path} is of another preregistration, {receipt['preregistration'][:16]}; this one is {digest[:16]}")
        if receipt["steps"] != steps:
            fail(f"{path} is of a run of {receipt['steps']} steps, expected {steps}; move it away, or give --steps")
        receipts[receipt["arm"], receipt["seed"]] = receipt
    if not args.table:
        # All arms of a seed before the next seed, so that pairs are complete wherever it stops.
        wanted = [(arm, seed) for seed in plan["seeds"][: args.seeds] for arm in plan["arm"] if (arm["name"], seed) not in receipts]
        data, problem = {arm["name"]: make_data(plan, arm, args.programs, args.work) for arm, _ in wanted}, None
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            begun = [pool.submit(make_run, plan, digest, arm, seed, steps, args.programs, args.work, *data[arm["name"]]) for arm, seed in wanted]
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
                receipts[arm, seed] = receipt
                print(f"{number}/{len(wanted)} {arm} seed {seed}: {plan['metric'][0]['name']} {metric(receipt, plan['metric'][0]):.4f}, {receipt['seconds']:.0f} s", flush=True)
        if problem:
            fail(problem)
    before, _, rest = page.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        fail(f"{page} has no lines {BEGIN!r} and {END!r}")
    write(page, before + BEGIN + "\n\n" + tables(plan, digest, receipts) + "\n\n" + END + after)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        fail(error)
