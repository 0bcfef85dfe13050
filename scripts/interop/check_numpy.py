"""Checks the NumPy files of `moe-data export --npy --plan-npy --rows` with numpy.load alone.

Usage: check_numpy.py OUT EXPORT
"""

import sys
import time
from pathlib import Path

import numpy as np

from moe_plan import Plan


def main(out, export):
    n_tokens = 0
    for bin_ in sorted(Path(out, "shards").glob("*.bin")):
        tokens = np.load(Path(export, bin_.stem + ".npy"), mmap_mode="r")
        ends = np.load(Path(export, bin_.stem + ".ends.npy"), mmap_mode="r")
        assert isinstance(tokens, np.memmap) and tokens.tobytes() == bin_.read_bytes(), bin_
        assert ends[-1] == len(tokens) and (np.diff(ends.astype(np.int64)) > 0).all(), bin_
        n_tokens += len(tokens)
    print(f"numpy {np.__version__}: {n_tokens} tokens in .npy files equal the .bin files")

    plan = Plan(export, out)
    rows = {name: np.load(Path(export, name + ".npy"), mmap_mode="r") for name in ["tokens", "targets", "segments"]}
    assert len(plan) == len(rows["tokens"])
    start = time.perf_counter()
    samples = [plan[i] for i in range(len(plan))]
    seconds = time.perf_counter() - start
    for i, sample in enumerate(samples):
        for name, expected in rows.items():
            assert (sample[name] == expected[i]).all(), f"sample {i}: {name} differ"
    # Any world size reads the same sequence, each sample once.
    for world in [1, 2, 3, 5, 8]:
        for batch in [7, 32, 33]:
            seen = [t for start in range(0, len(plan), batch)
                    for rank in range(world)
                    for t in Plan.batch_slice(start, min(batch, len(plan) - start), rank, world)]
            assert seen == list(range(len(plan))), (world, batch)
    seq_len = rows["tokens"].shape[1]
    print(f"plan {plan.info['plan'][:12]}: {len(plan)} samples of {seq_len} tokens from the index equal those of "
          f"Plan::sample, {len(plan) / seconds:,.0f} samples/s")


if __name__ == "__main__":
    main(*sys.argv[1:])
