"""The work of classifier.sh: makes pages, trains both programs, prints tables in Markdown. Times are of the processor; those of
this program include reading the files."""
import gzip, hashlib, json, pathlib, resource, subprocess, sys, time, unicodedata

import fasttext

data, scratch, program = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
fasttext.FastText.eprint = lambda *a: None
SOURCES = {
    "peps": "peps*.jsonl.gz", "django": "django_docs_5.2.jsonl.gz", "rust": "rust_book_editions.jsonl.gz",
    "speeches": "us_speeches.jsonl.gz", "books": "books.jsonl.gz", "bible": "bible/KJV.jsonl.gz",
}


def pages(source):
    """Pages of about 2,400 characters that end at a blank line, each once; a document shorter than that is one page."""
    seen = set()
    for path in sorted(data.glob(SOURCES[source])):
        for line in gzip.open(path, "rt", encoding="utf-8"):
            document = json.loads(line)
            page, made = "", []
            for paragraph in document["text"].split("\n\n"):
                page += paragraph + "\n\n"
                if len(page) > 2000:
                    made.append(page)
                    page = ""
            for text in made or [page]:
                text = unicodedata.normalize("NFC", text).strip()
                if text and text not in seen:
                    seen.add(text)
                    yield document["id"], text


def is_test(document_id):
    """Every fifth document, all of its pages together. Editions of one chapter go together."""
    name = document_id.rsplit("/", 1)[-1]
    return hashlib.sha256(name.encode()).digest()[0] % 5 == 0


POSITIVE, NEGATIVE = ["peps", "django", "rust"], ["speeches", "books", "bible"]
PAGES = {source: list(pages(source)) for source in SOURCES}
EXPERIMENTS = {
    "same": lambda source, document_id: is_test(document_id),
    "other": lambda source, document_id: source in ("rust", "books"),
}


def run(*args):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def used():
    """CPU seconds of finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def auc(scored):
    scored = sorted(scored)
    ranks = positive = i = 0
    while i < len(scored):
        j = i
        while j < len(scored) and scored[j][0] == scored[i][0]:
            j += 1
        n = sum(label for _, label in scored[i:j])
        ranks += n * (i + 1 + j) / 2
        positive += n
        i = j
    return (ranks - positive * (positive + 1) / 2) / (positive * (len(scored) - positive))


print(f"pages: { {source: len(found) for source, found in PAGES.items()} }\n")
print("| experiment | model | training, processor s | AUC | accuracy at 0.5 | calibration error | pages a processor second |")
print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
for name, chosen in EXPERIMENTS.items():
    sets = {}
    for part in ("train", "test"):
        for kind, sources in (("positive", POSITIVE), ("negative", NEGATIVE)):
            path = scratch / f"{name}-{part}-{kind}.jsonl"
            rows = [text for source in sources for document_id, text in PAGES[source]
                    if chosen(source, document_id) == (part == "test")]
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
            sets[part, kind] = (path, rows)
    test = [(text, kind == "positive") for kind in ("positive", "negative") for text in sets["test", kind][1]]
    everything = scratch / f"{name}-test.jsonl"
    everything.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in test) * 10)
    length = {}
    for label, more in (
        ("this program", []),
        ("this program, words only", ["--word-ngrams", 1]),
        ("this program, embeddings of 100", ["--dim", 100]),
    ):
        model = scratch / "model.moecls"
        start = used()
        run("classifier", "train", "--positive", sets["train", "positive"][0], "--negative", sets["train", "negative"][0],
            "--output", model, "--held-out", 0, "--force", "-q", *more)
        seconds = used() - start
        figures = json.loads(run("classifier", "eval", "--model", model, "--positive", sets["test", "positive"][0],
                                 "--negative", sets["test", "negative"][0], "--json").stdout)
        start = used()
        run("classifier", "apply", "--model", model, "--threads", 1, everything)
        speed = 10 * len(test) / (used() - start)
        print(f"| {name} | {label} | {seconds:.1f} | {figures['auc']:.4f} | {figures['accuracy']:.4f} "
              f"| {figures['calibration_error']:.3f} | {speed:.0f} |", flush=True)
        length = figures
    lines = scratch / "train.txt"
    lines.write_text("".join(
        f"__label__{kind} {' '.join(text.split())}\n"
        for kind in ("positive", "negative") for text in sets["train", kind][1]))
    for label, more in (
        ("fastText, DCLM's settings", {"lr": 0.1, "wordNgrams": 1}),
        ("fastText, pairs, lr 0.1", {"lr": 0.1, "wordNgrams": 2}),
        ("fastText, pairs, lr 0.5", {"lr": 0.5, "wordNgrams": 2}),
    ):
        start = time.process_time()
        model = fasttext.train_supervised(str(lines), dim=100, epoch=5, minCount=1, thread=1, verbose=0, **more)
        seconds = time.process_time() - start
        flat = [" ".join(text.split()) for text, _ in test]
        start = time.process_time()
        predicted = [model.predict(text, k=2) for text in flat]
        speed = len(flat) / (time.process_time() - start)
        scores = [dict(zip(*found))["__label__positive"] for found in predicted]
        scored = [(score, int(positive)) for score, (_, positive) in zip(scores, test)]
        right = sum((score >= 0.5) == bool(positive) for score, positive in scored) / len(scored)
        ordered, error = sorted(scored), 0
        for i in range(10):
            part = ordered[len(ordered) * i // 10:len(ordered) * (i + 1) // 10]
            error += abs(sum(score for score, _ in part) - sum(positive for _, positive in part))
        print(f"| {name} | {label} | {seconds:.1f} | {auc(scored):.4f} | {right:.4f} | {error / len(ordered):.3f} | {speed:.0f} |",
              flush=True)
    print(f"| {name} | length alone, best threshold | | {length['length_auc']:.4f} | {length['length_best_accuracy']:.4f} | | |")
    n = {key: len(rows) for key, (_, rows) in sets.items()}
    print(f"\n{name}: {n['train', 'positive']} + {n['train', 'negative']} pages to train, "
          f"{n['test', 'positive']} + {n['test', 'negative']} to test\n")
