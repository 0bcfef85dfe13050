"""What repeated passes are worth: a table of repetition.md, from the receipts of repetition.toml. Only the standard library is needed.

    worth.py docs/experiments/repetition.toml [--work DIR]

The loss after E passes over U tokens is found again on the line through the losses after one pass over fewer tokens (the `fresh` arms): that
many fresh tokens are what the passes are worth. Next to it stands what `moe-data mix` estimated for the same plans; --work, the folder of
data of run.py, is needed once to read these estimates, which are then kept next to the receipts.
"""
import argparse, hashlib, json, math, pathlib, sys, tomllib

import run
from tables import fail, grid, metric

START, END = "<!-- worth: made by scripts/experiments/worth.py -->", "<!-- end of worth -->"
MODELS = {"dense": "dense", "e8": "8 experts", "e32": "32 experts"}
PASSES = [2, 4, 8, 16]
FRESH = [8, 4, 2, 1]


def fresh_share(loss, line):
    """Share of the tokens at which `line`, pairs of a share and its loss with ascending shares, has this loss; None beyond its ends."""
    for (low, high_loss), (high, low_loss) in zip(line, line[1:]):
        if low_loss <= loss <= high_loss:
            part = (high_loss - loss) / (high_loss - low_loss)
            return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
    return None


def tell(share, line, loss):
    if share is not None:
        return f"{share:.2f}"
    return f"above {line[-1][0]:.2f}" if loss < line[-1][1] else f"below {line[0][0]:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    args = parser.parse_args()
    text = args.plan.read_bytes()
    plan = tomllib.loads(text.decode())
    arms = {arm["name"]: arm for arm in plan["arm"]}
    folder = args.plan.with_suffix("")
    receipts = run.read_receipts(folder, hashlib.sha256(text).hexdigest(), lambda arm: arms[arm].get("steps", plan["steps"]))
    estimates = folder / "estimates.txt"
    if args.work:
        lines = []
        for passes in PASSES:
            data, _ = run.make_data(plan, arms[f"dense_{passes}"], None, args.work)
            pool = json.loads((data / "plan.worth.json").read_text())["pools"][0]
            lines.append(f"{passes} {pool['effective_tokens_if_repeats'] / pool['planned_tokens']:.4f}\n")
        run.write(estimates, "".join(lines))
    estimated = {int(passes): float(share) for passes, share in map(str.split, estimates.read_text().splitlines())}

    heldout = next(each for each in plan["metric"] if each["name"] == "heldout")
    rows = []
    for model, label in MODELS.items():
        name = lambda n: f"{model}_1" if n == 1 else f"{model}_fresh_{n}"
        needed = [name(n) for n in FRESH] + [f"{model}_{passes}" for passes in PASSES]
        seeds = [seed for seed in plan["seeds"] if all((arm, seed) in receipts for arm in needed)]
        if not seeds:
            continue
        loss = lambda arm, seed: metric(receipts[arm, seed], heldout)
        mean = lambda arm: sum(loss(arm, seed) for seed in seeds) / len(seeds)
        line = [(1 / n, mean(name(n))) for n in FRESH]
        for passes in PASSES:
            arm = f"{model}_{passes}"
            share = fresh_share(mean(arm), line)
            each = [fresh_share(loss(arm, seed), [(1 / n, loss(name(n), seed)) for n in FRESH]) for seed in seeds]
            spread = "-" if None in each else f"{min(each):.2f} to {max(each):.2f}"
            off = "-" if share is None else f"{estimated[passes] / share:.2f}"
            rows.append([label, str(passes), f"{mean(arm):.4f}", tell(share, line, mean(arm)), spread, f"{estimated[passes]:.2f}", off])
    if not rows:
        print("worth.py: no model has receipts of all its arms yet")
        return
    head = ["model", "passes", "bits per byte", "worth, as a share of the trained tokens", "by seed", "estimate of `moe-data mix`", "estimate / worth"]
    page = args.plan.with_name(plan["page"])
    before, _, rest = page.read_text().partition(START)
    _, found, after = rest.partition(END)
    if not found:
        fail(f"{page} has no lines {START!r} and {END!r}")
    run.write(page, f"{before}{START}\n\n{grid(head, rows)}\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
