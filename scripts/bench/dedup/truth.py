#!/usr/bin/env python3
"""Finds every pair of documents whose shingle sets have a Jaccard similarity of at least --min, exactly.

    truth.py CORPUS... --out pairs.tsv [--min 0.5] [--ngram 5] [--sample N --seed S]

CORPUS are .jsonl or .jsonl.gz files, or folders of them, with `id` and `text`. Words are the runs of `\\w` of the
lower-cased text; a shingle is --ngram words; a text with fewer words has none and is in no pair. Nothing is
estimated: candidates come from prefix filtering (two sets with J >= t share one of their
n - ceil(t n) + 1 rarest elements; Xiao et al., Efficient similarity joins for near duplicate detection, WWW 2008) and
are then compared. With --sample only pairs with at least one of N seeded documents are looked for. It shares
no code with moe-data.
"""
import argparse, gzip, hashlib, itertools, json, math, pathlib, re, sys
import numpy as np


def documents(paths):
    for path in paths:
        path = pathlib.Path(path)
        if path.is_dir():
            found = (p for pattern in ("*.jsonl", "*.jsonl.gz") for p in path.glob(pattern))
            yield from documents(sorted(found))
            continue
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as lines:
            for line in lines:
                document = json.loads(line)
                yield document["id"], document["text"]


def sampled(names, size, seed):
    """Numbers of the sampled documents."""
    return set(sorted(range(len(names)), key=lambda i: hashlib.sha256(f"{seed}/{names[i]}".encode()).digest())[:size])


def shingles(words, ngram, number):
    """Sorted 64-bit numbers of the distinct shingles; `number` gives each word a number."""
    if len(words) < ngram:
        return np.zeros(0, np.uint64)
    ids = np.fromiter((number.setdefault(word, len(number)) for word in words), np.uint64, len(words))
    ids = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    ids ^= ids >> np.uint64(29)
    value = np.zeros(len(ids) - ngram + 1, np.uint64)
    for n in range(ngram):                      # a polynomial in an odd base, mixed after every step
        value = (value + ids[n:len(ids) - ngram + 1 + n]) * np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(32)
    return np.unique(value)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("corpus", nargs="+")
    ap.add_argument("--out", required=True)
    ap.add_argument("--min", type=float, default=0.5)
    ap.add_argument("--ngram", type=int, default=5)
    ap.add_argument("--sample", type=int)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    word = re.compile(r"\w+")
    names, sets, number = [], [], {}
    for name, text in documents(a.corpus):
        names.append(name)
        sets.append(shingles(word.findall(text.lower()), a.ngram, number))
    number.clear()
    sizes = np.array([len(s) for s in sets])
    chosen = None
    if a.sample and a.sample < len(names):
        chosen = sampled(names, a.sample, a.seed)
        wanted = np.unique(np.concatenate([sets[i] for i in chosen]))
        share = [s[np.isin(s, wanted, assume_unique=True)] for s in sets]   # others cannot be in a pair
    else:
        share = sets
    flat = np.concatenate(share)
    distinct, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    del flat, distinct
    rarity = np.empty(len(counts), np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ranks = np.split(rarity[inverse], np.cumsum([len(s) for s in share])[:-1])
    del inverse, rarity, counts
    postings, owners = [], []
    for i, own in enumerate(ranks):
        # Shingles that no sampled document has are cut above; a pair's overlap lies in what is left.
        overlap = math.ceil(a.min * sizes[i] - 1e-9)
        keep = len(own) - overlap + 1
        if sizes[i] and keep > 0:
            prefix = np.sort(own)[:keep]
            postings.append(prefix); owners.append(np.full(len(prefix), i, np.int32))
    postings, owners = np.concatenate(postings), np.concatenate(owners)
    order = np.lexsort((owners, postings))
    postings, owners = postings[order], owners[order]
    starts = np.flatnonzero(np.r_[True, postings[1:] != postings[:-1], True])
    candidates, n_pairs = set(), 0
    with open(a.out, "w", encoding="utf-8") as out:
        out.write("jaccard\tid_a\tid_b\n")
        for start, end in zip(starts[:-1], starts[1:]):
            if end - start < 2:
                continue
            group = owners[start:end].tolist()
            if chosen is None:
                pairs = itertools.combinations(group, 2)
            else:
                pairs = ((min(i, j), max(i, j)) for i in group if i in chosen for j in group if i != j)
            for i, j in pairs:
                if min(sizes[i], sizes[j]) >= a.min * max(sizes[i], sizes[j]) - 1e-9:
                    candidates.add((i, j))
        for i, j in sorted(candidates):
            both = len(np.intersect1d(sets[i], sets[j], assume_unique=True))
            jaccard = both / (sizes[i] + sizes[j] - both)
            if jaccard >= a.min:
                n_pairs += 1
                out.write(f"{jaccard:.6f}\t{names[i]}\t{names[j]}\n")
    json.dump({"documents": len(names), "sampled": len(chosen) if chosen else len(names),
               "shingles": int(sizes.sum()), "candidates": len(candidates), "pairs": n_pairs}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
