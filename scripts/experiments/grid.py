"""Runs of moe-train on a grid of settings, each once: a receipt of every finished run is kept next to it, and a run that has one is
not made again, so a grid that was stopped goes on where it was.

Used by transfer.py and optimizers.py in this folder. Only the standard library is needed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from run import BEGIN, END, machine, write


def arguments(parser):
    """Adds the arguments that all grids share."""
    parser.add_argument("--program", default="target/release/moe-train", help="the moe-train to run")
    parser.add_argument("--shards", default="out", help="folder of a plan with documents held out")
    parser.add_argument("--work", required=True, help="folder for runs and receipts; what lies in it already is kept and used")
    parser.add_argument("--receipts", help="folder of the receipts; absent: that of the runs")
    parser.add_argument("--page", type=Path, help="a page whose table is replaced, between lines that run.py names")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each setting, with seeds from 1")
    parser.add_argument("--steps", type=int, default=400, help="steps of each run")
    parser.add_argument("--validation", type=int, default=64, help="validation samples")
    parser.add_argument("--threads", type=int, help="threads of each run; absent: all of the machine")


class Grid:
    """Where runs are made."""

    def __init__(self, args):
        self.args = args
        self.work = Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.receipts = Path(args.receipts or args.work)
        self.receipts.mkdir(parents=True, exist_ok=True)

    def run(self, name, settings):
        """The receipt of a run with these settings, which is made if there is none."""
        settings = {"run.steps": self.args.steps, "data.validation_samples": self.args.validation, **settings}
        receipt = self.receipts / f"{name}.json"
        if receipt.exists():
            found = json.loads(receipt.read_text())
            if found["settings"] != settings:
                sys.exit(f"{receipt}: is of other settings; take another --work")
            return found
        folder, begun = self.work / name, self.work / f"{name}.begun"
        if folder.exists() and not begun.exists():
            sys.exit(f"{folder}: is no run of this grid; take another --work")
        if folder.exists():
            # It was stopped before it had a receipt.
            shutil.rmtree(folder)
        begun.touch()
        command = [self.args.program, "train", "--shards", self.args.shards, "--run", str(folder), "--json"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        environment = dict(os.environ)
        if self.args.threads:
            environment["RAYON_NUM_THREADS"] = str(self.args.threads)
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        seconds = round(time.monotonic() - start, 1)
        found = {"name": name, "settings": settings, "seconds": seconds, "machine": machine()}
        if done.returncode == 0:
            report = json.loads(done.stdout)
            keys = ["validation_ce", "validation_unigram_ce", "parameter_hash", "data_hash"]
            found |= {key: report[key] for key in keys}
            found["losses"] = validations(folder)
        elif done.returncode == 6:
            # A rate that is too high is a result.
            found |= {"validation_ce": None, "diverged": True, "losses": validations(folder)}
        else:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        temporary = receipt.with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=1) + "\n")
        temporary.rename(receipt)
        begun.unlink()
        # Checkpoints are large, and the receipt has the results.
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        loss = found["validation_ce"]
        print(f"{name}: {'diverged' if loss is None else f'{loss:.4f}'}  {found['seconds']} s", file=sys.stderr)
        return found


    def tell(self, table):
        """Prints a table, and writes it to table.md in the folder of the runs and to the page."""
        print(table)
        write(self.work / "table.md", table + "\n")
        if self.args.page:
            before, _, rest = self.args.page.read_text().partition(BEGIN)
            _, found, after = rest.partition(END)
            if not found:
                sys.exit(f"{self.args.page} has no lines {BEGIN!r} and {END!r}")
            write(self.args.page, before + BEGIN + "\n\n" + table + "\n\n" + END + after)


def validations(folder):
    """(step, loss) of the validations of a run."""
    metrics = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    return [[line["step"], line["validation/ce"]] for line in lines if "validation/ce" in line]


def mean(values):
    """The mean, and the standard deviation of a sample."""
    middle = sum(values) / len(values)
    squares = sum((value - middle) ** 2 for value in values)
    return middle, (squares / max(len(values) - 1, 1)) ** 0.5
