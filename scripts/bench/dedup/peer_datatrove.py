#!/usr/bin/env python3
"""MinHash deduplication by datatrove (PyPI datatrove==0.10.1) with its defaults: English words, 5-grams, 14 buckets of
8 hashes, 64-bit xxhash. Four stages, each by --workers processes where datatrove allows more than one.

    peer_datatrove.py CORPUS_DIR OUT_DIR [--workers 2]

Writes OUT_DIR/survivors.txt, one id a line, and OUT_DIR/stages.json, seconds a stage.
"""
import argparse, json, pathlib, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("corpus"), ap.add_argument("out", type=pathlib.Path), ap.add_argument("--workers", type=int, default=2)
    a = ap.parse_args()
    config = MinhashConfig(hash_config=HashConfig(hash_fc="xxhash", precision=64), n_grams=5, num_buckets=14, hashes_per_bucket=8)
    out, tasks = str(a.out), len(list(pathlib.Path(a.corpus).glob("*.jsonl")))
    reader = JsonlReader(a.corpus, glob_pattern="*.jsonl")
    stages = {
        "signatures": (tasks, [reader, MinhashDedupSignature(f"{out}/signatures", config=config, language="eng")]),
        "buckets": (14, [MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)]),
        "cluster": (1, [MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config)]),
        "filter": (tasks, [reader, MinhashDedupFilter(f"{out}/remove"),
                           JsonlWriter(f"{out}/kept", output_filename="${rank}.jsonl", compression=None)]),
    }
    seconds = {}
    for name, (n_tasks, pipeline) in stages.items():
        start = time.monotonic()
        LocalPipelineExecutor(pipeline, tasks=n_tasks, workers=min(a.workers, n_tasks), logging_dir=f"{out}/logs/{name}").run()
        seconds[name] = round(time.monotonic() - start, 2)
    (a.out / "stages.json").write_text(json.dumps(seconds))
    with open(a.out / "survivors.txt", "w", encoding="utf-8") as survivors:
        for path in sorted((a.out / "kept").glob("*.jsonl")):
            for line in open(path, encoding="utf-8"):
                survivors.write(json.loads(line)["id"] + "\n")
