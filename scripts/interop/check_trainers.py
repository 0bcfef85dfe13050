"""The adapters of the Python package against the packages that they adapt to, on the CPU. Each check is skipped, and says so, where its
package is not installed.

Usage: check_trainers.py OUT PHASED    (plans of one and of two lengths of sequences)
"""

import importlib
import importlib.metadata
import logging
import sys
import tempfile
import time
import types
import warnings
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.data import DataLoader

from moe_shards import Plan
from moe_shards.torch import IGNORE_INDEX, PlanBatches, PlanDataset, PlanStream

warnings.simplefilter("ignore")
torch.manual_seed(1)


def pytorch(out, phased):
    plan = Plan.open(out)
    expected = torch.from_numpy(plan.batch(0, 320, ignore_index=IGNORE_INDEX)["targets"])
    by_sampler = DataLoader(PlanDataset(plan), batch_sampler=PlanBatches(plan, 32, stop=320), num_workers=2)
    assert torch.equal(torch.cat([batch["targets"] for batch in by_sampler]), expected.long())
    for workers in [0, 1, 3]:
        loader = DataLoader(PlanStream(plan, 32, stop=320), batch_size=None, num_workers=workers)
        assert torch.equal(torch.cat([batch["targets"] for batch in loader]), expected.long()), workers
    # Started by spawning, a worker opens the plan itself.
    loader = DataLoader(PlanStream(plan, 32, stop=96), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert torch.cat([batch["t"] for batch in loader]).tolist() == list(range(96))
    # A state that the main process knows, and one with workers ahead of the loop.
    stream = PlanStream(plan, 32, stop=320)
    first = [batch["t"] for batch, _ in zip(stream, range(4))]
    state = stream.state_dict(int(first[2][-1]) + 1)
    again = PlanStream(plan, 32, stop=320)
    again.load_state_dict(state)
    rest = DataLoader(again, batch_size=None, num_workers=3)
    assert torch.cat([*first[:3], *[batch["t"] for batch in rest]]).tolist() == list(range(320))
    for workers in [0, 2]:
        loader = DataLoader(PlanStream(phased, 64), batch_size=None, num_workers=workers)
        batches = [(batch["t"], batch["tokens"].shape[1]) for batch in loader]
        assert torch.cat([t for t, _ in batches]).tolist() == list(range(len(Plan.open(phased))))
        assert sorted({length for _, length in batches}) == [256, 512]
    return "order and resumption with 0 to 3 workers, forked and spawned, and phase lengths"


def torchdata(out, phased):
    from torchdata.stateful_dataloader import StatefulDataLoader

    for workers in [0, 2, 3]:
        for taken in [1, 4, 6]:
            def loader():
                return StatefulDataLoader(PlanStream(out, 32, stop=320), batch_size=None, num_workers=workers)
            before = loader()
            steps = iter(before)
            seen = [next(steps)["t"] for _ in range(taken)]
            state = before.state_dict()
            after = loader()
            after.load_state_dict(state)
            seen += [batch["t"] for batch in after]
            assert torch.cat(seen).tolist() == list(range(320)), (workers, taken)
    return "StatefulDataLoader resumes with 0, 2 and 3 workers"


def torchtitan(out, phased):
    import torch.distributed.checkpoint as dcp
    from torchtitan.components.dataloader import DataloaderExhaustedError
    from torchtitan.trainer import Trainer

    from moe_shards.torchtitan import PlanDataLoader

    plan = Plan.open(out)
    def build(rank, world, batch=8):
        config = PlanDataLoader.Config(dataset_path=out)
        return config.build(dp_world_size=world, dp_rank=rank, tokenizer=None, seq_len=plan.seq_len, local_batch_size=batch, snapshot_every_n_steps=1)

    # As its trainer reads, with its own generator of batches.
    metrics = SimpleNamespace(ntokens_since_last_log=0, data_loading_times=[])
    loaders = [build(rank, 2) for rank in range(2)]
    ranks = [Trainer.batch_generator(SimpleNamespace(metrics_processor=metrics), loader) for loader in loaders]
    for step in range(3):
        inputs, labels = zip(*[next(rank) for rank in ranks])
        expected = plan.batch(16 * step, 16 * step + 16, ignore_index=IGNORE_INDEX)
        assert np.array_equal(torch.cat([part["input"] for part in inputs]), expected["tokens"])
        assert np.array_equal(torch.cat([part["positions"] for part in inputs]), expected["positions"])
        assert np.array_equal(torch.cat(labels), expected["targets"])
    # Its checkpoints, resumed on another number of ranks.
    with tempfile.TemporaryDirectory() as folder:
        dcp.save({"dataloader": loaders[0]}, checkpoint_id=folder)
        resumed = build(3, 4)
        dcp.load({"dataloader": resumed}, checkpoint_id=folder)
    inputs, labels = next(iter(resumed))
    assert np.array_equal(inputs["input"], plan.batch(48, 80, 3, 4)["tokens"])
    loaders[0].load_state_dict({**loaders[0].state_dict(), "t": len(plan) - 3})
    end = Trainer.batch_generator(SimpleNamespace(metrics_processor=metrics), loaders[0])
    next(end)
    try:
        next(end)
    except DataloaderExhaustedError:
        return "two ranks as its trainer reads them, its checkpoint resumed on four, the end of the plan"
    raise SystemExit("torchtitan: nothing told the trainer that the plan ended")


def megatron(out, phased):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig, MockGPTDataset

    from moe_shards.megatron import PlanDataset as MegatronPlan

    plan = Plan.open(out)
    tokenizer = SimpleNamespace(vocab_size=plan.vocab_size, eod=plan.eod, pad=-1, unique_identifiers={"class": "ours"})
    common = dict(random_seed=1, sequence_length=plan.seq_len, tokenizer=tokenizer, reset_position_ids=True, reset_attention_mask=True, eod_mask_loss=True)
    config = GPTDatasetConfig(blend_per_split=[([out], None), ([out], None), None], **common)
    train, valid, test = BlendedMegatronDatasetBuilder(MegatronPlan, [300, plan.validation_len, 0], lambda: True, config).build()
    assert (len(train), len(valid), test) == (300, plan.validation_len, None)
    mock = BlendedMegatronDatasetBuilder(MockGPTDataset, [10, 0, 0], lambda: True, GPTDatasetConfig(split="1,0,0", **common)).build()[0]
    for t in [0, 7, 299]:
        row, sample, theirs = train[t], plan.sample(t), mock[0]
        assert {name: (value.shape, value.dtype) for name, value in row.items() if name != "dataset_id"} == {
            name: (value.shape, value.dtype) for name, value in theirs.items()
        }
        assert np.array_equal(row["tokens"], sample.tokens) and np.array_equal(row["labels"], sample.targets)
        assert np.array_equal(row["loss_mask"], sample.loss_mask) and row["dataset_id"] == sample.pool
        assert np.array_equal(row["position_ids"], sample.positions)
        # A token sees itself and what stands before it in its document.
        assert np.array_equal((~row["attention_mask"][0]).sum(1).numpy()[sample.segments >= 0], sample.positions[sample.segments >= 0] + 1)
    assert np.array_equal(valid[1]["tokens"], plan.validation_sample(1).tokens)
    assert train[None]["loss_mask"].sum() == 0
    try:
        BlendedMegatronDatasetBuilder(MegatronPlan, [len(plan) + 1, 0, 0], lambda: True, config).build()
    except ValueError as error:
        assert "moe-data mix --epochs" in str(error)
        return "its builder gives the plan, with the shapes and types of its own data set"
    raise SystemExit("megatron: more samples than the plan has")


def transformers(out, phased):
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    from moe_shards.huggingface import TrainerDataset

    plan = Plan.open(out)
    def model():
        torch.manual_seed(2)
        return LlamaForCausalLM(LlamaConfig(vocab_size=plan.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2))

    class Recorded(TrainerDataset):
        seen = []

        def __getitem__(self, t):
            self.seen.append(t)
            return super().__getitem__(t)

    def train(folder, steps, resume):
        args = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=4, gradient_accumulation_steps=2, save_steps=4, learning_rate=1e-3,
            lr_scheduler_type="constant", train_sampling_strategy="sequential", remove_unused_columns=False, report_to=[], use_cpu=True,
            disable_tqdm=True, logging_strategy="no",
        )
        Recorded.seen = []
        trainer = Trainer(model(), args, train_dataset=Recorded(out))
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict(), list(Recorded.seen)

    with tempfile.TemporaryDirectory() as folder:
        whole, seen = train(f"{folder}/whole", 8, None)
        assert seen[:64] == list(range(64))
        train(f"{folder}/killed", 4, None)
        resumed, seen = train(f"{folder}/killed", 8, True)
        # A loader may read again what it skips, and ahead.
        assert seen == list(range(seen[0], seen[0] + len(seen))), seen
        assert seen[0] <= 32 and seen[-1] >= 63, seen
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), "the resumed run has other parameters"
    # The loss is that of our targets, and a document does not see the one before it.
    net = model().eval()
    t = next(t for t in range(200) if len(plan.sample(t).pieces) > 1)
    row = {name: value[None] for name, value in TrainerDataset(out)[t].items()}
    with torch.no_grad():
        # As `Trainer` sets it: with a cache, models take a sequence for one document.
        said = net(**row, use_cache=False)
        loss = torch.nn.functional.cross_entropy(said.logits[0], row["shift_labels"][0])
        assert torch.allclose(said.loss, loss, atol=1e-5), (said.loss, loss)
        piece = plan.sample(t).pieces[1]
        part = slice(piece.start, piece.start + piece.len)
        alone = net(use_cache=False, input_ids=row["input_ids"][:, part], position_ids=row["position_ids"][:, part]).logits[0]
        assert torch.allclose(said.logits[0, part], alone, atol=1e-4), "a document sees the one before it"
    return "Trainer reads the plan in order and resumes with the same parameters; loss and attention are those of the plan"


def nanotron(out, phased):
    # Its modules import each other in a circle through `nanotron.logging`; a stand-in with the names that they ask it for breaks it.
    import nanotron

    stand_in = types.ModuleType("nanotron.logging")
    stand_in.__dict__.update({name: value for name, value in vars(logging).items() if name.isupper()}, get_logger=logging.getLogger)
    for name in ["LoggerWriter", "LoggingArgs", "human_format", "log_rank", "set_ranks_logging_level", "warn_once"]:
        setattr(stand_in, name, object)
    sys.modules["nanotron.logging"] = nanotron.logging = stand_in
    from nanotron.dataloader import DataCollatorForCLM

    from moe_shards.nanotron import micro_batches

    plan = Plan.open(out)
    ours = list(zip(*[micro_batches(out, 4, dp_rank=rank, dp_size=2, consumed_train_samples=len(plan) - 64) for rank in range(2)], strict=True))
    assert np.array_equal(torch.cat([part["input_ids"] for step in ours for part in step]), plan.batch(len(plan) - 64, len(plan))["tokens"])
    import nanotron.dataloader as module

    module.dist = SimpleNamespace(get_rank=lambda group: 0)
    collate = DataCollatorForCLM(plan.seq_len, 0, 0, SimpleNamespace(pp_pg=None))
    theirs = collate([{"input_ids": np.zeros(plan.seq_len + 1, dtype=np.int64)}] * 4)
    kinds = [{name: (value.shape, value.dtype) for name, value in batch.items()} for batch in (ours[0][0], theirs)]
    assert kinds[0] == kinds[1], kinds
    return "micro-batches with the names, shapes and types of its collator"


def main(out, phased):
    checks = [("torch", pytorch), ("torchdata", torchdata), ("torchtitan", torchtitan), ("megatron-core", megatron),
              ("transformers", transformers), ("nanotron", nanotron)]
    n_checked = 0
    for package, check in checks:
        start = time.perf_counter()
        try:
            version = importlib.metadata.version(package)
            importlib.import_module(package.replace("-", "."))
        except ImportError as error:
            print(f"{package}: skipped: {error}")
            continue
        print(f"{package} {version}: {check(out, phased)}, {time.perf_counter() - start:.1f} s", flush=True)
        n_checked += 1
    if n_checked == 0:
        raise SystemExit("none of the packages is installed: nothing was checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
