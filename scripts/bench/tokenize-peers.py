#!/usr/bin/env python3
"""Times tiktoken or gigatoken over JSON lines held in memory; prints one JSON object.

    tokenize-peers.py tiktoken|gigatoken THREADS PASSES VOCAB DATA...

VOCAB is a tokenizer.json, for tiktoken a `.tiktoken` rank file of cl100k.
"""
import base64, gzip, json, sys, time

engine, threads, passes, vocab, data = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]
texts = []
for path in data:
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        texts += [json.loads(line)["text"] for line in file]
n_bytes = sum(len(text.encode()) for text in texts)

start = time.perf_counter()
if engine == "tiktoken":
    import tiktoken
    with open(vocab, "rb") as file:
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file)}
    pattern = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
               r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
    encoding = tiktoken.Encoding("cl100k", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    run = lambda: sum(map(len, encoding.encode_ordinary_batch(texts, num_threads=threads)))
else:
    import gigatoken
    with open(vocab, "rb") as file:
        tokenizer = gigatoken.Tokenizer.from_json(file.read())
    inputs = [text.encode() for text in texts]
    # Its pool takes RAYON_NUM_THREADS, which the caller sets. The result is one flat array with offsets.
    import awkward
    run = lambda: int(awkward.count(tokenizer.encode_batch(inputs, parallel=threads > 1)))
load_secs = time.perf_counter() - start
seconds = []
for _ in range(passes):
    start = time.perf_counter()
    n_tokens = run()
    seconds.append(time.perf_counter() - start)
print(json.dumps({"bytes": n_bytes, "tokens": n_tokens, "load_secs": load_secs, "pass_secs": seconds}))
