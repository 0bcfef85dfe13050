"""The dense model of the preset `char`, written for PyTorch, trained on a plan of moe-data; used by parity.py. Prints the validation loss as JSON.

    parity_torch.py PLAN CONFIG --seed N

PLAN is the output folder of moe-data mix, CONFIG the config.lock.toml of the run to compare with. The initial values are PyTorch's own random numbers."""
import argparse, json, math, tomllib

import numpy as np
import torch
import torch.nn.functional as F
from moe_shards import Plan
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("plan")
parser.add_argument("config")
parser.add_argument("--seed", type=int, required=True)
args = parser.parse_args()
with open(args.config, "rb") as file:
    config = tomllib.load(file)
model_config, optim, schedule = config["model"], config["optim"], config["schedule"]
WIDTH, LAYERS, FFN, EPS = (model_config[key] for key in ("d_model", "layers", "dense_ffn", "norm_eps"))
HEADS = config["attention"]["heads"]
STEPS, BATCH, N_VALIDATION = config["run"]["steps"], config["data"]["batch"], config["data"]["validation_samples"]
assert model_config["dense_layers"] == LAYERS and model_config["tie_embeddings"] and config["attention"]["kv_heads"] == HEADS
assert optim["kind"] == "adamw" and schedule["kind"] == "cosine"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(WIDTH, EPS), nn.RMSNorm(WIDTH, EPS)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, FFN, bias=False), nn.Linear(WIDTH, FFN, bias=False)
        self.down = nn.Linear(FFN, WIDTH, bias=False)

    def forward(self, x, mask, rotation):
        samples, length, _ = x.shape
        query, key, value = self.qkv(self.attention_norm(x)).view(samples, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotated(query, *rotation), rotated(key, *rotation), value, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(samples, length, WIDTH))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def rotated(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Model(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(vocab, WIDTH), nn.RMSNorm(WIDTH, EPS)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        std = model_config["init_std"]
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                is_back = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=std / math.sqrt(2 * LAYERS) if is_back else std)

    def forward(self, tokens, segments):
        length, half = tokens.shape[1], WIDTH // HEADS // 2
        angles = torch.arange(length)[:, None] * config["attention"]["rope_theta"] ** (-torch.arange(half) / half)
        # A token sees those before it in its own document.
        mask = torch.ones(length, length).tril().bool() & (segments[:, :, None] == segments[:, None, :])
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, mask[:, None], (angles.cos(), angles.sin()))
        return self.norm(x) @ self.embedding.weight.T


def loss_of(model, samples, reduction):
    tokens, targets, segments = (
        torch.from_numpy(np.stack([np.asarray(getattr(sample, name)) for sample in samples]).astype(np.int64)) for name in ("tokens", "targets", "segments")
    )
    return F.cross_entropy(model(tokens, segments).flatten(0, 1), targets.flatten(), ignore_index=-100, reduction=reduction), (targets != -100).sum().item()


def rate(step):
    """Of step 1, 2, ...: linear to the end of the warm-up, then a cosine to the floor at the last step."""
    warmup = round(schedule["warmup"] * STEPS)
    if step <= warmup:
        return optim["lr"] * step / warmup
    part = (step - warmup) / (STEPS - warmup)
    return optim["lr"] * (schedule["floor"] + (1 - schedule["floor"]) * 0.5 * (1 + math.cos(math.pi * part)))


torch.manual_seed(args.seed)
plan = Plan.open(args.plan)
model = Model(plan.vocab_size)
matrices = [parameter for name, parameter in model.named_parameters() if parameter.dim() == 2 and "embedding" not in name]
others = [parameter for name, parameter in model.named_parameters() if parameter.dim() == 1 or "embedding" in name]
groups = [{"params": matrices, "weight_decay": optim["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=optim["lr"], betas=(optim["beta1"], optim["beta2"]), eps=optim["eps"])
for step in range(1, STEPS + 1):
    for group in optimizer.param_groups:
        group["lr"] = rate(step)
    loss, _ = loss_of(model, [plan.sample(t) for t in range((step - 1) * BATCH, step * BATCH)], "mean")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), optim["clip"])
    optimizer.step()
with torch.no_grad():
    parts = [loss_of(model, [plan.validation_sample(i)], "sum") for i in range(min(N_VALIDATION, plan.validation_len))]
total, counted = sum(part.item() for part, _ in parts), sum(n for _, n in parts)
print(json.dumps({"validation_ce": total / counted, "tokens": counted, "parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__}))
