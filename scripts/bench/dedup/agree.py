#!/usr/bin/env python3
"""Checks that every labelled pair is among the pairs that truth.py found, with the same Jaccard index.

    agree.py LABELLED.tsv FOUND.tsv

Both have a heading line and the columns Jaccard index, id, id. Exits 1 when a pair is missing or differs by more than 0.0001.
"""
import sys


def pairs(path):
    rows = [line.rstrip("\n").split("\t") for line in open(path, encoding="utf-8")][1:]
    return {tuple(sorted(row[1:])): float(row[0]) for row in rows}


labelled, found = pairs(sys.argv[1]), pairs(sys.argv[2])
missing = [pair for pair in labelled if pair not in found]
wrong = [pair for pair in labelled if pair in found and abs(labelled[pair] - found[pair]) > 1e-4]
print(f"{len(labelled)} labelled pairs: {len(missing)} missing, {len(wrong)} with another index; {len(found)} found in all", file=sys.stderr)
sys.exit(1 if missing or wrong else 0)
