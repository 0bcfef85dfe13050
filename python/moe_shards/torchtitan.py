"""A plan as the data loader of torchtitan.

    config.dataloader = PlanDataLoader.Config(dataset_path="out")

The trainer passes it the batch size and the data-parallel rank. Its state is the position in the plan, equal on all ranks,
so a checkpoint can be resumed on another number of ranks. Where the plan ends, torchtitan stops with `DataloaderExhaustedError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader

from .torch import PlanStream


class PlanDataLoader(BaseDataLoader):
    """`dataset_path` is the folder of a build with its plan, whose sequences must be `training.seq_len` long."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        dataset: str = "moe-shards"

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        seq_len: int,
        local_batch_size: int,
        **kwargs: Any,
    ):
        if config.dataset_path is None:
            raise ValueError("dataset_path is not given: the folder that `moe-data build` and `moe-data mix` wrote to")
        self._stream = PlanStream(config.dataset_path, local_batch_size * dp_world_size, rank=dp_rank, world=dp_world_size)
        lengths = sorted({length for *_, length in self._stream.plan.phases})
        if lengths != [seq_len]:
            raise ValueError(
                f"training.seq_len is {seq_len}, the sequences of {config.dataset_path} have {lengths} tokens: set it, or mix with --seq-len {seq_len}"
            )

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for batch in self._stream:
            yield {"input": batch["tokens"], "positions": batch["positions"].long()}, batch["targets"]

    def state_dict(self) -> dict[str, Any]:
        return self._stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # torchtitan passes an empty state if a checkpoint has none.
        if state_dict:
            self._stream.load_state_dict(state_dict)
