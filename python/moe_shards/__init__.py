"""Shards and training plans of moe-data.

    from moe_shards import Plan, Shard

    plan = Plan.open("out")              # the folder of `moe-data build` and `moe-data mix`
    sample = plan.sample(17)             # tokens, targets, loss_mask, segments, positions, pieces
    plan.explain(17)                     # which documents it is made of
    for info in plan.shards:
        for document in Shard.open(info.path).documents():
            document.id, document.tokens

Sample `t` is a function of the plan and `t`, so all that a training run has to remember of its data is one integer.
`PlanDataset`, `PlanBatches` and `PlanStream` give NumPy arrays; those of `moe_shards.torch` give tensors.
What goes wrong is a `moe_shards.Error` with the message of the command line programs.
"""

from ._native import Document, Piece, Plan, Sample, Shard, ShardInfo
from .errors import Error, FormatError, InternalError, MissingError, OutOfRangeError, SystemRefusal
from .loader import IGNORE_INDEX, PlanBatches, PlanDataset, PlanStream

__all__ = [
    "IGNORE_INDEX", "Document", "Error", "FormatError", "InternalError", "MissingError", "OutOfRangeError", "Piece", "Plan",
    "PlanBatches", "PlanDataset", "PlanStream", "Sample", "Shard", "ShardInfo", "SystemRefusal",
]
