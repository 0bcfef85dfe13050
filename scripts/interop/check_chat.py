"""Builds conversations from two tasks and compares tokens and masks of every document with transformers.

    python3 -m venv venv && venv/bin/pip install transformers jinja2 numpy
    venv/bin/python scripts/interop/check_chat.py MOE_DATA DATA

PyTorch is not needed. The shards are read by NumPy alone, as docs/shard-format.md describes them.
"""

import collections
import gzip
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
from transformers import PreTrainedTokenizerFast

RECIPE = """
[[source]]
name = "SOURCE"
paths = ["SOURCE.jsonl"]
chat = "messages"
"""
TOKENIZER = """
[tokenizer]
train = { vocab_size = 2000, special_tokens = ["<|im_start|>", "<|im_end|>"] }
[chat]
template = "chatml"
"""


def tasks(folder):
    """Questions and answers by task."""
    arc = [json.loads(line) for line in gzip.open(folder / "arc_easy.jsonl.gz")]
    sums = [json.loads(line) for line in gzip.open(folder / "gsm8k_test.jsonl.gz")]
    choices = lambda record: "".join(f"\n{'ABCDE'[i]}. {choice}" for i, choice in enumerate(record["choices"]))
    answer = lambda record: f"{'ABCDE'[record['gold']]}. {record['choices'][record['gold']]}"
    return {
        "arc": [(record["query"] + choices(record), answer(record)) for record in arc],
        "gsm8k": [(record["question"], record["answer"]) for record in sums],
    }


def documents(shards, name):
    """Tokens and mask of every document of a shard of version 4, the end of document included."""
    index = (shards / f"{name}.mdx").read_bytes()
    assert struct.unpack_from("<I", index, 8)[0] == 4, "the shard has no mask"
    n_docs, n_tokens = struct.unpack_from("<QQ", index, 16)
    sections = [struct.unpack_from("<QQQ", index, 144 + 24 * i) for i in range(7)]
    ends = np.frombuffer(index, "<u8", n_docs, sections[0][0]).astype(int)
    mask = np.frombuffer(index, "u1", sections[6][1], sections[6][0])
    mask = np.unpackbits(mask, bitorder="little")[:n_tokens]
    tokens = np.fromfile(shards / f"{name}.bin", "<u2")
    starts = [0, *ends[:-1]]
    return [(tuple(tokens[a:b].tolist()), tuple(mask[a:b].tolist())) for a, b in zip(starts, ends)]


def main():
    program, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        records = tasks(folder)
        for name, pairs in records.items():
            talks = ([{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs)
            lines = [json.dumps({"messages": talk}) + "\n" for talk in talks]
            (work / f"{name}.jsonl").write_text("".join(lines))
        recipe = "".join(RECIPE.replace("SOURCE", name) for name in records) + TOKENIZER
        (work / "recipe.toml").write_text(recipe)
        subprocess.run([program, "-q", "build", "--recipe", work / "recipe.toml", "--out", work / "out"], check=True)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(work / "out/tokenizer.json"))
        template = (work / "out/chat_template.jinja").read_text()
        eod = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        failed = False
        for name, pairs in records.items():
            expected = collections.Counter()
            for question, answer in pairs:
                talk = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                both = tokenizer.apply_chat_template(
                    talk, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
                )
                expected[(*both["input_ids"], eod), (*both["assistant_masks"], 0)] += 1
            found = collections.Counter(documents(work / "out/shards", f"{name}-v0-00000"))
            equal = sum((found & expected).values())
            print(f"{name}: {len(pairs)} conversations, {equal} documents with the tokens and the mask of transformers")
            failed |= equal != len(pairs)
    sys.exit(failed)


main()
