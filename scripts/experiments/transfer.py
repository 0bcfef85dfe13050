#!/usr/bin/env python3
"""Where the best learning rate lies over widths and experts, under each parametrization.

    moe-data build && moe-data mix --epochs 4
    cargo build --release --package moe-train
    python3 scripts/experiments/transfer.py --work runs/transfer

A model of one expert is dense; the others have as wide a feed-forward in the experts that a token visits together. The base is
the dense model of the first width. Prints a table, and writes transfer.svg with the curves and table.md next to the receipts.
The whole grid (3 parametrizations, 3 widths, 3 numbers of experts, 7 rates, 3 seeds) is 567 runs."""

import argparse
import math

from grid import Grid, arguments, mean

HEAD = 16
COLORS = ["#1b6ca8", "#d1495b", "#2e933c", "#8d5a97", "#e08e1d", "#3c6e71", "#7a5c3e", "#444444", "#b0a100"]


def settings(kind, width, experts, rate, seed, base, layers):
    """One run."""
    heads = width // HEAD
    hidden = 4 * width
    found = {
        "run.seed": seed,
        "run.log_every": 100,
        "run.eval_every": 1000000,
        "run.save_every": 1000000,
        "run.keep": 1,
        "model.d_model": width,
        "model.layers": layers,
        "model.dense_ffn": hidden,
        "model.tie_embeddings": "false",
        "model.parametrization": kind,
        "attention.heads": heads,
        "attention.kv_heads": heads,
        "optim.lr": rate,
        "schedule.kind": "cosine",
    }
    if kind != "standard":
        found |= {"model.base.d_model": base, "model.base.head_dim": HEAD}
    if kind == "complete":
        found |= {"model.base.layers": layers, "model.base.ffn": 4 * base}
    if experts == 1:
        return found | {"model.dense_layers": layers}
    visited = min(4, experts // 2)
    return found | {
        "model.dense_layers": 0,
        "moe.experts": experts,
        "moe.top_k": visited,
        "moe.shared": 0,
        "moe.expert_ffn": hidden // visited,
        "moe.balance.bias_rate": 0.01,
    }


def best(rates, losses):
    """The rate at the lowest point of the parabola through the lowest loss and its neighbors, by the logarithm of the rate."""
    known = [index for index, loss in enumerate(losses) if loss is not None]
    if not known:
        return None
    lowest = min(known, key=lambda index: losses[index])
    if not {lowest - 1, lowest + 1} <= set(known):
        return rates[lowest]
    left, middle, right = losses[lowest - 1 : lowest + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    step = math.log2(rates[lowest + 1] / rates[lowest])
    return rates[lowest] * 2 ** (shift * step)


def draw(path, curves, rates):
    """The curves of each parametrization side by side."""
    size, gap = 300, 50
    losses = [loss for of_kind in curves.values() for curve in of_kind.values() for loss in curve if loss is not None]
    low, high = min(losses), min(max(losses), min(losses) + 1.5)
    across = lambda rate: size * math.log2(rate / rates[0]) / max(math.log2(rates[-1] / rates[0]), 1e-9)
    down = lambda loss: size * (high - min(loss, high)) / max(high - low, 1e-9)
    parts = []
    for number, (kind, of_kind) in enumerate(curves.items()):
        x = gap + number * (size + gap)
        parts.append(f'<text x="{x}" y="30">{kind}</text><rect x="{x}" y="{gap}" width="{size}" height="{size}" fill="none" stroke="#999"/>')
        for index, (name, curve) in enumerate(of_kind.items()):
            color = COLORS[index % len(COLORS)]
            points = [f"{x + across(r):.1f},{gap + down(l):.1f}" for r, l in zip(rates, curve) if l is not None]
            parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>')
            if number == 0:
                parts.append(f'<text x="{gap + index % 3 * 200}" y="{size + gap + 45 + index // 3 * 16}" fill="{color}">{name}</text>')
        for rate in (rates[0], rates[-1]):
            parts.append(f'<text x="{x + across(rate) - 15:.0f}" y="{size + gap + 18}">{rate:.1e}</text>')
    for loss in (low, high):
        parts.append(f'<text x="5" y="{gap + down(loss) + 4:.0f}">{loss:.2f}</text>')
    width, height = gap + len(curves) * (size + gap), size + gap + 100
    text = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    path.write_text(text + "".join(parts) + "</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--parametrizations", nargs="+", default=["standard", "mup", "complete"])
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--experts", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rates", nargs="+", type=float, default=[2.0**-n for n in range(11, 4, -1)], help="each twice the one before")
    parser.add_argument("--layers", type=int, default=3)
    args = parser.parse_args()
    grid, base, rates = Grid(args), args.widths[0], sorted(args.rates)
    lines = ["| parametrization | width | experts | best rate | over that of the base | loss there | deviation |", "| --- | --- | --- | --- | --- | --- | --- |"]
    curves = {}
    for kind in args.parametrizations:
        first = None
        for width in args.widths:
            for experts in args.experts:
                curve, spread = [], {}
                for rate in rates:
                    losses = []
                    for seed in range(1, args.seeds + 1):
                        name = f"{kind}-{width}-{experts}-{rate:.3e}-{seed}"
                        losses.append(grid.run(name, settings(kind, width, experts, rate, seed, base, args.layers))["validation_ce"])
                    whole = None not in losses
                    curve.append(mean(losses)[0] if whole else None)
                    spread[rate] = mean(losses)[1] if whole else 0.0
                curves.setdefault(kind, {})[f"width {width}, {experts} experts"] = curve
                rate = best(rates, curve)
                if rate is None:
                    lines.append(f"| {kind} | {width} | {experts} | all diverged | | | |")
                    continue
                first = first or rate
                loss, at = min((loss, rate) for loss, rate in zip(curve, rates) if loss is not None)
                edge = " (at the edge)" if at in (rates[0], rates[-1]) else ""
                lines.append(f"| {kind} | {width} | {experts} | {rate:.2e}{edge} | {rate / first:.2f} | {loss:.4f} | {spread[at]:.4f} |")
    grid.tell("\n".join(lines))
    draw(grid.work / "transfer.svg", curves, rates)


if __name__ == "__main__":
    main()
