"""Compares the Python package with what the Rust reader exports and with a reader in NumPy alone, and shows it broken files.

Usage: check_python.py OUT EXPORT PHASED SMALL MOE_DATA

EXPORT: of `moe-data export --plan-npy --rows`. PHASED: a plan of two lengths of sequences. SMALL: a plan whose files are damaged one after
the other, in a copy.
"""

import json
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import moe_shards
from moe_shards import IGNORE_INDEX, Plan, PlanBatches, PlanDataset, PlanStream, Shard

N_RANDOM = 10_000
NAMES = ["tokens", "targets", "segments", "positions"]


class ByIndex:
    """The plan by the exported index and the `.bin` files alone (docs/interop.md), without the package."""

    def __init__(self, export, out):
        self.info = json.loads((export / "plan.json").read_text())
        self.samples, self.pieces = np.load(export / "samples.npy"), np.load(export / "pieces.npy")
        self.bins = [np.memmap(out / name, dtype=self.info["token_dtype"], mode="r") for name in self.info["bins"]]

    def sample(self, i):
        *_, seq_len, first = self.samples[i].tolist()
        last = int(self.samples[i + 1, 4]) if i + 1 < len(self.samples) else len(self.pieces)
        tokens = np.full(seq_len, self.info["eod"], dtype=np.int64)
        targets = np.full(seq_len, IGNORE_INDEX, dtype=np.int64)
        segments, positions = np.full(seq_len, -1, dtype=np.int32), np.zeros(seq_len, dtype=np.int32)
        at = 0
        for number, (shard, token, n, start, has_next, *segment) in enumerate(self.pieces[first:last].tolist()):
            stored = self.bins[shard][token : token + n + has_next]
            tokens[start : start + n] = stored[:n]
            # The last token of a document has no next one; of a cut piece, it is the document's.
            targets[start : start + len(stored) - 1] = stored[1:]
            # Only plans with stitched families say the segment, which may have several pieces.
            segment = segment[0] if segment else number
            at = at if start > 0 and segments[start - 1] == segment else 0
            segments[start : start + n] = segment
            positions[start : start + n] = np.arange(at, at + n)
            at += n
        return {"tokens": tokens, "targets": targets, "segments": segments, "positions": positions}


def refused(kind, *words):
    """A context that expects an exception with these words in its message."""

    class Expect:
        def __enter__(self):
            return self

        def __exit__(self, found, error, trace):
            if found is None:
                raise SystemExit(f"expected {kind.__name__}: {words}")
            assert issubclass(found, kind), f"{found.__name__} instead of {kind.__name__}: {error}"
            assert all(word in str(error) for word in words), f"{error}: expected {words}"
            return True

    return Expect()


def samples(plan, out, export):
    rust = {name: np.load(export / f"{name}.npy", mmap_mode="r") for name in NAMES[:3]}
    reference, dataset = ByIndex(export, out), PlanDataset(plan)
    assert len(plan) == len(dataset) == len(reference.samples) == len(rust["tokens"])
    chance = random.Random(7)
    numbers = [chance.randrange(len(plan)) for _ in range(N_RANDOM)]
    for t in numbers:
        sample, expected = dataset[t], reference.sample(t)
        for name in NAMES:
            assert np.array_equal(sample[name], expected[name]), f"sample {t}: {name} differ from NumPy's"
        for name, array in rust.items():
            assert np.array_equal(sample[name], array[t]), f"sample {t}: {name} differ from the Rust reader's"
        assert plan.locate(t) == tuple(reference.samples[t, :3].tolist())
    t = numbers[0]
    sample = plan.sample(np.int64(t))
    assert sample.tokens.flags.writeable and sample.tokens.dtype == np.int32 and sample.loss_mask.dtype == np.bool_
    assert np.array_equal(sample.loss_mask, dataset[t]["targets"] != IGNORE_INDEX)
    print(f"{N_RANDOM} random samples of {len(plan)} equal those of the Rust reader and of NumPy alone")


def explanations(plan, out, moe_data):
    for t in [0, len(plan) // 2, len(plan) - 1]:
        told = json.loads(subprocess.run([moe_data, "explain", str(t), "--json", "--out", out], capture_output=True, check=True).stdout)
        for piece in told["pieces"]:
            piece.pop("text"), piece.pop("tokens", None)
        assert plan.explain(t) == told, (plan.explain(t), told)
        pieces = plan.sample(t).pieces
        assert [(p.shard, p.offset, p.len, f"{p.family:016x}") for p in pieces] == [
            (p["shard"], p["offset"], p["len"], p["family"]) for p in told["pieces"]
        ]
    print("explanations equal those of `moe-data explain`")


def documents(plan, out):
    n_docs = n_tokens = 0
    manifest = json.loads((out / "MANIFEST.json").read_text())
    for info, expected in zip(plan.shards, manifest["shards"], strict=True):
        shard = Shard.open(info.path)
        shard.verify()
        stored = np.fromfile(info.path.with_suffix(".bin"), dtype=shard.all_tokens.dtype)
        found = list(shard.documents())
        assert len(found) == len(shard) == expected["n_docs"]
        assert np.array_equal(np.concatenate([document.tokens for document in found]), stored)
        assert all(document.tokens[-1] == shard.eod for document in found)
        # A view of the file, not a copy, that nobody can write to.
        assert np.shares_memory(found[0].tokens, shard.all_tokens) and not found[0].tokens.flags.writeable
        assert sum(document.n_bytes for document in found) == expected["n_text_bytes"]
        n_docs, n_tokens = n_docs + len(found), n_tokens + len(stored)
    print(f"{n_docs} documents of {n_tokens} tokens in {len(plan.shards)} shards, none copied")


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def streams(plan):
    whole = plan.batch(0, 500, ignore_index=IGNORE_INDEX)
    for world in [1, 2, 3, 5]:
        for batch in [7, 32, 33]:
            seen = {name: [] for name in ["t", *NAMES]}
            ranks = [iter(PlanStream(plan, batch, rank=rank, world=world, stop=500)) for rank in range(world)]
            for parts in zip(*ranks, strict=True):
                for part in parts:
                    for name in seen:
                        seen[name].append(part[name])
            for name in seen:
                assert np.array_equal(np.concatenate(seen[name]), whole[name]), (world, batch, name)
            numbers = zip(*[PlanBatches(plan, batch, rank=rank, world=world, stop=500) for rank in range(world)], strict=True)
            assert [t for step in numbers for part in step for t in part] == list(range(500))
    # A state is a position: another size of batches and another world continue from it.
    first = PlanStream(plan, 32)
    for batch, _ in zip(first, range(5)):
        state = json.loads(json.dumps(first.state_dict()))
        assert state == {"version": 1, "plan": plan.id, "t": batch["next_t"], "skip": 0, "workers": 1}
    after = PlanStream(plan, 10, rank=1, world=2)
    after.load_state_dict(state)
    assert after.t == 160 and next(iter(after))["t"].tolist() == [165, 166, 167, 168, 169]
    sampler = PlanBatches(plan, 32)
    assert sampler.state_dict(5)["t"] == 160
    sampler.load_state_dict(state)
    assert next(iter(sampler)) == list(range(160, 192)) and len(sampler) == -(-(len(plan) - 160) // 32)
    with refused(moe_shards.FormatError, "the state is of plan 000000000000", "--extend"):
        after.load_state_dict({**state, "plan": "0" * 64})
    with refused(moe_shards.OutOfRangeError, "stands at sample", "--epochs"):
        after.load_state_dict({**state, "t": len(plan) + 1})
    with refused(moe_shards.FormatError, "version 2", "install a newer one"):
        after.load_state_dict({**state, "version": 2})
    with refused(moe_shards.FormatError, "2 worker processes", 'state_dict(batch["next_t"])'):
        sampler.load_state_dict({**state, "workers": 2, "skip": 1})
    # Threads read in parallel, and plans are passed to other processes by path.
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda t: plan.batch(t, t + 50, ignore_index=IGNORE_INDEX), range(0, 500, 50)))
    assert np.array_equal(np.concatenate([part["tokens"] for part in parts]), whole["tokens"])
    assert pickle.loads(pickle.dumps(plan)).id == plan.id
    assert next(iter(pickle.loads(pickle.dumps(after))))["t"][0] == 175
    print("streams and batch samplers give the plan for any number of ranks and size of batches")


def phases(plan):
    """A plan with sequences of two lengths: no batch mixes them, and every sample comes once."""
    lengths = {seq_len for *_, seq_len in plan.phases}
    assert len(lengths) == 2, plan.phases
    for world in [1, 3]:
        seen, rows = [], []
        for parts in zip(*[PlanStream(plan, 64, rank=rank, world=world) for rank in range(world)], strict=True):
            for part in parts:
                seen += part["t"].tolist()
            rows.append({part["tokens"].shape[1] for part in parts})
        assert seen == list(range(len(plan))) and all(len(row) == 1 for row in rows)
        assert set().union(*rows) == lengths
    border = plan.phases[0][1]
    assert {len(plan[t].tokens) for t in range(border - 2, border + 2)} == lengths
    with refused(moe_shards.FormatError, "a batch holds one length"):
        plan.batch(border - 1, border + 1)
    print(f"phases of {sorted(lengths)} tokens: no batch mixes them")


def mistakes(plan, out):
    n = len(plan)
    for t in [n, 10**30, -1]:
        with refused(moe_shards.OutOfRangeError, str(n)):
            plan.sample(t)
    with refused(IndexError, "make a longer plan with `moe-data mix --epochs`"):
        plan[n]
    with refused(TypeError, "expected an integer, found str"):
        plan.sample("1")
    with refused(ValueError, "rank 2 of 2 ranks"):
        plan.batch(0, 8, 2, 2)
    for stop in [n + 1, 10**11, 2**64 - 1, 10**30]:
        with refused(moe_shards.OutOfRangeError, "does not exist", str(n)):
            plan.batch(n - 1, stop)
    with refused(ValueError, "samples 8..3: the end is before the start"):
        plan.batch(8, 3)
    for start in [-1, 9, n + 1]:
        with refused(moe_shards.OutOfRangeError, f"start is {start}"):
            PlanBatches(plan, 4, start=start, stop=8)
        with refused(moe_shards.OutOfRangeError, f"start is {start}"):
            PlanStream(plan, 4, start=start, stop=8)
    with refused(ValueError, "batch is 0"):
        PlanStream(plan, 0)
    with refused(moe_shards.MissingError, "MANIFEST.json is missing: run `moe-data build`"):
        Plan.open(out / "nowhere")
    with refused(FileNotFoundError, "nowhere.mdx"):
        Shard.open(out / "nowhere.mdx")
    shard = Shard.open(plan.shards[0].path)
    with refused(moe_shards.OutOfRangeError, "document", str(len(shard))):
        shard.document(len(shard))
    with refused(moe_shards.OutOfRangeError, "document 4294967296 does not exist"):
        shard.document(2**32)
    assert plan.batch(3, 3)["tokens"].shape == (0, plan.seq_len)


def read_all(out):
    plan = Plan.open(out)
    plan.batch(0, min(len(plan), 40))
    plan.validation_sample(0)
    plan.explain(3)
    for info in plan.shards:
        for document in Shard.open(info.path):
            document.tokens.sum()


def damage(small):
    """Whatever is in the files, the result is one of our exceptions: no panic, no end of the process."""
    chance = random.Random(3)
    n_refused = n_read = 0
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "copy")
        shutil.copytree(small, copy)
        read_all(copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix in {".mdx", ".bin", ".pack", ".counts", ".lock", ".json"})
        for path in files:
            whole = path.read_bytes()
            for trial in range(40):
                data = bytearray(whole)
                if trial % 4 == 0:
                    del data[chance.randrange(len(data)) :]
                else:
                    for _ in range(trial % 4):
                        at = chance.randrange(len(data) if trial % 8 > 3 else min(len(data), 200))
                        data[at] = chance.randrange(256)
                path.unlink()
                path.write_bytes(data)
                try:
                    read_all(copy)
                    n_read += 1
                except moe_shards.InternalError as error:
                    raise SystemExit(f"{path.name}, trial {trial}: {error}")
                except moe_shards.Error:
                    n_refused += 1
            path.write_bytes(whole)
        read_all(copy)
    assert n_refused > n_read, (n_refused, n_read)
    print(f"damaged files: {n_refused} refused with our exceptions, {n_read} changes that no reading meets")


def main(out, export, phased, small, moe_data):
    out, export = Path(out), Path(export)
    start = time.perf_counter()
    plan = Plan.open(out)
    plan.verify()
    samples(plan, out, export)
    explanations(plan, out, moe_data)
    documents(plan, out)
    streams(plan)
    phases(Plan.open(phased))
    mistakes(plan, out)
    damage(small)
    documented = [" ".join(what.__doc__.split()) for what in (Plan, Plan.explain)]
    assert "Sample `t` is a function only of `t`" in documented[0] and "text of each piece" in documented[1]
    print(f"moe-shards with numpy {np.__version__}: all checks in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
