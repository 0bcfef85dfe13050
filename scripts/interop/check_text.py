"""Reads the texts of `moe-data export` with Hugging Face datasets and with datatrove, and compares both.

Usage: check_text.py JSONL_DIR PARQUET_DIR    (needs: pip install datasets datatrove zstandard orjson)
"""

import sys
import tempfile

from datasets import load_dataset
from datatrove.pipeline.readers import JsonlReader

jsonl, parquet = sys.argv[1:]
cache = tempfile.mkdtemp()


def rows(*args, **kwargs):
    found = load_dataset(*args, split="train", cache_dir=cache, **kwargs)
    return {(row["source"], row["id"]): row for row in found}, found.features


of_jsonl, _ = rows("json", data_files=f"{jsonl}/*.jsonl.*")
of_parquet, features = rows("parquet", data_files=f"{parquet}/*.parquet")
of_folder, _ = rows(parquet)
assert of_jsonl == of_parquet, "JSON Lines and Parquet differ"
assert of_folder == of_parquet, "the folder and its files differ"
print(f"datasets: {len(of_parquet)} documents from JSON Lines and from Parquet, equal: {', '.join(features)}")

documents = list(JsonlReader(jsonl, glob_pattern="*.jsonl.*")())
assert len(documents) == len(of_jsonl)
for document in documents:
    row = of_jsonl[document.metadata["source"], document.id]
    assert document.text == row["text"]
    assert all(document.metadata[key] == row[key] for key in ("family", "variant", "tags"))
print(f"datatrove: {len(documents)} documents, equal")
