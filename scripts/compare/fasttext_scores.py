"""fasttext_scores.py: see run.sh."""
import gzip, json, pathlib, subprocess, sys, unicodedata

import fasttext

data, scratch, program, lid = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]
fasttext.FastText.eprint = lambda *a: None
texts = []
for path in sorted([*data.rglob("*.jsonl"), *data.rglob("*.jsonl.gz")]):
    if path.is_relative_to(scratch):
        continue
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    found = [json.loads(line) for line in opened]
    texts += [unicodedata.normalize("NFC", record["text"]) for record in found if isinstance(record.get("text"), str)]
texts = [text for text in texts if text.strip()]
lines = scratch / "texts.jsonl"
lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
# Any two classes do for a comparison of scores.
train = scratch / "train.txt"
train.write_text("".join(f"__label__{'long' if len(text) > 4000 else 'short'} {' '.join(text.split())}\n" for text in texts[::5]))
models = {"lid.176.ftz": (lid, ["en", "de", "zh"])}
for name, ngrams in (("words.bin", 1), ("pairs.bin", 2)):
    model = fasttext.train_supervised(str(train), dim=20, epoch=2, minCount=1, wordNgrams=ngrams, bucket=200_000, thread=1, verbose=0)
    model.save_model(str(scratch / name))
    models[name] = (str(scratch / name), ["long"])
model.quantize(input=str(train), retrain=False)
model.save_model(str(scratch / "pairs.ftz"))
models["pairs.ftz"] = (str(scratch / "pairs.ftz"), ["long"])

worst = 0
print("| model | label | newlines | texts | greatest difference | other side of 0.5 |")
print("| --- | --- | --- | ---: | ---: | ---: |")
for name, (path, labels) in models.items():
    model = fasttext.load_model(path)
    for newlines, glue in (("space", " "), ("join", "")):
        flat = [text.replace("\r", glue).replace("\n", glue) for text in texts]
        expected = [dict(zip(*model.predict(text, k=-1))) for text in flat]
        for label in labels:
            said = subprocess.run(
                [program, "classifier", "apply", "--model", path, "--label", label, "--newlines", newlines, str(lines)],
                capture_output=True, text=True)
            assert said.returncode == 0, said.stderr
            scores = [json.loads(line)["score"] for line in said.stdout.splitlines()]
            assert len(scores) == len(texts)
            pairs = [(score, found.get(f"__label__{label}", 0)) for score, found in zip(scores, expected)]
            most = max(abs(a - min(b, 1)) for a, b in pairs)
            other = sum((a >= 0.5) != (b >= 0.5) for a, b in pairs)
            worst = max(worst, most)
            print(f"| {name} | {label} | {newlines} | {len(texts)} | {most:.1e} | {other} |", flush=True)
sys.exit(1 if worst > 0.001 else 0)
