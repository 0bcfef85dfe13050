#!/usr/bin/env python3
"""Compares the ids of moe-data's encoder with those of the library `tokenizers`, document by document.

    tokenizer-ids.py VOCABS DATA_FOLDER [--nasty 3600]

VOCABS is the folder made by scripts/fetch-tokenizers.sh. Every `*.jsonl` and `*.jsonl.gz` below DATA_FOLDER whose records
have a text is encoded with each vocabulary by both (the library in the version of Cargo.lock, built with onig), and so
is a set of strings made to be difficult (`nasty` in pipeline/examples/tokenizer_peers.rs). Then GPT-2's file is changed
in one piece at a time; each such file has to go to the reference, or (EXACT) give its ids. Prints Markdown tables; exit code 1 on any difference.
"""
import argparse, copy, gzip, json, os, pathlib, subprocess, sys, tempfile

ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
ap.add_argument("vocabs", type=pathlib.Path)
ap.add_argument("data", type=pathlib.Path)
ap.add_argument("--binary", type=pathlib.Path, help="tokenizer_peers, built already")
ap.add_argument("--nasty", type=int, default=3600)
args = ap.parse_args()

root = pathlib.Path(__file__).resolve().parents[2]
if not args.binary:
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "moe-data", "--example", "tokenizer_peers"], cwd=root, check=True)
binary = args.binary or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release/examples/tokenizer_peers"

def has_text(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        return isinstance(json.loads(file.readline()).get("text"), str)

files = sorted(path for path in args.data.rglob("*.jsonl*") if has_text(path))

def compare(vocab, eod, data):
    words = [binary, "ids", "--nasty", str(args.nasty), "--eod", eod, vocab, *data]
    out = subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)

VOCABS = [("GPT-2", "gpt2", "<|endoftext|>"), ("cl100k", "cl100k", "<|endoftext|>"),
          ("Llama-3", "llama3", "<|end_of_text|>"), ("Qwen-3", "qwen3", "<|endoftext|>"),
          ("DeepSeek-V3", "deepseek_v3", "<｜end▁of▁sentence｜>"), ("DeepSeek (PyPI)", "deepseek", "<｜end▁of▁sentence｜>")]
failed = False
print("| vocabulary | engine | documents | difficult strings | MB of text | ids | texts with different ids |")
print("|---|---|---|---|---|---|---|")
for name, file, eod in VOCABS:
    r = compare(args.vocabs / f"{file}.json", eod, files)
    failed |= r["different"] > 0 or r["reason"] is not None
    print(f"| {name} | {r['engine']} | {r['documents']:,} | {r['nasty']:,} | {r['bytes'] / 1e6:.1f} | {r['ids']:,} | {r['different']} |", flush=True)

gpt2 = json.load(open(args.vocabs / "gpt2.json"))
byte_level = lambda **keys: {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True} | keys
def split(pattern, behavior="Isolated", invert=False):
    one = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
    return sequence(one, byte_level(use_regex=False))
sequence = lambda *steps: {"type": "Sequence", "pretokenizers": list(steps)}
cl100k = json.load(open(args.vocabs / "cl100k.json"))["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
added = lambda **keys: gpt2["added_tokens"] + [{"id": 50257, "content": "wonder", "single_word": False, "lstrip": False,
    "rstrip": False, "normalized": False, "special": False} | keys]
ODD = [
    ("an unknown split, look-behind, MergedWithPrevious", "pre_tokenizer", split(r"(?<=\s)\S+", "MergedWithPrevious")),
    ("Split removed and inverted", "pre_tokenizer", split(cl100k, "Removed", True)),
    (r"cl100k with \p{N}{1,2}", "pre_tokenizer", split(cl100k.replace("{1,3}", "{1,2}"))),
    (r"cl100k with possessive quantifiers", "pre_tokenizer", split(cl100k.replace(r"\p{N}{1,3}", r"\p{N}{1,3}+"))),
    ("Digits before ByteLevel", "pre_tokenizer", sequence({"type": "Digits", "individual_digits": True}, byte_level())),
    ("ByteLevel without its regular expression", "pre_tokenizer", byte_level(use_regex=False)),
    ("add_prefix_space", "pre_tokenizer", byte_level(add_prefix_space=True)),
    ("WhitespaceSplit", "pre_tokenizer", sequence({"type": "WhitespaceSplit"}, byte_level(use_regex=False))),
    ("Falcon's steps", "pre_tokenizer", sequence({"type": "Punctuation", "behavior": "Contiguous"}, byte_level(),
        {"type": "Digits", "individual_digits": False},
        {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False})),
    ("NFKC, then lower case", "normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}),
    ("NFD, strip accents, replace", "normalizer", {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"},
        {"type": "Replace", "pattern": {"String": "``"}, "content": "\""}]}),
    ("added token: single word", "added_tokens", added(single_word=True)),
    ("added token: strips to the left", "added_tokens", added(lstrip=True)),
    ("added token: strips to the right", "added_tokens", added(rstrip=True)),
    ("unknown token", "model", gpt2["model"] | {"unk_token": "<|endoftext|>"}),
    ("dropout 0", "model", gpt2["model"] | {"dropout": 0.0}),
    ("byte fallback", "model", gpt2["model"] | {"byte_fallback": True}),
]
# An inverted split by an expression that matches every character is the same as an isolating one.
EXACT = {"Split removed and inverted"}
print("\n| GPT-2's file with | engine | reason | texts with different ids |")
print("|---|---|---|---|")
with tempfile.TemporaryDirectory() as temp:
    for name, key, value in ODD:
        file = copy.copy(gpt2)
        file[key] = value
        path = pathlib.Path(temp) / "odd.json"
        path.write_text(json.dumps(file))
        r = compare(path, "<|endoftext|>", [])
        failed |= r["different"] > 0 or (r["engine"] != "tokenizers" and name not in EXACT)
        reason = (r["reason"] or "nothing").replace("|", "\\|")
        print(f"| {name} | {r['engine']} | {reason if len(reason) < 160 else reason[:157] + '...'} | {r['different']} |", flush=True)
sys.exit(failed)
