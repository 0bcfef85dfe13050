"""Reads a plan exported by `moe-data export --plan-npy`: sample t by its number, without state.

Needs NumPy only. The tokens are mapped from the shards of the build, not copied. `Plan` has the two
methods of a map-style `torch.utils.data.Dataset`, so a `DataLoader` takes it as it is:

    plan = Plan("out/export", "out")
    loader = torch.utils.data.DataLoader(plan, batch_size=32, shuffle=False, sampler=range(t, len(plan)))

Do not shuffle: the order is the plan. To resume, start the sampler at the number of samples seen. Each
rank reads a contiguous slice of every batch: `plan.batch_slice(t, batch, rank, world)`.
"""

import json
from pathlib import Path

import numpy as np

NO_TARGET = -100  # what torch.nn.functional.cross_entropy ignores by default


class Plan:
    def __init__(self, export, out):
        export, out = Path(export), Path(out)
        self.info = json.loads((export / "plan.json").read_text())
        if self.info["version"] != 1:
            raise ValueError(f"{export}/plan.json: version {self.info['version']}; this reader knows 1")
        self.samples = np.load(export / "samples.npy", mmap_mode="r")
        self.pieces = np.load(export / "pieces.npy", mmap_mode="r")
        self.bins = [np.memmap(out / name, dtype=self.info["token_dtype"], mode="r") for name in self.info["bins"]]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        """Sample `first_sample + i` of the plan."""
        pool, pass_, bin_, seq_len, first = (int(x) for x in self.samples[i])
        last = int(self.samples[i + 1, 4]) if i + 1 < len(self.samples) else len(self.pieces)
        tokens = np.full(seq_len, self.info["eod"], dtype=np.int64)
        targets = np.full(seq_len, NO_TARGET, dtype=np.int64)
        segments = np.full(seq_len, -1, dtype=np.int32)
        positions = np.zeros(seq_len, dtype=np.int64)
        for number, (shard, token, n, start, has_next) in enumerate(self.pieces[first:last].tolist()):
            stored = self.bins[shard][token : token + n + has_next]
            tokens[start : start + n] = stored[:n]
            # The last token of a document has no next one; of a cut piece, it is the document's.
            targets[start : start + len(stored) - 1] = stored[1:]
            segments[start : start + n] = number
            positions[start : start + n] = np.arange(n)
        return {"tokens": tokens, "targets": targets, "segments": segments, "positions": positions,
                "pool": pool, "pass": pass_, "bin": bin_}

    @staticmethod
    def batch_slice(t, batch, rank, world):
        """The samples of t .. t + batch that a rank reads."""
        return range(t + batch * rank // world, t + batch * (rank + 1) // world)
