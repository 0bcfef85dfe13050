"""A training loop that resumes exactly, in PyTorch on the CPU: a small transformer, with a checkpoint at every fifth step.

Usage: train_loop_torch.py OUT RUN [--batch N] [--stop T]    (again with the same RUN after a kill; check_loop.py kills it)
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from moe_shards.torch import PlanStream

arguments = argparse.ArgumentParser()
arguments.add_argument("out")
arguments.add_argument("run", type=Path)
arguments.add_argument("--batch", type=int, default=16)
arguments.add_argument("--stop", type=int)
args = arguments.parse_args()

torch.manual_seed(1)
torch.use_deterministic_algorithms(True)
stream = PlanStream(args.out, args.batch, stop=args.stop)
embed = torch.nn.Embedding(stream.plan.vocab_size, 32)
block = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
model = torch.nn.ModuleList([embed, block])
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
samples, step = [], 0

checkpoint = args.run / "checkpoint.pt"
args.run.mkdir(parents=True, exist_ok=True)
if checkpoint.exists():
    saved = torch.load(checkpoint)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    stream.load_state_dict(saved["data"])
    samples, step = saved["samples"], saved["step"]

for batch in stream:
    segments = batch["segments"]
    hidden = torch.triu(torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool), 1)
    hidden = (hidden | (segments[:, :, None] != segments[:, None, :])).repeat_interleave(2, 0)
    logits = block(embed(batch["tokens"]), src_mask=hidden) @ embed.weight.T
    loss = cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    samples += batch["t"].tolist()
    step += 1
    if step % 5 == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "data": stream.state_dict()}
        torch.save({**state, "samples": samples, "step": step}, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)
        print(json.dumps({"step": step, "t": batch["next_t"], "loss": loss.item()}), flush=True)

parameters = b"".join(value.detach().numpy().tobytes() for value in model.state_dict().values())
for name, data in {"parameters": parameters, "samples": repr(samples).encode()}.items():
    print(name, hashlib.sha256(data).hexdigest())
