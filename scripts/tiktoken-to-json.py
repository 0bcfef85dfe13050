#!/usr/bin/env python3
"""Writes OpenAI's cl100k ranks as a Hugging Face tokenizer.json.

    tiktoken-to-json.py cl100k_base.tiktoken > cl100k.json

A rank file holds tokens only; tiktoken merges any two neighbours whose concatenation is a token, the lowest rank
first, and takes a piece that is a token as a whole. So every cut of a token into two tokens becomes a merge, in the
order of the ranks, and `ignore_merges` is set. The regular expression is tiktoken's, without the possessive
quantifiers, which match the same; special tokens and their ids are those of tiktoken's `openai_public.py`.
"""
import base64, json, sys

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259,
           "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276}

# The printable stand-ins for bytes of GPT-2's byte-level vocabularies.
printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
others = [b for b in range(256) if b not in printable]
char = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
text = lambda token: "".join(char[b] for b in token)

ranks = {}
with open(sys.argv[1], "rb") as file:
    for line in file:
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)

merges = []
for token, rank in sorted(ranks.items(), key=lambda entry: entry[1]):
    cuts = [(token[:i], token[i:]) for i in range(1, len(token))]
    cuts = [(a, b) for a, b in cuts if a in ranks and b in ranks]
    merges += [[text(a), text(b)] for a, b in sorted(cuts, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))]

byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
json.dump({
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True} for name, id in SPECIAL.items()],
    "normalizer": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}, byte_level]},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
              "vocab": {text(token): rank for token, rank in ranks.items()} | SPECIAL, "merges": merges},
}, sys.stdout, ensure_ascii=False)
print()
