"""A plan in PyTorch: the classes of `moe_shards.loader` with tensors.

    stream = PlanStream("out", batch=32, rank=rank, world=world)
    for batch in stream:
        logits = model(batch["tokens"], batch["positions"], batch["segments"])
        loss = cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
        ...
        save({"data": stream.state_dict(), ...})
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from . import loader
from .loader import IGNORE_INDEX, PlanBatches

__all__ = ["IGNORE_INDEX", "PlanBatches", "PlanDataset", "PlanStream"]


def _tensors(values: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(value) if hasattr(value, "dtype") else value for name, value in values.items()}


class PlanDataset(loader.PlanDataset, Dataset):
    """`moe_shards.PlanDataset` with tensors, for a `DataLoader` with `batch_sampler=PlanBatches(...)`."""

    def __getitem__(self, t: int) -> dict[str, Any]:
        return _tensors(super().__getitem__(t))


class PlanStream(loader.PlanStream, IterableDataset):
    """`moe_shards.PlanStream` with tensors; alone or in a `DataLoader` with `batch_size=None`."""

    def _worker(self) -> tuple[int, int]:
        info = get_worker_info()
        return (0, 1) if info is None else (info.id, info.num_workers)

    def _tensors(self, batch: dict[str, Any]) -> dict[str, Any]:
        return _tensors(batch)
