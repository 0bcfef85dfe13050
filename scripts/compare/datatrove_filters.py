#!/usr/bin/env python3
"""datatrove_filters.py DIR PROGRAM: see datatrove-filters.sh."""
import gzip, json, pathlib, subprocess, sys

from datatrove.data import Document
from datatrove.pipeline.filters import (
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.utils.text import split_into_words

RULES = {
    "gopher_quality": GopherQualityFilter(),
    "gopher_repetition": GopherRepetitionFilter(),
    "fineweb_quality": FineWebQualityFilter(),
}

# The three filters split the same text; it is split once.
words = []
for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
    module.split_into_words = lambda text, language: words


def texts(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as lines:
        for line in lines:
            document = json.loads(line)
            if isinstance(document, dict) and isinstance(document.get("text"), str) and document["text"].strip():
                yield document["text"]


def run(program, arguments, documents):
    lines = "".join(json.dumps(document) + "\n" for document in documents).encode()
    done = subprocess.run([program, *arguments], input=lines, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().split("\n")[: len(documents)]


def theirs(rule, text):
    verdict = rule.filter(Document(text=text, id="x"))
    return "-" if verdict is True else verdict[1]


def main(data, program):
    global words
    total, bad = {}, 0
    print("| file | documents | rule | dropped by datatrove | other verdict, our words | other reason, our words | other verdict or reason, same words |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for path in sorted(p for p in pathlib.Path(data).rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz"))):
        found = list(texts(path))
        if not found:
            continue
        found = [json.loads(line) for line in run(program, ["normalize"], [{"text": text} for text in found])]
        found = [text for text in found if text.strip()]
        own = [line.split("\t") for line in run(program, list(RULES), [{"text": text} for text in found])]
        expected, split = [], []
        for text in found:
            words = split_into_words(text)
            split.append({"text": text, "words": words})
            expected.append([theirs(rule, text) for rule in RULES.values()])
        same = [line.split("\t") for line in run(program, list(RULES), split)]
        for number, name in enumerate(RULES):
            counts = [len(found), 0, 0, 0, 0]
            for text, a, b, c in zip(found, expected, own, same):
                a, b, c = a[number], b[number], c[number]
                counts[1] += a != "-"
                counts[2] += (a == "-") != (b == "-")
                counts[3] += a != "-" and b != "-" and a != b
                counts[4] += a != c
                if a != c:
                    print(f"{path.name}: {name}: {a} here, {c} there: {text[:80]!r}", file=sys.stderr)
            bad += counts[4]
            total[name] = [x + y for x, y in zip(total.get(name, [0] * 5), counts)]
            n, dropped, verdict, reason, same_words = counts
            print(f"| {path.relative_to(data)} | {n} | `{name}` | {dropped} | {verdict} ({100 * verdict / n:.2f} %) | {reason} | {same_words} |", flush=True)
    for name, (n, dropped, verdict, reason, same_words) in total.items():
        print(f"| **all** | {n} | `{name}` | {dropped} | {verdict} ({100 * verdict / n:.2f} %) | {reason} | {same_words} |")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
