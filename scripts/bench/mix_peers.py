"""Times the Python package of moe-shards on a plan, mosaicml-streaming and litdata on its exported samples, and compares them with the
figures of the reader in Rust.

mix_peers.py SAMPLES.u32 OURS.json WORKDIR: called by mix-peers.sh. Each loader iterates in one process without workers, as
moe-shards does, over a local copy that the page cache holds; the second of two passes counts.
"""

import json
import shutil
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

BATCH = 8
RESUMES = 5


def rate(make_iterable, tokens):
    """Samples per second in the second of two passes. Tokens are summed, since a view costs nothing until it is read."""
    for _ in range(2):
        iterable = make_iterable()
        started = time.perf_counter()
        n = total = 0
        for sample in iterable:
            n += 1
            total += int(tokens(sample).sum())
        seconds = time.perf_counter() - started
    return n / seconds


def resume_ms(make_loader):
    """Milliseconds from nothing to the first batch after half an epoch, with the state that the loader saved there."""
    loader = make_loader()
    half = len(loader) // 2
    for i, _ in enumerate(loader):
        if i + 1 == half:
            state = loader.state_dict()
            break
    times = []
    for _ in range(RESUMES):
        started = time.perf_counter()
        loader = make_loader()
        loader.load_state_dict(state)
        next(iter(loader))
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def ours_in_python(plan_dir, n):
    """Sample by sample, and batches as a training loop takes them. Both also give targets, masks, segments and positions."""
    from moe_shards import Plan, PlanStream

    plan = Plan.open(plan_dir)
    scattered = np.random.default_rng(1).permutation(n).tolist()

    def stream(start):
        return PlanStream(plan, BATCH, start=start, stop=n)

    def resume():
        started = time.perf_counter()
        next(iter(PlanStream(plan_dir, BATCH, start=n // 2)))
        return (time.perf_counter() - started) * 1e3

    ordered = rate(lambda: map(plan.sample, range(n)), lambda sample: sample.tokens)
    shuffled = rate(lambda: map(plan.sample, scattered), lambda sample: sample.tokens)
    batches = rate(lambda: stream(0), lambda batch: batch["tokens"]) * BATCH
    resumed = statistics.median(resume() for _ in range(RESUMES))
    return [("moe-shards in Python, samples", ordered, shuffled, resumed), (f"moe-shards in Python, batches of {BATCH}", batches, None, resumed)]


def mosaicml(samples, folder):
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    shutil.rmtree(folder, ignore_errors=True)
    with MDSWriter(out=str(folder), columns={"tokens": f"ndarray:uint32:{samples.shape[1]}"}, hashes=[]) as out:
        for sample in samples:
            out.write({"tokens": sample})

    def dataset(shuffle):
        return StreamingDataset(local=str(folder), shuffle=shuffle, batch_size=BATCH, shuffle_seed=1)

    ordered, shuffled = dataset(False), dataset(True)
    return (
        rate(lambda: ordered, lambda sample: sample["tokens"]),
        rate(lambda: shuffled, lambda sample: sample["tokens"]),
        resume_ms(lambda: StreamingDataLoader(dataset(True), batch_size=BATCH)),
    )


def store_tokens(i, path, shape):
    """One input of litdata's writer: a block of samples, as one run of tokens each."""
    import torch

    samples = np.memmap(path, dtype=np.uint32, mode="r", shape=tuple(shape))
    for sample in samples[i : i + 1000]:
        yield torch.from_numpy(sample.astype(np.int32))


def litdata(samples, folder, path):
    from functools import partial

    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader, optimize

    shutil.rmtree(folder, ignore_errors=True)
    n, seq_len = samples.shape
    optimize(
        fn=partial(store_tokens, path=str(path), shape=[n, seq_len]),
        inputs=list(range(0, n, 1000)),
        output_dir=str(folder),
        chunk_size=seq_len * 4096,
        num_workers=1,
        item_loader=TokensLoader(block_size=seq_len),
    )

    def dataset(shuffle):
        return StreamingDataset(str(folder), shuffle=shuffle, item_loader=TokensLoader(block_size=seq_len), seed=1)

    return (
        rate(lambda: dataset(False), lambda sample: sample.numpy()),
        rate(lambda: dataset(True), lambda sample: sample.numpy()),
        resume_ms(lambda: StreamingDataLoader(dataset(True), batch_size=BATCH, num_workers=0)),
    )


def main():
    path, ours_path, work = map(Path, sys.argv[1:])
    ours = json.loads(ours_path.read_text())
    samples = np.memmap(path, dtype=np.uint32, mode="r").reshape(-1, ours["seq_len"])
    rows = [("moe-shards", ours["in_order_per_s"], ours["random_per_s"], ours["resume_ms"])]
    rows += ours_in_python(work / "build", len(samples))
    rows.append((f"mosaicml-streaming {version('mosaicml-streaming')}", *mosaicml(samples, work / "mds")))
    rows.append((f"litdata {version('litdata')}", *litdata(samples, work / "litdata", path)))
    print(f"\n{len(samples)} samples of {samples.shape[1]} tokens\n")
    print("| loader | in order, samples/s | shuffled, samples/s | resume at half an epoch, ms |")
    print("| --- | ---: | ---: | ---: |")
    for name, in_order, shuffled, resume in rows:
        print(f"| {name} | {in_order:,.0f} | {f'{shuffled:,.0f}' if shuffled else '-'} | {resume:,.1f} |")


if __name__ == "__main__":
    main()
