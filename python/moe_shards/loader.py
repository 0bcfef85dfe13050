"""Data sets and loaders over a plan, in NumPy. `moe_shards.torch` has the same with tensors.

All of them read the samples of a plan in order. A batch of `batch` samples is `t .. t + batch` of the plan for any number
of ranks; rank `r` of `w` reads the contiguous part `n * r // w .. n * (r + 1) // w` of its `n` samples. Where the length of the
sequences changes, or the plan ends, a batch is cut short. The position is `t`, the total number of samples that all ranks
have seen, and is the same for any number of ranks and any batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np

from ._native import Plan
from .errors import FormatError, OutOfRangeError

IGNORE_INDEX = -100
"""Value of targets where there is nothing to predict, which PyTorch's cross-entropy ignores."""

_STATE_VERSION = 1


def _opened(plan: Plan | str | PathLike[str]) -> Plan:
    return plan if isinstance(plan, Plan) else Plan.open(plan)


def _check_rank(batch: int, rank: int, world: int) -> None:
    if batch < 1:
        raise ValueError(f"batch is {batch}; expected at least 1")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} ranks: ranks are numbered from 0")


def _runs(plan: Plan) -> list[int]:
    """Where the length of the sequences changes, and the end."""
    ends: list[int] = []
    phases = plan.phases
    for (_, end, seq_len), after in zip(phases, [*phases[1:], None]):
        if after is None or after[2] != seq_len:
            ends.append(end)
    return ends


class _Batches:
    """The batches of a plan: where the one that begins at sample `t` ends."""

    def __init__(self, plan: Plan, batch: int, start: int, stop: int | None):
        n = len(plan)
        self.stop = n if stop is None else stop
        if not 0 <= self.stop <= n:
            raise OutOfRangeError(f"stop is {stop}, the plan has {n} samples")
        if not 0 <= start <= self.stop:
            raise OutOfRangeError(f"start is {start}, the batches end at sample {self.stop}")
        self.batch = batch
        self.ends = [min(end, self.stop) for end in _runs(plan)]

    def end(self, t: int) -> int:
        run = next(end for end in self.ends if end > t)
        return min(t + self.batch, run)

    def count(self, t: int) -> int:
        n = 0
        for end in self.ends:
            if end > t:
                n += -(-(end - t) // self.batch)
                t = end
        return n


def _check_state(state: dict[str, Any], plan: Plan) -> int:
    version = state.get("version")
    if version != _STATE_VERSION:
        raise FormatError(f"the state has version {version}; this package reads {_STATE_VERSION}: install a newer one")
    t = int(state["t"])
    if not 0 <= t <= len(plan):
        raise OutOfRangeError(f"the state stands at sample {t}, the plan has {len(plan)}: make a longer plan with `moe-data mix --epochs`")
    if not plan.continues(state["plan"], t):
        raise FormatError(
            f"{plan.path}: the state is of plan {state['plan'][:12]}, this is {plan.id[:12]}: open the plan that the run began "
            "with, or one that extends it (`moe-data mix --extend --from T`)"
        )
    return t


class PlanDataset:
    """A map-style data set: `dataset[t]` is sample `t` as a dictionary of arrays.

    `tokens` and `targets` (int64; -100 where there is nothing to predict), `segments` and `positions` (int32), and `t`.
    Do not shuffle: the order is the plan. `PlanBatches` is its batch sampler.
    """

    def __init__(self, plan: Plan | str | PathLike[str]):
        self.plan = _opened(plan)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, t: int) -> dict[str, Any]:
        sample = self.plan.sample(t)
        return {
            "t": sample.t,
            "tokens": sample.tokens.astype(np.int64),
            "targets": np.where(sample.loss_mask, sample.targets, IGNORE_INDEX).astype(np.int64),
            "segments": sample.segments,
            "positions": sample.positions,
        }


class PlanBatches:
    """A batch sampler: the numbers of the samples of each batch that this rank reads, from sample `start` on.

    For a plan whose phases have sequences of several lengths it never mixes them. `t` is the sample that the next batch
    begins with; a `DataLoader` with workers asks for batches ahead, so count the batches that the training loop has had, with
    `position_after(n)`, to know where it stands.
    """

    def __init__(
        self,
        plan: Plan | str | PathLike[str],
        batch: int,
        *,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        stop: int | None = None,
    ):
        _check_rank(batch, rank, world)
        self.plan = _opened(plan)
        self.rank, self.world, self.start = rank, world, start
        self._batches = _Batches(self.plan, batch, start, stop)

    def __len__(self) -> int:
        return self._batches.count(self.start)

    def __iter__(self) -> Iterator[list[int]]:
        t = self.start
        while t < self._batches.stop:
            end = self._batches.end(t)
            n = end - t
            yield list(range(t + n * self.rank // self.world, t + n * (self.rank + 1) // self.world))
            t = end

    def position_after(self, n: int) -> int:
        """The samples that all ranks have seen after `n` batches from `start` on."""
        t = self.start
        for _ in range(n):
            t = self._batches.end(t)
        return t

    def state_dict(self, n: int = 0) -> dict[str, Any]:
        """The state of a run that has had `n` batches."""
        return {"version": _STATE_VERSION, "plan": self.plan.id, "t": self.position_after(n)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues after the batches of `state`, which a `PlanStream` may have written, but not one in several worker processes."""
        workers = int(state.get("workers", 1))
        if workers != 1:
            raise FormatError(f'the state is that of one of {workers} worker processes; save stream.state_dict(batch["next_t"]) instead')
        self.start = _check_state(state, self.plan)


class PlanStream:
    """Batches in the order of the plan, from the current position to the end.

    A batch is a dictionary of arrays of shape (rows, seq_len): `tokens` and `targets` (int64; -100 where there is nothing to
    predict), `segments` and `positions` (int32), `loss_mask` (bool), and of shape (rows): `t`, the numbers of the samples. `next_t` is
    the number of samples that all ranks have seen with it.

    `state_dict()` stands after the batch that the loop was given last. Reading lets other threads run. In a worker process of a
    PyTorch `DataLoader` (`batch_size=None`) worker `i` of `n` reads every `n`-th batch, so the loader gives them in order. The state is then
    known to torchdata's `StatefulDataLoader`, or is `stream.state_dict(batch["next_t"])`.
    """

    def __init__(
        self,
        plan: Plan | str | PathLike[str],
        batch: int,
        *,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        stop: int | None = None,
    ):
        _check_rank(batch, rank, world)
        self.plan = _opened(plan)
        self.rank, self.world = rank, world
        self._batches = _Batches(self.plan, batch, start, stop)
        self._t = start
        # Which batch from `_t` on is next: other workers may have those before it.
        self._skip = 0
        self._workers = 1

    @property
    def t(self) -> int:
        """Samples that all ranks have seen, in total."""
        return self._t

    def __len__(self) -> int:
        return self._batches.count(self._t)

    def _worker(self) -> tuple[int, int]:
        """Number of this worker process and how many there are."""
        return 0, 1

    def _tensors(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = self._worker()
        if workers != self._workers:
            if self._workers != 1:
                raise ValueError(f"the state is one of {self._workers} workers, here are {workers}: use as many, or state_dict(batch['next_t'])")
            self._skip, self._workers = worker, workers
        while self._t < self._batches.stop:
            start, end = self._t, self._batches.end(self._t)
            if self._skip > 0:
                self._t, self._skip = end, self._skip - 1
                continue
            arrays: dict[str, Any] = self.plan.batch(start, end, self.rank, self.world, ignore_index=IGNORE_INDEX)
            arrays["tokens"] = arrays["tokens"].astype(np.int64)
            arrays["targets"] = arrays["targets"].astype(np.int64)
            arrays["next_t"] = end
            self._t, self._skip = end, workers - 1
            yield self._tensors(arrays)

    def state_dict(self, next_t: int | None = None) -> dict[str, Any]:
        """The state of the stream, now or after the batch with this `next_t`."""
        if next_t is not None:
            return {"version": _STATE_VERSION, "plan": self.plan.id, "t": next_t, "skip": 0, "workers": 1}
        return {"version": _STATE_VERSION, "plan": self.plan.id, "t": self._t, "skip": self._skip, "workers": self._workers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from there. Batch size and number of ranks may differ from those of the run that saved it."""
        self._t = _check_state(state, self.plan)
        self._skip, self._workers = int(state.get("skip", 0)), int(state.get("workers", 1))
