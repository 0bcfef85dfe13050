#!/usr/bin/env python3
"""Chapters of the Bible in several human translations, as families with variants, and tasks that ask for other wordings of them.

    python3 scripts/experiments/bible.py --source BIBLES --out runs/bible
    moe-data build --recipe runs/bible/recipe.toml --out runs/bible/data

--source (or the variable BIBLES) is a folder of KJV.jsonl.gz, ASV.jsonl.gz, WEB.jsonl.gz, YLT.jsonl.gz and BBE.jsonl.gz with a chapter a
line: `group` (as in Gen.1), `text`. docs/experiments/bible.md says where they come from.

Chapters are drawn by a hash of their names. --light takes the first translation and copies of it with light changes of words instead of
the other translations: modern forms of old words, each replaced in half of its places, drawn for each copy.

Writes into --out, the same bytes for the same arguments:
    texts.jsonl     id, chapter, version, text of the trained chapters
    unseen.jsonl    the trained chapters in a translation that is not trained; unseen.toml is the task
    heldout.jsonl   chapters that are not trained, in every translation; heldout.toml
    recipe.toml                             the recipe
    raw.toml, variants.toml                 mixtures of the first version, and of each version once
    fixed.toml, reshuffle.toml, documents.toml    raw.toml in other orders
"""
import argparse, gzip, hashlib, json, os, pathlib, re, sys

# Old forms and modern ones.
MODERN = {
    "thee": "you", "thou": "you", "ye": "you", "thy": "your", "thine": "your", "hath": "has", "doth": "does", "hast": "have", "art": "are",
    "shalt": "shall", "wilt": "will", "unto": "to", "saith": "says", "cometh": "comes", "goeth": "goes", "maketh": "makes", "whosoever": "whoever",
    "spake": "spoke", "begat": "fathered", "brethren": "brothers", "upon": "on", "behold": "look", "yea": "yes", "nay": "no", "thereof": "of it",
    "therein": "in it", "wherefore": "therefore", "said": "spoke", "smote": "struck", "dwelt": "lived", "slay": "kill", "slew": "killed",
    "shall": "will", "came": "went", "also": "too", "great": "large", "land": "country", "sons": "children", "servant": "slave", "house": "home",
}
WORD = re.compile(r"[A-Za-z]+")


def digest(*what):
    return hashlib.sha256("/".join(map(str, what)).encode()).digest()


def read(source, version):
    path = source / f"{version}.jsonl.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return {record["group"]: record["text"] for record in map(json.loads, lines)}
    except OSError as error:
        sys.exit(f"bible.py: {path}: {error}; docs/experiments/bible.md says where the translations come from")


def lightly_changed(text, *seed):
    """The text with half of the old words in their modern forms."""
    places = iter(range(len(text)))

    def modern(match):
        word, place = match.group(), next(places)
        new = MODERN.get(word.lower())
        if new is None or digest(*seed, place)[0] % 2:
            return word
        return new.capitalize() if word[0].isupper() else new

    return WORD.sub(modern, text)


def recipe(args, versions):
    return f"""# Made by scripts/experiments/bible.py.
[[source]]
name = "bible"
paths = ["texts.jsonl"]
id = "id"
family = "chapter"
variant = "version"
variants = {json.dumps(versions)}

[tokenizer]
{'file = "tokenizer.json"' if args.tokenizer else f'train = {{ vocab_size = {args.vocab_size} }}'}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, default=os.environ.get("BIBLES"), help="folder of the translations; absent: the variable BIBLES")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write into")
    parser.add_argument("--chapters", type=int, default=240, help="trained chapters")
    parser.add_argument("--held-out", type=int, default=60, help="chapters that are not trained")
    parser.add_argument("--versions", nargs="+", default=["KJV", "ASV", "WEB", "YLT"], help="trained translations, the original first")
    parser.add_argument("--unseen", default="BBE", help="a translation that is not trained")
    parser.add_argument("--light", action="store_true", help="light changes of the first translation instead of the others")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocab-size", type=int, default=4096, help="of the tokenizer that the recipe trains")
    parser.add_argument("--tokenizer", action="store_true", help="the recipe takes the file tokenizer.json of --out, which you put there")
    parser.add_argument("--seq-len", type=int, default=256, help="of the mixtures")
    args = parser.parse_args()
    if args.source is None:
        parser.error("--source or the variable BIBLES must name the folder of the translations")
    texts = {version: read(pathlib.Path(args.source), version) for version in [*args.versions, args.unseen]}
    common = set.intersection(*(set(chapters) for chapters in texts.values()))
    drawn = sorted(common, key=lambda chapter: digest(args.seed, chapter))[: args.chapters + args.held_out]
    if len(drawn) < args.chapters + args.held_out:
        sys.exit(f"bible.py: {len(common)} chapters are in every translation, {args.chapters + args.held_out} are asked for")
    # The held-out chapters are the same for any number of trained ones, and fewer trained ones are among more.
    held_out, trained, original = sorted(drawn[: args.held_out]), sorted(drawn[args.held_out :]), args.versions[0]
    versions = [original, *(f"{original}-{i}" for i in range(1, len(args.versions)))] if args.light else args.versions

    def text(version, chapter):
        if args.light and version != original:
            return lightly_changed(texts[original][chapter], args.seed, version, chapter)
        return texts[version][chapter]

    record = lambda version, chapter, text: {"id": f"{version}/{chapter}", "chapter": chapter, "version": version, "text": text}
    files = {
        "texts": [record(version, chapter, text(version, chapter)) for chapter in trained for version in versions],
        "unseen": [record(args.unseen, chapter, texts[args.unseen][chapter]) for chapter in trained],
        "heldout": [record(version, chapter, texts[version][chapter]) for chapter in held_out for version in texts],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (args.out / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    task = '# Made by scripts/experiments/bible.py.\nkind = "perplexity"\nname = "{0}"\ndata = "{0}.jsonl"\ntext = "{{{{text}}}}"\nby = "version"\n'
    common = f"[mix]\nseq_len = {args.seq_len}\nholdout = 0\nepochs = {len(versions)}\n"
    for name, content in {
        "recipe.toml": recipe(args, versions), "unseen.toml": task.format("unseen"), "heldout.toml": task.format("heldout"),
        "raw.toml": f"{common}original_share = 1\n",
        **{f"{order}.toml": f'{common}original_share = 1\norder = "{order}"\n' for order in ("fixed", "reshuffle", "documents")},
        "variants.toml": f'{common}variants = "each-once"\n',
    }.items():
        (args.out / name).write_text(content, encoding="utf-8")
    n_words = sum(len(row["text"].split()) for row in files["texts"])
    print(f"{len(trained)} trained chapters in {len(versions)} versions, {n_words} words; {len(held_out)} held out: {args.out}")


if __name__ == "__main__":
    main()
