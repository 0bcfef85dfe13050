"""The geometry of a preset in PyTorch: tokens/s of training steps, for comparison with `moe-train bench`.

  python3 scripts/gpu/torch_moe.py --preset mini-1b --steps 10 [--compile] [--cpu] [--threads N]

Same shapes, same optimizer (AdamW, f32 master weights, bf16 products by autocast), same global clipping, dropless
routing with sorted rows, shared experts, causal attention by SDPA, sigmoid or softmax scores, balance by a bias. Experts
multiply by torch._grouped_mm where the installed version has it for the device, else in a loop over experts. Prints one JSON object.
"""

import argparse
import json
import pathlib
import resource
import time
import tomllib

import torch
import torch.nn.functional as F
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--preset", default="mini-1b")
parser.add_argument("--config", help="a configuration of its own instead of a preset")
parser.add_argument("--seq-len", type=int, default=2048)
parser.add_argument("--vocab", type=int, default=32768)
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--batch", type=int)
parser.add_argument("--micro-batch", type=int)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--cpu", action="store_true", help="f32 on the CPU")
parser.add_argument("--threads", type=int, help="threads of the CPU; all if not given")
args = parser.parse_args()

folder = pathlib.Path(__file__).resolve().parents[2] / "configs" / "train"
config = tomllib.loads(pathlib.Path(args.config or folder / f"{args.preset}.toml").read_text())
if args.threads:
    torch.set_num_threads(args.threads)
# Keys that a dense preset leaves out are never used.
model_config, moe = config["model"], {"experts": 8, "top_k": 2, "expert_ffn": 128} | config.get("moe", {})
router = {"score": "sigmoid", "norm_weights": True, "route_scale": 1.0} | moe.get("router", {})
D, LAYERS, DENSE = model_config["d_model"], model_config["layers"], model_config.get("dense_layers", 1)
HEADS, KV = config["attention"]["heads"], config["attention"]["kv_heads"]
HEAD = D // HEADS
E, K, SHARED, FFN = moe["experts"], moe["top_k"], moe.get("shared", 1), moe["expert_ffn"]
BATCH = args.batch or config["data"]["batch"]
MICRO = args.micro_batch or config["data"].get("micro_batch", BATCH)
device = torch.device("cpu" if args.cpu else "cuda")
compute = torch.float32 if args.cpu else torch.bfloat16
# On the CPU f32 has one too, in newer versions.
grouped = getattr(F, "grouped_mm", None) or (getattr(torch, "_grouped_mm", None) if compute == torch.bfloat16 else None)


def normal(*shape, scale=1.0):
    return nn.Parameter(torch.randn(*shape, device=device) * 0.02 * scale)


class SwiGlu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate, self.up, self.down = normal(width, hidden), normal(width, hidden), normal(hidden, width)

    def forward(self, x):
        return (F.silu(x @ self.gate.to(x.dtype)) * (x @ self.up.to(x.dtype))) @ self.down.to(x.dtype)


class Moe(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = normal(D, E)
        self.register_buffer("bias", torch.zeros(E, device=device))
        self.gate, self.up, self.down = normal(E, D, FFN), normal(E, D, FFN), normal(E, FFN, D)
        self.shared = SwiGlu(D, SHARED * FFN) if SHARED else None
        self.load = None

    def product(self, rows, weights, ends):
        weights = weights.to(rows.dtype)
        if grouped is not None:
            return grouped(rows, weights, offs=ends)
        starts = [0, *ends.tolist()]
        return torch.cat([rows[a:b] @ weights[e] for e, (a, b) in enumerate(zip(starts, starts[1:]))])

    def forward(self, x):
        logits = x.float() @ self.router
        scores = logits.sigmoid() if router["score"] == "sigmoid" else logits.softmax(-1)
        chosen = (scores.detach() + self.bias).topk(K, dim=-1).indices
        weights = scores.gather(1, chosen)
        if router["norm_weights"]:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = weights * router["route_scale"]
        order = chosen.flatten().argsort(stable=True)
        self.load = F.one_hot(chosen.flatten(), E).sum(0)
        ends = self.load.cumsum(0).to(torch.int32)
        rows = x[order // K]
        inner = F.silu(self.product(rows, self.gate, ends)) * self.product(rows, self.up, ends)
        rows = self.product(inner, self.down, ends) * weights.flatten()[order, None].to(x.dtype)
        y = torch.zeros_like(x).index_add(0, order // K, rows)
        return y + self.shared(x) if self.shared is not None else y


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.norm1, self.norm2 = nn.Parameter(torch.ones(D, device=device)), nn.Parameter(torch.ones(D, device=device))
        self.qkv, self.out = normal(D, (HEADS + 2 * KV) * HEAD), normal(HEADS * HEAD, D)
        self.ffn = SwiGlu(D, model_config["dense_ffn"]) if layer < DENSE else Moe()

    def forward(self, x, cos, sin, samples):
        h = norm(x, self.norm1) @ self.qkv.to(x.dtype)
        h = h.view(samples, -1, HEADS + 2 * KV, HEAD).transpose(1, 2)
        q, k, v = h.split([HEADS, KV, KV], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=KV != HEADS)
        x = x + y.transpose(1, 2).reshape(x.shape[0], HEADS * HEAD) @ self.out.to(x.dtype)
        return x + self.ffn(norm(x, self.norm2))


def norm(x, weight):
    return F.rms_norm(x.float(), (D,), weight, 1e-5).to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = normal(args.vocab, D)
        self.blocks = nn.ModuleList(Block(layer) for layer in range(LAYERS))
        self.norm = nn.Parameter(torch.ones(D, device=device))
        self.head = None if model_config.get("tie_embeddings", True) else normal(D, args.vocab)
        angles = torch.arange(args.seq_len, device=device)[:, None] * 10_000.0 ** (
            -torch.arange(0, HEAD, 2, device=device) / HEAD
        )
        self.cos, self.sin = angles.cos().to(compute), angles.sin().to(compute)

    def forward(self, tokens, targets):
        x = F.embedding(tokens.flatten(), self.embedding).to(compute)
        for block in self.blocks:
            x = block(x, self.cos, self.sin, tokens.shape[0])
        head = self.embedding.t() if self.head is None else self.head
        x = norm(x, self.norm)
        total = x.new_zeros((), dtype=torch.float32)
        for rows, wanted in zip(x.split(4096), targets.flatten().split(4096)):
            total = total + F.cross_entropy((rows @ head.to(compute)).float(), wanted, reduction="sum")
        return total


torch.manual_seed(1)
torch.set_float32_matmul_precision("high")
model = Model()
decayed = [p for p in model.parameters() if p.dim() > 1 and p is not model.embedding]
others = [p for p in model.parameters() if p.dim() == 1 or p is model.embedding]
optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
    lr=1e-5, betas=(0.9, 0.95), fused=True,
)
run = torch.compile(model) if args.compile else model
wait = (lambda: None) if args.cpu else torch.cuda.synchronize


def step():
    tokens = torch.randint(args.vocab, (BATCH, args.seq_len + 1), device=device)
    loss = 0.0
    for batch in tokens.split(MICRO):
        part = run(batch[:, :-1], batch[:, 1:]) / (BATCH * args.seq_len)
        part.backward()
        loss = loss + part.detach()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for block in model.blocks:
        if isinstance(block.ffn, Moe):
            sign = (block.ffn.load.float().mean() - block.ffn.load).sign()
            block.ffn.bias += 1e-3 * (sign - sign.mean())
    return loss.item()


for _ in range(3):
    step()
wait()
start, cpu = time.perf_counter(), time.process_time()
for _ in range(args.steps):
    loss = step()
wait()
seconds, cpu = (time.perf_counter() - start) / args.steps, (time.process_time() - cpu) / args.steps
print(json.dumps({
    "torch": torch.__version__,
    "device": "cpu" if args.cpu else torch.cuda.get_device_name(),
    "preset": args.preset,
    "compiled": args.compile,
    "grouped_mm": grouped is not None,
    "batch": BATCH,
    "micro_batch": MICRO,
    "seq_len": args.seq_len,
    "vocab": args.vocab,
    "parameters": sum(p.numel() for p in model.parameters()),
    "step_ms": 1e3 * seconds,
    "cpu_ms": 1e3 * cpu,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    "tokens_per_second": BATCH * args.seq_len / seconds,
    "loss": loss,
    "max_memory_gib": None if args.cpu else torch.cuda.max_memory_allocated() / 2**30,
}))
