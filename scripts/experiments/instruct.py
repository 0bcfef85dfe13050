#!/usr/bin/env python3
"""Single-task, multi-task, and multi-task then single-task tuning of a dense and a sparse model, and the table of their held-out losses.

    instruct.py --programs DIR --data DIR --work DIR    run what has no receipt yet, then make the table
    instruct.py --table                                 make the table only

Receipts are in docs/experiments/instruct/MODEL-SEED.json. Of every run they hold the loss on answers that no run has seen, of ARC and of the
many tasks, and the hashes of plan and parameters, also of the run whose weights it began with.
"""
import argparse, json, pathlib, statistics, subprocess, sys, tempfile

REPO = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPO / "docs/experiments/instruct.md"
RECEIPTS = REPO / "docs/experiments/instruct"
BEGIN, END = "<!-- table: made by scripts/experiments/instruct.py -->", "<!-- end of table -->"
MODELS = {"sparse": [], "dense": ["model.dense_layers=3"]}
# Name, the run that it starts from, data, steps.
RUNS = [("base", None, "base", 100), ("single", "base", "single", 60), ("multi", "base", "multi", 60), ("multi-single", "multi", "single", 60)]
TUNING_RATE = "optim.lr=1e-3"


def run(command):
    """A command that must succeed; what it prints on stdout."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"instruct.py: exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def make_data(programs, source, work):
    """Builds and plans of the base and of both sets of tasks, which share the base's tokenizer."""
    for name, holdout in [("base", 0.05), ("single", 0.2), ("multi", 0.1)]:
        out = work / name
        if (out / "plan.lock").exists():
            continue
        recipe = (REPO / f"docs/experiments/instruct-{name}.toml").read_text()
        for word, path in [("REPOSITORY", REPO), ("DATA", source.resolve()), ("TOKENIZER", work / "base/tokenizer.json")]:
            recipe = recipe.replace(word, str(path))
        (work / f"{name}.toml").write_text(recipe)
        (work / f"{name}-mix.toml").write_text(f"[mix]\nepochs = 8\nseq_len = 256\nholdout = {holdout}\n")
        run([programs / "moe-data", "-q", "build", "--recipe", work / f"{name}.toml", "--out", out])
        run([programs / "moe-data", "-q", "mix", "--mixture", work / f"{name}-mix.toml", "--out", out])


def train(programs, work, model, seed, most_steps):
    """Runs the four runs of a model, and returns their receipt."""
    receipt = {"model": model, "seed": seed, "runs": {}}
    for name, parent, data, steps in RUNS:
        steps = min(steps, most_steps)
        folder = work / "runs" / f"{model}-{seed}-{name}"
        settings = [f"run.seed={seed}"] + (MODELS[model] if parent is None else [TUNING_RATE])
        start = ["--config", REPO / "docs/experiments/instruct-model.toml"] if parent is None else ["--from", work / "runs" / f"{model}-{seed}-{parent}"]
        flags = [flag for setting in settings for flag in ("--set", setting)]
        if not (folder / "checkpoints/latest").exists():
            run([programs / "moe-train", "-q", "--shards", work / data, *start, "--steps", steps, "--device", "cpu", "--run", folder, *flags])
        else:
            run([programs / "moe-train", "-q", "resume", folder, "--shards", work / data, "--device", "cpu"])
        state = json.loads(run([programs / "moe-train", "inspect", folder, "--json"]))["state"]
        if state["step"] != steps:
            sys.exit(f"instruct.py: {folder} is at step {state['step']} of {steps}")
        losses = {}
        for task in ["single", "multi"]:
            found = json.loads(run([programs / "moe-train", "-q", "eval", folder, "--shards", work / task, "--samples", 64, "--device", "cpu", "--json"]))
            losses[task] = {"all": found["all"], "sources": found["sources"]}
        came_from = folder / "parent.json"
        receipt["runs"][name] = {
            "steps": steps, "settings": settings, "plan": state["plan_id"], "parameters": state["parameter_hash"],
            "parent_parameters": json.loads(came_from.read_text())["parameter_hash"] if came_from.exists() else None,
            "trained_tokens": state["tokens_seen"], "losses": losses,
        }
    return receipt


def table(receipts):
    lines = ["| model | run | ARC answers, held out | other tasks, held out |", "| --- | --- | ---: | ---: |"]
    names = {
        "base": "no tuning", "single": "single task (ARC)", "multi": "many tasks, without ARC", "multi-single": "many tasks, then ARC",
    }
    for model in MODELS:
        of_model = [receipt["runs"] for receipt in receipts if receipt["model"] == model]
        for name, *_ in RUNS if of_model else []:
            cells = []
            for task in ["single", "multi"]:
                values = [runs[name]["losses"][task]["all"]["ce"] for runs in of_model]
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{spread}")
            lines.append(f"| {model} | {names[name]} | {cells[0]} | {cells[1]} |")
    seeds = sorted({receipt["seed"] for receipt in receipts})
    head = f"Nats per trained token, means over the seeds {', '.join(map(str, seeds))}, with the standard deviation where there are several; {len(receipts)} receipts.\n\n"
    return head + "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--programs", type=pathlib.Path)
    arguments.add_argument("--data", type=pathlib.Path)
    arguments.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "moe-instruct")
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--most-steps", type=int, default=1000, help="fewer than the experiment has, to try the script")
    arguments.add_argument("--table", action="store_true")
    given = arguments.parse_args()
    RECEIPTS.mkdir(exist_ok=True)
    if not given.table:
        work = given.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        make_data(given.programs.resolve(), given.data, work)
        for seed in range(1, given.seeds + 1):
            for model in MODELS:
                path = RECEIPTS / f"{model}-{seed}.json"
                if not path.exists():
                    path.write_text(json.dumps(train(given.programs.resolve(), work, model, seed, given.most_steps), indent=1) + "\n")
    receipts = [json.loads(path.read_text()) for path in sorted(RECEIPTS.glob("*.json"))]
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(receipts)}\n\n{END}{after}")


main()
