#!/usr/bin/env python3
"""Compares what a run kept with brute-force truth.

    score.py --truth pairs.tsv --ids CORPUS --survivors survivors.txt [--threshold 0.7] [--sample N --seed S] [--json]

A pair is `found` when not both of its documents survived. Recall: found pairs among the pairs at or above the
threshold. Precision: removed documents that are at or above the threshold with a document that survived, among all
that were removed. With the --sample and --seed with which truth was found, both are of the sampled documents. `like_any` counts a removed document as right that is like any other document, survivor or not.
"""
import argparse, collections, json
from truth import documents, sampled

ap = argparse.ArgumentParser()
ap.add_argument("--truth", required=True), ap.add_argument("--ids", nargs="+", required=True)
ap.add_argument("--survivors", required=True), ap.add_argument("--threshold", type=float, default=0.7)
ap.add_argument("--json", action="store_true")
ap.add_argument("--sample", type=int), ap.add_argument("--seed", type=int, default=1)
a = ap.parse_args()
names = [name for name, _ in documents(a.ids)]
kept = {line.rstrip("\n") for line in open(a.survivors, encoding="utf-8")}
unknown = kept - set(names)
assert not unknown, f"survivors that are not in the corpus, such as {sorted(unknown)[:3]}"
removed = {name for name in names if name not in kept}
asked = removed
if a.sample and a.sample < len(names):
    asked = removed & {names[i] for i in sampled(names, a.sample, a.seed)}
bins = collections.defaultdict(lambda: [0, 0])
with_survivor, with_any = set(), set()
pairs = found = 0
for line in list(open(a.truth, encoding="utf-8"))[1:]:
    jaccard, left, right = line.rstrip("\n").split("\t")
    jaccard = float(jaccard)
    hit = left in removed or right in removed
    bins[min(int(jaccard * 20 + 1e-9), 20)][0] += 1
    bins[min(int(jaccard * 20 + 1e-9), 20)][1] += hit
    if jaccard >= a.threshold:
        pairs += 1; found += hit
        for one, other in ((left, right), (right, left)):
            if one in asked:
                with_any.add(one)
                if other in kept:
                    with_survivor.add(one)
result = {"documents": len(names), "removed": len(removed), "pairs": pairs, "found": found,
          "recall": round(found / pairs, 5) if pairs else None,
          "precision": round(len(with_survivor) / len(asked), 5) if asked else None,
          "like_any": round(len(with_any) / len(asked), 5) if asked else None,
          "bins": {f"{b / 20:.2f}": counts for b, counts in sorted(bins.items())}}
if a.json:
    print(json.dumps(result))
else:
    print(", ".join(f"{key} {value}" for key, value in result.items() if key != "bins"))
    for low, (n_pairs, n_found) in result["bins"].items():
        print(f"  J >= {low}: {n_found} of {n_pairs} pairs found, {n_found / n_pairs:.4f}")
