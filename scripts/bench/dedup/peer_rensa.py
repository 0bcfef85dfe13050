#!/usr/bin/env python3
"""MinHash deduplication by rensa (PyPI rensa==0.5.0, Rust): RMinHashDeduplicator over 5-word shingles, 112 permutations
in 14 bands, threshold 0.7 on the estimated similarity; the first of two like documents stays.

    peer_rensa.py CORPUS_DIR OUT_DIR

Writes OUT_DIR/survivors.txt and OUT_DIR/stages.json (rensa: seconds inside the library; the rest is reading and shingling).
"""
import argparse, json, pathlib, re, time
from rensa import RMinHashDeduplicator

CHUNK = 2000

if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("corpus", type=pathlib.Path), ap.add_argument("out", type=pathlib.Path)
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    word = re.compile(r"\w+")
    index = RMinHashDeduplicator(threshold=0.7, num_perm=112, use_lsh=True, num_bands=14, seed=42)
    start, inside, entries, short, survivors = time.monotonic(), 0.0, [], [], []

    def flush():
        global inside
        began = time.monotonic()
        added = index.add_pairs(entries)
        inside += time.monotonic() - began
        survivors.extend(key for (key, _), new in zip(entries, added) if new)
        entries.clear()

    for path in sorted(a.corpus.glob("*.jsonl")):
        for line in open(path, encoding="utf-8"):
            document = json.loads(line)
            words = word.findall(document["text"].lower())
            shingles = [" ".join(words[i:i + 5]) for i in range(len(words) - 4)]
            if not shingles:
                survivors.append(document["id"])    # too short to compare
                continue
            entries.append((document["id"], shingles))
            if len(entries) == CHUNK:
                flush()
    flush()
    stages = {"all": round(time.monotonic() - start, 2), "rensa": round(inside, 2)}
    (a.out / "stages.json").write_text(json.dumps(stages))
    (a.out / "survivors.txt").write_text("".join(f"{name}\n" for name in survivors), encoding="utf-8")
