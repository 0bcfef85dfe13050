#!/usr/bin/env python3
"""Where the best learning rate lies over widths and experts, under each parametrization.

    moe-data build && moe-data mix --epochs 4
    cargo build --release --package moe-train
    python3 scripts/experiments/transfer.py --work runs/transfer

A model of one expert is dense; the others have as wide a feed-forward in the experts that a token visits together. The base is
the dense model of the first width. Rates are searched by factors of two, for each shape and seed until the best one lies between two
worse ones; the best rate is the lowest point of the parabola through these three. Prints a table, and writes it to table.md next to
the runs, and the curves of seed 1 to transfer.svg. All of it (3 parametrizations, 3 widths, 3 numbers of experts, 3 seeds) is about
270 runs, two and a half hours of one core."""

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


def search(loss_at, start):
    """Losses by rate, tried from `start` by factors of two until the lowest has a higher one on either side, and the best rate by the
    logarithm: the lowest point of the parabola through these three. A run that diverged has the highest loss there is."""
    losses = {}
    lowest = start
    while True:
        for rate in (lowest / 2, lowest, lowest * 2):
            if rate not in losses:
                loss = loss_at(rate)
                losses[rate] = math.inf if loss is None else loss
        better = min(losses, key=losses.get)
        if better == lowest:
            break
        lowest = better
    left, middle, right = (losses[rate] for rate in (lowest / 2, lowest, lowest * 2))
    bend = left - 2 * middle + right
    # With a run that diverged on one side there is no parabola.
    shift = 0.5 * (left - right) / bend if math.isfinite(bend) and bend > 0 else 0.0
    return losses, lowest * 2**shift


def draw(path, curves):
    """The curves of each parametrization side by side: losses by rate of seed 1."""
    size, gap = 300, 50
    all_curves = [curve for of_kind in curves.values() for curve in of_kind.values()]
    rates = sorted({rate for curve in all_curves for rate in curve})
    losses = [loss for curve in all_curves for loss in curve.values() if math.isfinite(loss)]
    low, high = min(losses), min(max(losses), min(losses) + 1.5)
    across = lambda rate: size * math.log2(rate / rates[0]) / max(math.log2(rates[-1] / rates[0]), 1e-9)
    down = lambda loss: size * (high - min(loss, high)) / max(high - low, 1e-9)
    parts = []
    for number, (kind, of_kind) in enumerate(curves.items()):
        x = gap + number * (size + gap)
        parts.append(f'<text x="{x}" y="30">{kind}</text><rect x="{x}" y="{gap}" width="{size}" height="{size}" fill="none" stroke="#999"/>')
        for index, (name, curve) in enumerate(of_kind.items()):
            color = COLORS[index % len(COLORS)]
            points = [f"{x + across(r):.1f},{gap + down(l):.1f}" for r, l in sorted(curve.items()) if math.isfinite(l)]
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
    parser.add_argument("--start", type=float, default=2.0**-8, help="the first rate that is tried")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4, help="samples of a step")
    args = parser.parse_args()
    grid, base = Grid(args), args.widths[0]
    lines = ["| parametrization | width | experts | best rate | by seed | over that of the base | lowest loss |", "| --- | ---: | ---: | ---: | --- | ---: | ---: |"]
    curves, spreads = {}, []
    for kind in args.parametrizations:
        first, ratios, start = None, [], args.start
        for width in args.widths:
            for experts in args.experts:
                found, lowest = [], []
                for seed in range(1, args.seeds + 1):
                    def loss_at(rate):
                        chosen = settings(kind, width, experts, rate, seed, base, args.layers) | {"data.batch": args.batch}
                        return grid.run(f"{kind}-{width}-{experts}-{rate:.3e}-{seed}", chosen)["validation_ce"]

                    # Other seeds, and the next shape, begin where the one before ended.
                    losses, rate = search(loss_at, start)
                    start = min(losses, key=losses.get)
                    found.append(rate)
                    lowest.append(losses[start])
                    if seed == 1:
                        curves.setdefault(kind, {})[f"width {width}, {experts} experts"] = losses
                rate = math.exp(mean([math.log(each) for each in found])[0])
                first = first or rate
                ratios.append(rate / first)
                told = ", ".join(f"{each:.2e}" for each in found)
                lines.append(f"| {kind} | {width} | {experts} | {rate:.2e} | {told} | {rate / first:.2f} | {mean(lowest)[0]:.4f} |")
        spreads.append(f"- {kind}: the best rate moves by a factor of {max(ratios) / min(ratios):.2f} in all; {min(ratios):.2f} to {max(ratios):.2f} times that of the base.")
    grid.tell("\n".join([*spreads, "", *lines]))
    draw(args.page.with_suffix(".svg") if args.page else grid.work / "transfer.svg", curves)


if __name__ == "__main__":
    main()
