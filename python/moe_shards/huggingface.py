"""A plan for the `Trainer` of Hugging Face transformers.

    args = TrainingArguments(..., train_sampling_strategy="sequential", remove_unused_columns=False)
    Trainer(model, args, train_dataset=TrainerDataset("out")).train(resume_from_checkpoint=True)

`Trainer` resumes by skipping the batches that it has already seen, which is exact with a plan. With `world` processes each step
reads `per_device_train_batch_size * world * gradient_accumulation_steps` of the next samples of the plan.
"""

from __future__ import annotations

from typing import Any

from .torch import PlanDataset


class TrainerDataset(PlanDataset):
    """Samples with the names that transformers models use.

    The targets are given as `shift_labels`, since they are aligned with the tokens; `labels` in addition to them makes models
    compute a loss. Models keep attention inside a document where `position_ids` begin anew.
    """

    def __getitem__(self, t: int) -> dict[str, Any]:
        sample = super().__getitem__(t)
        targets = sample["targets"]
        return {
            "input_ids": sample["tokens"],
            "position_ids": sample["positions"].long(),
            "labels": targets,
            "shift_labels": targets,
        }
