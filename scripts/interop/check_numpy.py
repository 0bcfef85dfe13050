"""Checks the NumPy files of `moe-data export --npy` with numpy.load alone; check_python.py reads those of a plan.

Usage: check_numpy.py OUT EXPORT
"""

import sys
from pathlib import Path

import numpy as np


def main(out, export):
    n_tokens = 0
    for bin_ in sorted(Path(out, "shards").glob("*.bin")):
        tokens = np.load(Path(export, bin_.stem + ".npy"), mmap_mode="r")
        ends = np.load(Path(export, bin_.stem + ".ends.npy"), mmap_mode="r")
        assert isinstance(tokens, np.memmap) and tokens.tobytes() == bin_.read_bytes(), bin_
        assert ends[-1] == len(tokens) and (np.diff(ends.astype(np.int64)) > 0).all(), bin_
        n_tokens += len(tokens)
    print(f"numpy {np.__version__}: {n_tokens} tokens in .npy files equal the .bin files")


if __name__ == "__main__":
    main(*sys.argv[1:])
