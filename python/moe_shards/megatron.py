"""A plan as a data set of Megatron-Core.

    config = GPTDatasetConfig(blend_per_split=[(["out"], None), (["out"], None), None], sequence_length=2048, ...)
    train, valid, _ = BlendedMegatronDatasetBuilder(PlanDataset, [n, m, 0], is_built_on_rank, config).build()

The plan is the blend: sample `i` of the training split is sample `i` of the plan, and its `dataset_id` is the number of the pool. The
validation split has the held-out sequences. Megatron's samplers read in order, so `consumed_samples` is the position in the plan;
do not shuffle (`--dataloader-type single`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from megatron.core.datasets.megatron_dataset import MegatronDataset
from megatron.core.datasets.utils import Split

from ._native import Plan, Sample


class PlanDataset(MegatronDataset):
    """Samples with the keys of Megatron's `GPTDataset`, and `dataset_id`. Attention stays inside a document."""

    def __init__(
        self, dataset: Plan, dataset_path: str | None, indices: np.ndarray, num_samples: int | None, index_split: Split, config: Any
    ):
        super().__init__(dataset, dataset_path, indices, num_samples, index_split, config)
        # `split` is ignored: leaving samples out would be another plan.
        n = dataset.validation_len if index_split == Split.valid else len(dataset)
        if num_samples is not None and num_samples > n:
            raise ValueError(
                f"{dataset_path}: {num_samples} samples are asked for the split `{index_split.name}`, the plan has {n}: ask for fewer, "
                "or make a longer plan with `moe-data mix --epochs`"
            )
        self._read = dataset.validation_sample if index_split == Split.valid else dataset.sample
        self._len = n if num_samples is None else num_samples
        if index_split == Split.test:
            raise ValueError(f"{dataset_path}: a plan has no test split: give None for it in blend_per_split")
        lengths = sorted({length for *_, length in dataset.phases})
        if lengths != [config.sequence_length]:
            raise ValueError(f"sequence_length is {config.sequence_length}, the sequences of {dataset_path} have {lengths} tokens")

    @staticmethod
    def numel_low_level_dataset(low_level_dataset: Plan) -> int:
        return len(low_level_dataset)

    @staticmethod
    def build_low_level_dataset(dataset_path: str, config: Any) -> Plan:
        return Plan.open(dataset_path)

    @staticmethod
    def _key_config_attributes() -> list[str]:
        return ["sequence_length"]

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, idx: int | None) -> dict[str, Any]:
        # Megatron asks for None to fill up a batch: any sample without weight.
        sample: Sample = self._read(0 if idx is None else idx)
        mask = torch.from_numpy(sample.loss_mask).float()
        row = {
            "dataset_id": sample.pool,
            "tokens": torch.from_numpy(sample.tokens).long(),
            "labels": torch.from_numpy(sample.targets).long(),
            "loss_mask": torch.zeros_like(mask) if idx is None else mask,
            "position_ids": torch.from_numpy(sample.positions).long(),
        }
        if getattr(self.config, "create_attention_mask", False):
            segments = torch.from_numpy(sample.segments)
            visible = torch.tril(segments[:, None] == segments[None, :])
            # Megatron's masks are true for hidden tokens.
            row["attention_mask"] = ~visible.unsqueeze(0)
        return row
