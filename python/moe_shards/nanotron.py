"""A plan as batches for nanotron's trainer.

    batches = micro_batches("out", micro_batch_size, dp_rank=rank, dp_size=size, consumed_train_samples=t)
    trainer.train(batches)

nanotron's own loader shuffles; this one returns the plan in order, with the mask of what is to be predicted. It is for
ranks that read both input and labels (no pipeline).
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

from ._native import Plan
from .torch import PlanStream


def micro_batches(
    plan: Plan | str | PathLike[str], micro_batch_size: int, *, dp_rank: int = 0, dp_size: int = 1, consumed_train_samples: int = 0
) -> Iterator[dict[str, Any]]:
    """Micro-batches of the data-parallel rank, after the samples that all ranks have consumed."""
    for batch in PlanStream(plan, micro_batch_size * dp_size, rank=dp_rank, world=dp_size, start=consumed_train_samples):
        yield {
            "input_ids": batch["tokens"],
            # True where a token is not padding.
            "input_mask": batch["segments"] >= 0,
            "label_ids": batch["targets"].clamp(min=0),
            "label_mask": batch["loss_mask"],
        }
