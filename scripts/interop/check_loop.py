"""Kills train_loop.py (SIGKILL) again and again, and compares where it ends with a run that nobody stopped.

Usage: check_loop.py OUT SCRATCH [KILLS] [SCRIPT]
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

out, scratch = sys.argv[1:3]
kills = int(sys.argv[3]) if len(sys.argv) > 3 else 3
script = sys.argv[4] if len(sys.argv) > 4 else str(Path(__file__).with_name("train_loop.py"))
chance = random.Random(1)


def start(name):
    command = [sys.executable, script, out, f"{scratch}/{name}", "--batch", "16", "--stop", "1200"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(name):
    """The lines that a run ends with: digests of its parameters and of the numbers of its samples."""
    run = start(name)
    text, _ = run.communicate()
    lines = text.splitlines()[-2:]
    if run.returncode != 0 or [line.split()[0] for line in lines] != ["parameters", "samples"]:
        raise SystemExit(f"run `{name}` ended with code {run.returncode} and {lines}; expected code 0 and two digests")
    return lines


expected = finish("whole")
places = []
while len(places) < kills:
    run = start("killed")
    # Not before its first step, and a moment later, so in the midst of a step or of saving.
    for _ in range(chance.randint(1, 3)):
        line = run.stdout.readline()
    if '"step"' not in line:
        raise SystemExit(f"a run that was to be killed printed {line!r} instead of a step, and ended with code {run.wait()}")
    time.sleep(chance.random() * 0.02)
    if run.poll() is not None:
        raise SystemExit("the run ended before it could be killed: make it longer")
    run.kill()
    run.wait()
    places.append(json.loads(line)["step"])
found = finish("killed")
if found != expected:
    raise SystemExit(f"after kills at steps {places} the run ends with {found}, without them with {expected}")
print(f"training loop: killed after steps {places}, ends with the parameters and samples of an uninterrupted run")
