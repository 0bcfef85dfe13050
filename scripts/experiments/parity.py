#!/usr/bin/env python3
"""nanoGPT's small model for characters, trained by moe-train and by PyTorch on the same bytes; see parity.sh.

    parity.py PROGRAMS WORK --seeds 3 [--steps 2000] [--table]

Receipts of finished runs are in docs/experiments/parity; the table of docs/experiments/parity.md is made from them."""
import argparse, json, pathlib, shutil, subprocess, sys, time

from run import BEGIN, END, REPO, machine, run, write
from tables import fail, grid, interval

RECIPE = """[[source]]
name = "bible"
paths = ["{datasets}/bible_kjv_web.jsonl.gz"]
id = "id"
family = "group"
variant = "version"
variants = ["WEB", "KJV"]

# 256 bytes and the end of a document: every byte is a token.
[tokenizer]
train = {{ vocab_size = 257 }}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--receipts", type=pathlib.Path, default=REPO / "docs/experiments/parity")
    parser.add_argument("--page", type=pathlib.Path, default=REPO / "docs/experiments/parity.md")
    args = parser.parse_args()
    data, trainer = args.work / "data", args.programs / "moe-train"
    if not (data / "plan.lock").exists():
        write(args.work / "recipe.toml", RECIPE.format(datasets=REPO / "datasets"))
        run([args.programs / "moe-data", "-q", "build", "--recipe", args.work / "recipe.toml", "--out", data])
        run([args.programs / "moe-data", "-q", "mix", "--mixture", REPO / "configs/mix.toml", "--seq-len", 64, "--epochs", 4, "--out", data])
    receipts = {}
    for seed in range(1, args.seeds + 1):
        for who in ("moe-train", "torch"):
            path, folder = args.receipts / f"{who}-{seed}.json", args.work / f"run-{seed}"
            if not path.exists():
                start = time.monotonic()
                if who == "moe-train":
                    shutil.rmtree(folder, ignore_errors=True)
                    sets = [f"run.seed={seed}", f"run.eval_every={args.steps}"]
                    flags = [flag for setting in sets for flag in ("--set", setting)]
                    found = run([trainer, "-q", "train", "--shards", data, "--preset", "char", "--steps", args.steps, "--device", "cpu", "--run", folder, "--json", *flags])
                    report = json.loads(found)
                    found = {key: report[key] for key in ("validation_ce", "parameter_hash", "data_hash")}
                else:
                    script = pathlib.Path(__file__).with_name("parity_torch.py")
                    found = json.loads(run([sys.executable, script, data, folder / "config.lock.toml", "--seed", seed]))
                found |= {"seed": seed, "steps": args.steps, "seconds": round(time.monotonic() - start, 1), "machine": machine()}
                write(path, json.dumps(found, indent=1) + "\n")
                print(f"{who} seed {seed}: {found['validation_ce']:.4f}, {found['seconds']:.0f} s", flush=True)
            receipts[who, seed] = json.loads(path.read_text())
            if receipts[who, seed]["steps"] != args.steps:
                fail(f"{path} is of a run of {receipts[who, seed]['steps']} steps, expected {args.steps}")
    seeds = range(1, args.seeds + 1)
    loss = lambda who, seed: receipts[who, seed]["validation_ce"]
    rows = [[f"`{who}`", *(f"{loss(who, seed):.4f}" for seed in seeds), f"{interval([loss(who, seed) for seed in seeds])[0]:.4f}"] for who in ("moe-train", "torch")]
    mean, half = interval([loss("moe-train", seed) - loss("torch", seed) for seed in seeds])
    table = grid(["validation loss, nats per byte", *(f"seed {seed}" for seed in seeds), "mean"], rows)
    before, _, rest = args.page.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        fail(f"{args.page} has no lines {BEGIN!r} and {END!r}")
    write(args.page, f"{before}{BEGIN}\n\n{table}\n\nmoe-train minus PyTorch: {mean:+.4f} ± {half:.4f} (95 % interval).\n\n{END}{after}")
    print(table)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        fail(error)
