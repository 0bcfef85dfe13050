"""A training loop that resumes exactly: a bigram model in NumPy, with a checkpoint at every tenth step.

Usage: train_loop.py OUT RUN [--batch N] [--stop T]    (again with the same RUN after a kill; check_loop.py kills it)
"""

import argparse
import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np

from moe_shards import IGNORE_INDEX, PlanStream

arguments = argparse.ArgumentParser()
arguments.add_argument("out")
arguments.add_argument("run", type=Path)
arguments.add_argument("--batch", type=int, default=32)
arguments.add_argument("--stop", type=int)
args = arguments.parse_args()

stream = PlanStream(args.out, args.batch, stop=args.stop)
# Of 256 classes of tokens, so that it is quick.
logits = np.zeros((256, 256), dtype=np.float32)
samples, step = [], 0

checkpoint = args.run / "checkpoint.pickle"
args.run.mkdir(parents=True, exist_ok=True)
if checkpoint.exists():
    logits, samples, step, state = pickle.loads(checkpoint.read_bytes())
    stream.load_state_dict(state)

for batch in stream:
    mask = batch["targets"] != IGNORE_INDEX
    x, y = batch["tokens"][mask] % 256, batch["targets"][mask] % 256
    p = np.exp(logits[x] - logits[x].max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    p[np.arange(len(y)), y] -= 1
    np.subtract.at(logits, x, 30 * p / len(y))
    samples += batch["t"].tolist()
    step += 1
    if step % 10 == 0 or batch["next_t"] == (args.stop or len(stream.plan)):
        new = checkpoint.with_suffix(".new")
        new.write_bytes(pickle.dumps((logits, samples, step, stream.state_dict())))
        os.replace(new, checkpoint)
        print(json.dumps({"step": step, "t": batch["next_t"], "loss": float(loss)}), flush=True)

for name, data in {"parameters": logits.tobytes(), "samples": repr(samples).encode()}.items():
    print(name, hashlib.sha256(data).hexdigest())
