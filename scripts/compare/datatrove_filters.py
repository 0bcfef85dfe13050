#!/usr/bin/env python3
"""datatrove_filters.py DIR PROGRAM: see run.sh."""
import collections, gzip, json, os, pathlib, re, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

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


SUFFIXES = (".jsonl", ".jsonl.gz", ".warc", ".warc.gz")


def opened(path):
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def texts(path):
    """`text` of every record, or if it has none, all of its strings, one per line; for a WARC file, the pages without tags."""
    if ".warc" in path.suffixes:
        for record in opened(path).read().split(b"WARC/1.0\r\n"):
            parts = record.split(b"\r\n\r\n", 2)
            if b"WARC-Type: response" in parts[0] and len(parts) == 3:
                page = re.sub(r"(?is)<!--.*?-->|<(script|style|head)\b.*?</\1>|<[^>]*>", " ", parts[2].decode(errors="replace"))
                yield page
        return
    for line in opened(path):
        record = json.loads(line)
        if isinstance(record.get("text"), str):
            yield record["text"]
        else:
            fields = [value if isinstance(value, list) else [value] for value in record.values()]
            yield "\n".join(value for values in fields for value in values if isinstance(value, str))


def run(program, arguments, documents):
    lines = "".join(json.dumps(document) + "\n" for document in documents).encode()
    done = subprocess.run([program, *arguments], input=lines, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().split("\n")[: len(documents)]


def theirs(rule, text):
    verdict = rule.filter(Document(text=text, id="x"))
    return "-" if verdict is True else verdict[1]


def compare(path, program):
    """Counts by rule for a file, and what differs in it."""
    global words
    found = [json.loads(line) for line in run(program, ["normalize"], [{"text": text} for text in texts(path)])]
    found = [text for text in found if text.strip()]
    own = [line.split("\t") for line in run(program, list(RULES), [{"text": text} for text in found])]
    expected, split = [], []
    for text in found:
        words = split_into_words(text)
        split.append({"text": text, "words": words})
        expected.append([theirs(rule, text) for rule in RULES.values()])
    same = [line.split("\t") for line in run(program, list(RULES), split)]
    rules, differences = {}, []
    for number, name in enumerate(RULES):
        counts = [len(found), 0, 0, 0, 0]
        for text, a, b, c in zip(found, expected, own, same):
            a, b, c = a[number], b[number], c[number]
            counts[1] += a != "-"
            counts[2] += (a == "-") != (b == "-")
            counts[3] += a != "-" and b != "-" and a != b
            counts[4] += a != c
            if a != c:
                differences.append(f"{path.name}: {name}: {a} here, {c} there: {text[:80]!r}")
        rules[name] = counts
    return rules, differences


def row(name, rule, counts):
    n, dropped, verdict, reason, same_words = counts
    print(f"| {name} | {n:,} | `{rule}` | {dropped:,} | {verdict} ({100 * verdict / n:.2f} %) | {reason} | {same_words} |", flush=True)


def main(data, program):
    # Large files first, so that no process ends long after the others.
    data = pathlib.Path(data)
    paths = [path for path in data.rglob("*") if path.name.endswith(SUFFIXES)]
    paths.sort(key=lambda path: (-path.stat().st_size, path))
    total = collections.defaultdict(lambda: [0] * 5)
    groups = collections.defaultdict(lambda: collections.defaultdict(lambda: [0] * 5))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for path, (rules, differences) in zip(paths, pool.map(compare, paths, [program] * len(paths))):
            print(f"{path.relative_to(data)} is done", *differences, sep="\n", file=sys.stderr, flush=True)
            # A folder is one source.
            group = path.relative_to(data).parts[0]
            for name, counts in rules.items():
                for sums in (groups[group][name], total[name]):
                    sums[:] = [x + y for x, y in zip(sums, counts)]
    print("| texts | documents | rule | dropped by datatrove | other verdict, our words | other reason, our words | other verdict or reason, same words |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for group, rules in sorted(groups.items()):
        for name, counts in rules.items():
            row(group, name, counts)
    for name, counts in total.items():
        row("**all**", name, counts)
    sys.exit(any(counts[4] for counts in total.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
