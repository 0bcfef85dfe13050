#!/usr/bin/env python3
"""Seconds of CPU time, in user mode, of the programs as different profiles compile them, in turns, since machines get slower and faster:

    programs.py --data DIR [--rounds N] [--only NAME,...] BEFORE AFTER...

BEFORE and AFTER are folders with `moe-data` and `moe-train`; DIR has *.jsonl.gz files with the keys `id` and `text`, and *.warc.gz files. A round runs
every program once. Prints the median and the least of all rounds, and how much more or less that is than with BEFORE.

    rules     reads JSON Lines, and applies rules and all kinds of deduplication
    tokens    reads JSON Lines, and writes tokens, three times
    pages     extracts the text of web pages, three times
    parquet   reads Parquet, and writes tokens, three times
    export    writes Parquet, three times
    train     steps of the preset tiny with 256 tokens
"""
import argparse, os, pathlib, resource, shutil, statistics, subprocess, sys, tempfile

commands = {
    "rules": (1, ["moe-data", "build", "--recipe", "rules.toml", "--out", "out", "--text-only", "-q"]),
    "tokens": (3, ["moe-data", "build", "--recipe", "tokens.toml", "--out", "out", "-q"]),
    "pages": (3, ["moe-data", "build", "--recipe", "pages.toml", "--out", "out", "-q"]),
    "parquet": (3, ["moe-data", "build", "--recipe", "parquet.toml", "--out", "out", "-q"]),
    "export": (3, ["moe-data", "export", "--out", "first", "--parquet", "out", "-q"]),
    "train": (1, ["moe-train", "bench", "--preset", "tiny", "--seq-len", "256", "--only-steps"]),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=pathlib.Path, required=True)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--only", default=",".join(commands))
parser.add_argument("programs", type=pathlib.Path, nargs="+")
args = parser.parse_args()
names = args.only.split(",")
if unknown := set(names) - set(commands):
    parser.error(f"--only: no workload is called {', '.join(sorted(unknown))}")
programs = [folder.resolve() for folder in args.programs]
data = args.data.resolve()


def recipe(paths, rest, tokenizer=True):
    source = f'[[source]]\nname = "all"\npaths = ["{paths}"]\n' + ("" if paths.endswith(".warc.gz") else 'id = "id"\n')
    return source + rest + ('[tokenizer]\nfile = "first/tokenizer.json"\n' if tokenizer else "")


rule_names = ["length", "language", "gopher_quality", "gopher_repetition", "fineweb_quality", "c4_quality"]
rules = "".join(f'[[filter]]\nname = "{name}"\n' for name in rule_names)
dedup = "[dedup]\nexact = true\n[dedup.minhash]\nmax_source_removed = 1.0\n[dedup.paragraph]\n[dedup.substring]\n"
length = '[[filter]]\nname = "length"\n'
recipes = {
    "first": recipe(f"{data}/*.jsonl.gz", length + "[tokenizer]\ntrain = { vocab_size = 8000 }\n", tokenizer=False),
    "rules": recipe(f"{data}/*.jsonl.gz", rules + dedup + "[limits]\nslice_bytes = \"4MB\"\n"),
    "tokens": recipe(f"{data}/*.jsonl.gz", length),
    "pages": recipe(f"{data}/*.warc.gz", length),
    "parquet": recipe("text/*.parquet", length),
}


def run(folder, command):
    done = subprocess.run([folder / command[0], *command[1:]], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{folder}: {' '.join(command)}: exit code {done.returncode}\n{done.stderr}")


def seconds(folder, name):
    repeats, command = commands[name]
    spent = 0
    for _ in range(repeats):
        shutil.rmtree("out", ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        run(folder, command)
        spent += resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return spent


with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    for name, text in recipes.items():
        pathlib.Path(f"{name}.toml").write_text(text)
    run(programs[0], ["moe-data", "build", "--recipe", "first.toml", "--out", "first", "-q"])
    run(programs[0], ["moe-data", "export", "--out", "first", "--parquet", "text", "-q"])
    print("| | " + " | ".join(str(folder) for folder in args.programs) + " |\n| --- |" + " ---: |" * len(programs))
    for name in names:
        spent = [[] for _ in programs]
        for number in range(args.rounds):
            order = range(len(programs))
            for i in order if number % 2 == 0 else reversed(order):
                spent[i].append(seconds(programs[i], name))
        cells = []
        for times in spent:
            median, least = statistics.median(times), min(times)
            more = [median / statistics.median(spent[0]) - 1, least / min(spent[0]) - 1]
            cells.append(f"{median:.2f}, {least:.2f}" + (f" ({more[0]:+.0%}, {more[1]:+.0%})" if times is not spent[0] else ""))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
