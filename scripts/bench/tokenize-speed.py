#!/usr/bin/env python3
"""Tokenization side by side: moe-data's encoder, tokenizers' encode_batch_fast, Python tiktoken, gigatoken.

    tokenize-speed.py VOCABS NAME=FILE[,FILE...] NAME=FILE...

VOCABS is the folder made by scripts/fetch-tokenizers.sh; each NAME is a corpus of JSON lines (plain or gzip, field
`text`). Builds the example `tokenizer_peers` of the pipeline in release mode (CARGO_TARGET_DIR is obeyed) and installs
the Python peers with pip into a virtual environment in a temporary folder.

Every run is a process of its own, so that its first pass is cold; texts are in memory before the clock starts, ids are
made and dropped. Prints, as Markdown, the median of the first passes in MB/s (10^6 bytes of text) at 1 and 2 threads,
and ours over encode_batch_fast. `--runs N` is the number of processes of the fast engines (default 5); engines below
20 MB/s run once for the corpora above 50 MB and three times for the others.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile, venv

ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
ap.add_argument("vocabs", type=pathlib.Path)
ap.add_argument("corpora", nargs="+", help="NAME=FILE,FILE")
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--passes", type=int, default=3, help="passes in a process of the fast engines; all but the first are warm")
ap.add_argument("--binary", type=pathlib.Path, help="tokenizer_peers, built already")
ap.add_argument("--python", help="a Python that has the peers already")
args = ap.parse_args()

root = pathlib.Path(__file__).resolve().parents[2]
if not args.binary:
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "moe-data", "--example", "tokenizer_peers"], cwd=root, check=True)
binary = args.binary or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release/examples/tokenizer_peers"
temp = tempfile.TemporaryDirectory()
python = args.python
if not python:
    venv.create(temp.name, with_pip=True)
    python = f"{temp.name}/bin/python"
    packages = ["tiktoken==0.14.0", "gigatoken==0.10.0", "awkward", "numpy"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
peers = pathlib.Path(__file__).with_name("tokenize-peers.py")

VOCABS = {"Llama-3": ("llama3.json", "<|end_of_text|>"), "cl100k": ("cl100k.json", "<|endoftext|>")}
ENGINES = ["moe-data", "encode_batch_fast", "tiktoken (Python)", "gigatoken"]

def command(engine, vocab, threads, passes, files):
    file, eod = VOCABS[vocab]
    if engine in ("moe-data", "encode_batch_fast"):
        name = "ours" if engine == "moe-data" else "tokenizers"
        return [binary, "speed", "--engine", name, "--threads", str(threads), "--passes", str(passes), "--eod", eod,
                args.vocabs / file, *files]
    name = "gigatoken" if engine == "gigatoken" else "tiktoken"
    file = file if name == "gigatoken" else "cl100k_base.tiktoken"
    return [python, peers, name, str(threads), str(passes), args.vocabs / file, *files]

def measure(engine, vocab, threads, files, size):
    slow = engine in ("encode_batch_fast", "tiktoken (Python)")
    runs = (1 if size > 50e6 else 3) if slow else args.runs
    env = os.environ | {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    results = []
    for _ in range(runs):
        words = [str(word) for word in command(engine, vocab, threads, 1 if slow else args.passes, files)]
        out = subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
        results.append(json.loads(out))
    speed = lambda r, i: r["bytes"] / r["pass_secs"][i] / 1e6
    cold = statistics.median(speed(r, 0) for r in results)
    warm = None if slow else statistics.median(speed(r, -1) for r in results)
    return cold, warm, runs, {r["tokens"] for r in results}, results[0]["bytes"]

model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
print(f"Machine: {os.cpu_count()} cores of {model}.\n")
for corpus in args.corpora:
    name, files = corpus.split("=", 1)
    files = files.split(",")
    size = sum(os.path.getsize(f) for f in files)
    for vocab in VOCABS:
        rows, tokens, n_bytes = [], {}, 0
        for engine in ENGINES:
            if engine.startswith("tiktoken") and vocab != "cl100k":
                continue
            one, two = (measure(engine, vocab, threads, files, size) for threads in (1, 2))
            tokens[engine], n_bytes = one[3] | two[3], one[4]
            rows.append((engine, one, two))
        base = next(row for row in rows if row[0] == "encode_batch_fast")
        print(f"**{name}**, {vocab}: {n_bytes / 1e6:.1f} MB of text\n")
        print("| engine | cold, 1 thread | cold, 2 threads | warm, 1 / 2 threads | over encode_batch_fast, cold 1 / 2 | processes | tokens |")
        print("|---|---|---|---|---|---|---|")
        for engine, one, two in rows:
            warm = f"{one[1]:.0f} / {two[1]:.0f}" if one[1] else "not run"
            number = lambda x: f"{x:.0f}" if x >= 20 else f"{x:.1f}"
            print(f"| {engine} | {number(one[0])} | {number(two[0])} | {warm} | {one[0] / base[1][0]:.1f} / {two[0] / base[2][0]:.1f} "
                  f"| {one[2]} | {', '.join(f'{n:,}' for n in sorted(tokens[engine]))} |")
        print(flush=True)
