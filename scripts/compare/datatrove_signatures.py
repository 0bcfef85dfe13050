#!/usr/bin/env python3
"""datatrove_signatures.py DIR PROGRAM: see run.sh."""
import gzip, json, pathlib, subprocess, sys

from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig

PROFILES = {
    "datatrove": MinhashConfig(),
    "fineweb-v1": MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="sha1")),
}


def texts(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as lines:
        for line in lines:
            document = json.loads(line)
            if isinstance(document.get("text"), str):
                yield document["text"]


def theirs(stage, text):
    shingles = stage.get_shingles(text)
    return " ".join(str(value) for band in stage.get_signature(shingles) for value in band) if shingles.size else ""


def main(data, program):
    total, equal, shown = 0, 0, 0
    files = sorted(p for p in pathlib.Path(data).rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    for path in files:
        documents = list(texts(path))
        if not documents:
            continue
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()
        for name, config in PROFILES.items():
            stage = MinhashDedupSignature("unused", config)
            ours = subprocess.run([program, name], input=lines, stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")
            same = 0
            for number, (text, our) in enumerate(zip(documents, ours)):
                their = theirs(stage, text)
                same += our == their
                if our != their and shown < 10:
                    shown += 1
                    a, b = our.split(), their.split()
                    values = sum(x == y for x, y in zip(a, b))
                    print(f"  document {number} differs: {values} of {len(b)} values are equal; {text[:60]!r}")
            total, equal = total + len(documents), equal + same
            print(f"{path.relative_to(data)}  {name}  {same} of {len(documents)} equal", flush=True)
    print(f"all  {equal} of {total} signatures equal ({100 * equal / max(total, 1):.3f} %)")
    sys.exit(equal != total)


if __name__ == "__main__":
    main(*sys.argv[1:])
