"""The work of decontamination.sh: searches, plants, counts; prints tables in Markdown."""
import gzip, json, pathlib, random, re, resource, subprocess, sys

data, scratch, program = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
# The queries of arc_easy start with "Question: ", which is left on: `moe-data decontaminate` has no flag for it.
FIELDS = {"gsm8k_test": ["question"], "HumanEval": ["prompt", "canonical_solution"], "arc_easy": ["query"]}
FIELDS |= {path.name.split(".")[0]: ["sentence_good"] for path in sorted((data / "eval").glob("blimp_*.jsonl.gz"))}
PLANTED = 100    # texts of each benchmark, each planted in every way
flags = [flag for name, fields in FIELDS.items()
         for flag in ("--benchmark", f"{name}={data}/eval/{name}.jsonl.gz:{','.join(fields)}")]


def search(*paths, threads=1):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([program, "decontaminate", *flags, "--id", "id", "--threads", str(threads), "--json", *map(str, paths)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = done.stderr.strip().splitlines()
    said[-1] += f"; the whole command took {seconds:.2f} s of the processor"
    return json.loads(done.stdout)["benchmarks"], said


def words(text):
    return re.findall(r"[^\W_]+", text)


texts = sorted(path for path in data.rglob("*.jsonl.gz") if "eval" not in path.parts and "repo_sample" not in path.parts)
found, said = search(*texts)
print(f"## Nothing planted\n\n{said[0]}; {said[-1]}\n")
print("| evaluation set | texts | too short | matches | documents | self-test: verbatim, rewrapped, changed, diluted |")
print("| --- | ---: | ---: | ---: | ---: | --- |")
for name, report in found.items():
    s = report["summary"]
    recall = [s["recall"][kind] for kind in ("verbatim", "rewrapped", "changed", "diluted")]
    shown = ", ".join(f"{r['found']}/{r['planted']}" for r in recall)
    print(f"| {name} | {s['texts']} | {s['too_short']} | {s['matches']} | {s['documents']} | {shown} |")
for name, report in found.items():
    for match in report["matches"][:20]:
        print(f"- {name} record {match['record']} in {match['source']} {match['id']} ({match['n_words']} words, {match['score']:.2f}): {match['text'][:120]!r}")

rng = random.Random(1)
pages = [json.loads(line) for path in sorted((scratch / "corpus").glob("*.jsonl")) for line in open(path, encoding="utf-8")]
vocabulary = sorted({word for page in pages[:2000] for word in words(page["text"])})
PLANTINGS = {
    "verbatim": lambda text: text,
    "rewrapped": lambda text: "\n".join(" ".join(line) for line in [text.split()[i:i + 8] for i in range(0, len(text.split()), 8)]),
    "one word changed": lambda text: replace(text, 1),
    "one word in ten changed": lambda text: replace(text, max(1, len(words(text)) // 10)),
    "one word inserted": lambda text: insert(text),
    "case and punctuation lost": lambda text: " ".join(words(text.upper())),
    "first half only": lambda text: text[:len(text) // 2],
}


def replace(text, n):
    places = [match.span() for match in re.finditer(r"[^\W_]+", text)]
    for start, end in sorted(rng.sample(places, n), reverse=True):
        text = text[:start] + rng.choice(vocabulary) + text[end:]
    return text


def insert(text):
    places = [match.start() for match in re.finditer(r"[^\W_]+", text)]
    at = rng.choice(places[1:])
    return text[:at] + rng.choice(vocabulary) + " " + text[at:]


planted, targets = {}, iter(rng.sample(range(len(pages)), len(FIELDS) * PLANTED * len(PLANTINGS)))
for name, fields in FIELDS.items():
    records = [json.loads(line) for line in gzip.open(data / "eval" / f"{name}.jsonl.gz", "rt", encoding="utf-8")]
    long = [i for i, record in enumerate(records) if len(words(record[fields[0]])) >= 5]
    for i in rng.sample(long, PLANTED):
        for planting, change in PLANTINGS.items():
            page = pages[next(targets)]
            lines = page["text"].split("\n")
            lines.insert(rng.randrange(len(lines) + 1), change(records[i][fields[0]]))
            page["text"] = "\n".join(lines)
            planted.setdefault(page["id"], []).append((name, i, planting, len(words(records[i][fields[0]]))))
out = scratch / "planted.jsonl"
out.write_text("".join(json.dumps({"id": page["id"], "text": page["text"]}) + "\n" for page in pages), encoding="utf-8")
found, said = search(out)
two = search(out, threads=2)[1]
hits = {(match["id"], name) for name, report in found.items() for match in report["matches"]}
print(f"\n## Planted\n\n{said[-1]} on one thread, {two[-1].split('searched at ')[1]} on two\n")
print("| evaluation set | " + " | ".join(PLANTINGS) + " |\n| --- |" + " ---: |" * len(PLANTINGS))
for name in FIELDS:
    cells = []
    for planting in PLANTINGS:
        mine = [(page, one) for page, many in planted.items() for one in many if one[0] == name and one[2] == planting]
        right = sum((page, name) in hits for page, _ in mine)
        long = [(page, one) for page, one in mine if one[3] >= 13]
        cells.append(f"{right / len(mine):.2f}" + (f" ({sum((p, name) in hits for p, _ in long) / len(long):.2f} of {len(long)} long)" if 0 < len(long) < len(mine) else ""))
    print(f"| {name} | " + " | ".join(cells) + " |")
wrong = sorted((page, name) for page, name in hits if not any(one[0] == name for one in planted.get(page, [])))
total = len(hits)
print(f"\n{total} pages with a match of a set, {len(wrong)} of them without a planted text of that set: precision {1 - len(wrong) / max(total, 1):.4f}")
matches = {(match["id"], name): match for name, report in found.items() for match in report["matches"]}
for page, name in wrong[:20]:
    match = matches[page, name]
    print(f"- {name} record {match['record']} in {page} ({match['n_words']} words, {match['score']:.2f}): {match['text'][:120]!r}")
