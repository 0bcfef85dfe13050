#!/usr/bin/env python3
"""cleaning.py DIR PROGRAM: see cleaning.sh."""
import json, pathlib, subprocess, sys, tempfile, time
from collections import Counter

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "compare"))
from datatrove_c4 import texts

from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter, C4QualityFilter
from datatrove.pipeline.formatters.pii import PIIFormatter

RULES = [
    ("c4_quality", {}, lambda: C4QualityFilter().filter),
    ("c4_paragraphs", {}, lambda: C4ParagraphFilter().filter),
    ("refinedweb_lines", {}, None),
    ("newlines", {}, None),
    ("pii", {}, None),
    ("pii", {"kinds": ["email", "ip"]}, lambda: lambda document: PIIFormatter().format(document.text)),
    ("language", {"languages": ["en"]}, None),
    ("code", {}, None),
]


def main(data, program):
    files = sorted(p for p in pathlib.Path(data).rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    documents = [text for path in files for text in texts(path)]
    n_bytes = sum(len(text.encode()) for text in documents)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()
    print(f"{len(documents):,} documents, {n_bytes / 1e6:.1f} MB\n")
    print("| rule | settings | moe-data, MB a CPU second | datatrove | times as fast |\n|---|---|---|---|---|")
    for name, settings, peer in RULES:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([{"name": name, "settings": settings}], file)
            file.flush()
            done = subprocess.run([program, file.name], input=lines, capture_output=True, check=True)
        ours = n_bytes / json.loads(done.stderr.splitlines()[-1])["seconds"] / 1e6
        theirs = None
        if peer:
            run, start = peer(), time.process_time()
            for text in documents:
                run(Document(text=text, id=""))
            theirs = n_bytes / (time.process_time() - start) / 1e6
        keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()) or "defaults"
        beside = f"{theirs:.2f} | {ours / theirs:.0f}" if theirs else "| "
        print(f"| `{name}` | {keys} | {ours:.1f} | {beside} |", flush=True)
    done = subprocess.run([program, "pii"], input=lines, capture_output=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    print("\n| kind | found | different |\n|---|---|---|")
    for kind in ["email", "ip", "phone", "card", "iban", "key"]:
        rows = [row["found"] for row in found if row["kind"] == kind]
        print(f"| {kind} | {len(rows)} | {len(set(rows))} |")
    print("\nThe different findings other than e-mail:", ", ".join(f"`{text}`" for text in Counter(
        row["found"] for row in found if row["kind"] != "email")))


if __name__ == "__main__":
    main(*sys.argv[1:])
