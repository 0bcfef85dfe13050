#!/usr/bin/env python3
"""Writes the documents that a build of moe-data kept, for score.py: those of the corpus without the removed ones of
the audit tables. The recipe must have no filters.

    survivors.py CORPUS OUT > survivors.txt
"""
import pathlib, sys
import pyarrow.parquet as parquet
from truth import documents

corpus, out = sys.argv[1:]
removed = set()
for table in sorted(pathlib.Path(out, "audit").glob("dups-*.parquet")):
    removed.update(parquet.read_table(table, columns=["removed"])["removed"].to_pylist())
for name, _ in documents([corpus]):
    if name not in removed:
        print(name)
