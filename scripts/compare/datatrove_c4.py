#!/usr/bin/env python3
"""datatrove_c4.py DIR PROGRAM: see run.sh. Texts are given to both in the form of moe-data's reader (NFC, `\\n` line ends, no
control characters)."""
import gzip, json, pathlib, re, subprocess, sys, tempfile, unicodedata
from collections import Counter

from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter, C4QualityFilter

VARIANTS = [
    ("c4_quality", {}, C4QualityFilter, {}),
    ("c4_quality", {"filter_no_terminal_punct": False}, C4QualityFilter, {"filter_no_terminal_punct": False}),
    ("c4_quality", {"remove_citations": False, "min_num_sentences": 3, "min_words_per_line": 5, "filter_curly_bracket": False},
     C4QualityFilter, {"remove_citations": False, "min_num_sentences": 3, "min_words_per_line": 5, "filter_curly_bracket": False}),
    ("c4_paragraphs", {}, C4ParagraphFilter, {}),
]
REASONS = {"< 3 paragraphs": "too_few_paragraphs"}


def normalised(text):
    text = re.sub("\r\n|\r|\x85", "\n", text.removeprefix("\ufeff"))
    text = "".join(c for c in text if c in "\t\n" or unicodedata.category(c) != "Cc")
    return unicodedata.normalize("NFC", text)


def texts(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as lines:
        for line in lines:
            text = json.loads(line).get("text")
            if isinstance(text, str):
                yield normalised(text)


def ours(program, rules, documents):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(rules, file)
        file.flush()
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()
        out = subprocess.run([program, file.name], input=lines, stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def main(data, program):
    files = sorted(p for p in pathlib.Path(data).rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    failed, shown = False, 0
    print("| rule | settings | documents | dropped by datatrove | other verdict | other reason | other text of those both keep |")
    print("|---|---|---|---|---|---|---|")
    for name, settings, theirs, arguments in VARIANTS:
        stage = theirs(**arguments)
        n, dropped, verdicts, reasons, others, pairs = 0, 0, 0, 0, 0, Counter()
        for path in files:
            documents = list(texts(path))
            for text, our in zip(documents, ours(program, [{"name": name, "settings": settings}], documents)):
                document = Document(text=text, id="")
                result = stage.filter(document)
                their = None if result is True else result[1]
                their = REASONS.get(their, their)
                n, dropped = n + 1, dropped + (their is not None)
                # Nothing may be left of a text; both drop it then, but we have a separate reason.
                our_reason = None if our["dropped"] == "nothing_left" else our["dropped"]
                verdicts += (our_reason is None) != (their is None)
                reasons += our_reason != their
                differs = our_reason is None and their is None and our["text"] != document.text
                others += differs
                if our_reason != their or differs:
                    pairs[(their, our_reason)] += 1
                    shown += 1
                    if shown <= 20:
                        print(f"{path.name}: {their} / {our_reason} {our['values'][:3]}: {text[:60]!r}", file=sys.stderr)
        keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()) or "defaults"
        print(f"| `{name}` | {keys} | {n:,} | {dropped:,} | {verdicts} | {reasons} | {others} |", flush=True)
        failed |= verdicts + others > 0.01 * n
    sys.exit(failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
