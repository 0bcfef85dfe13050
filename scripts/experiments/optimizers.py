#!/usr/bin/env python3
"""Steps to a validation loss under each rule of the optimizer, at the best of some learning rates.

    moe-data build && moe-data mix --epochs 4
    cargo build --release --package moe-train
    python3 scripts/experiments/optimizers.py --work runs/optimizers --seeds 5 \\
        --receipts docs/experiments/optimizers --page docs/experiments/optimizers.md

All runs have the model of configs/train/tiny.toml and read the same samples. Rates are tuned with seed 1 by the last loss; the best of
each rule is then run with the other seeds. The loss to reach is the mean last loss of the first rule, unless --target says another."""

import argparse

from grid import Grid, arguments, mean
from tables import interval

RATES = {
    "adamw": [1e-3, 2e-3, 4e-3, 8e-3, 16e-3],
    "muon": [1e-3, 2e-3, 4e-3, 8e-3, 16e-3],
    "normuon": [1e-3, 2e-3, 4e-3, 8e-3, 16e-3],
    "lion": [1e-4, 2e-4, 4e-4, 8e-4, 16e-4],
    "sgd": [3e-2, 1e-1, 3e-1, 1.0, 3.0],
}

TINY = {
    "run.log_every": 100,
    "run.save_every": 1000000,
    "run.keep": 1,
    "model.layers": 3,
    "moe.expert_ffn": 128,
    "moe.balance.bias_rate": 0.01,
    "moe.balance.sequence": 1e-3,
    "moe.balance.z": 1e-4,
    # A constant rate: losses of earlier steps do not depend on the end.
    "schedule.kind": "constant",
}


def steps_to(losses, target):
    """The step at which the loss is reached, by linear interpolation between two validations; none if it is not."""
    before = None
    for step, loss in losses:
        if loss <= target:
            if before is None or before[1] <= loss:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - target) / (before[1] - loss)
        before = (step, loss)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--rules", nargs="+", default=["adamw", "muon", "normuon"], choices=sorted(RATES))
    parser.add_argument("--every", type=int, default=20, help="steps between validations")
    parser.add_argument("--target", type=float, help="validation loss to reach")
    args = parser.parse_args()
    grid = Grid(args)

    def run(rule, rate, seed):
        chosen = {"run.seed": seed, "run.eval_every": args.every, "optim.kind": rule, "optim.lr": rate}
        return grid.run(f"{rule}-{rate:.1e}-{seed}", TINY | chosen)

    found, tuning = {}, ["Last loss by learning rate, seed 1:", ""]
    for rule in args.rules:
        tuned = [(run(rule, rate, 1)["validation_ce"], rate) for rate in RATES[rule]]
        told = ", ".join(f"{rate:g}: " + ("diverged" if loss is None else f"{loss:.4f}") for loss, rate in tuned)
        tuning.append(f"- {rule}: {told}")
        tuned = [(loss, rate) for loss, rate in tuned if loss is not None]
        if tuned:
            rate = min(tuned)[1]
            found[rule] = rate, [run(rule, rate, seed) for seed in range(1, args.seeds + 1)]
    if not found:
        raise SystemExit("every run diverged")
    whole = [receipt["validation_ce"] for receipt in next(iter(found.values()))[1] if receipt["validation_ce"] is not None]
    target = args.target or mean(whole)[0]
    lines = tuning + ["", f"Steps to a validation loss of {target:.4f}:", "", "| rule | lr | seeds | steps | deviation | minus the first, same seed | last loss | deviation |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    # A seed that does not reach the loss counts as all steps.
    counted = {rule: [steps_to(receipt["losses"], target) or args.steps for receipt in receipts] for rule, (_, receipts) in found.items()}
    first = next(iter(found))
    for rule, (rate, receipts) in found.items():
        steps = [steps_to(receipt["losses"], target) for receipt in receipts]
        reached = [step for step in steps if step is not None]
        last = mean([receipt["validation_ce"] for receipt in receipts if receipt["validation_ce"] is not None])
        told = "not reached | " if not reached else "{:.0f} | {:.0f}".format(*mean(reached))
        difference, half = interval([a - b for a, b in zip(counted[rule], counted[first])])
        paired = "0" if rule == first else f"{difference:+.0f} ± {half:.0f}"
        edge = " (at the edge)" if rate in (RATES[rule][0], RATES[rule][-1]) else ""
        lines.append(f"| {rule} | {rate:g}{edge} | {len(reached)} of {len(receipts)} | {told} | {paired} | {last[0]:.4f} | {last[1]:.4f} |")
    grid.tell("\n".join(lines))


if __name__ == "__main__":
    main()
