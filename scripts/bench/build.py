#!/usr/bin/env python3
"""From JSON lines to shards on the disk: seconds, MB/s and peak memory of whole builds.

    build.py VOCABS FILE.jsonl... [--repeat N] [--threads 1,2] [--runs 3]

VOCABS is the folder made by scripts/fetch-tokenizers.sh. Builds `moe-data` in release mode (CARGO_TARGET_DIR is obeyed),
writes recipes and outputs into a temporary folder next to the first file, and prints a Markdown table. `--repeat N` adds
N - 1 copies of every file in which each id and text is preceded by the number of the copy, so that no two documents are
equal. Times are wall
clock of the whole command, with loading the vocabulary and flushing to the disk. The input has been read once before,
so it comes from the page cache. Memory is the peak resident set of the process.
"""
import argparse, os, pathlib, re, shutil, statistics, subprocess, tempfile, time

ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
ap.add_argument("vocabs", type=pathlib.Path)
ap.add_argument("files", nargs="+", type=pathlib.Path)
ap.add_argument("--binary", type=pathlib.Path, help="moe-data, built already")
ap.add_argument("--repeat", type=int, default=1)
ap.add_argument("--threads", default="1,2")
ap.add_argument("--runs", type=int, default=3)
ap.add_argument("--recipes", default="none,exact,length,gopher", help="of: none,exact,length,gopher")
args = ap.parse_args()

root = pathlib.Path(__file__).resolve().parents[2]
if not args.binary:
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "moe-data"], cwd=root, check=True)
binary = args.binary or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target")).resolve() / "release/moe-data"
base = args.files[0].resolve().parent
temp = tempfile.TemporaryDirectory(dir=base.parent)
folder = pathlib.Path(temp.name)
names = []
for n in range(args.repeat):
    for i, file in enumerate(args.files):
        link = folder / f"in-{n:03}-{i:03}{file.suffix}"
        if n == 0:
            os.symlink(file.resolve(), link)
        else:
            number = str(n).encode()
            with open(file, "rb") as old, open(link, "wb") as new:
                for line in old:
                    line = line.replace(b'"id": "', b'"id": "' + number + b"/", 1)
                    new.write(line.replace(b'"text": "', b'"text": "' + number + b" ", 1))
        names.append(link)
n_bytes = sum(os.path.getsize(name) for name in names)
for name in names:
    name.read_bytes()

head = '[[source]]\nname = "web"\npaths = ["in-*"]\nid = "id"\n'
tail = f'[tokenizer]\nfile = "{args.vocabs.resolve()}/llama3.json"\neod = "<|end_of_text|>"\n'
length, gopher = '[[filter]]\nname = "length"\n', '[[filter]]\nname = "gopher_quality"\n'
exact = "[dedup]\nexact = true\n"
RECIPES = {
    "none": ("no filter, no deduplication", "[dedup]\nexact = false\n"),
    "exact": ("exact deduplication", exact),
    "length": ("length, exact deduplication", length + exact),
    "gopher": ("length, Gopher quality, exact deduplication", length + gopher + exact),
}

def run(recipe, threads):
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    (folder / "recipe.toml").write_text(head + RECIPES[recipe][1] + tail)
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen([binary, "build", "--recipe", folder / "recipe.toml", "--out", out, "--threads", str(threads)],
                               stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        raise SystemExit(said)
    stages = dict(re.findall(r"^(\w+) .* ([0-9.]+) s$", said, re.M))
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, stages

print(f"{len(names)} files, {n_bytes / 1e6:.1f} MB of JSON lines, Llama-3 vocabulary.\n")
print("| recipe | threads | wall s | MB/s | MB/s a thread | CPU s | peak MB | stages, s |")
print("|---|---|---|---|---|---|---|---|")
for recipe in args.recipes.split(","):
    for threads in map(int, args.threads.split(",")):
        results = sorted(run(recipe, threads) for _ in range(args.runs))
        seconds, memory, cpu, stages = results[len(results) // 2]
        rate = n_bytes / seconds / 1e6
        parts = ", ".join(f"{name} {value}" for name, value in stages.items())
        print(f"| {RECIPES[recipe][0]} | {threads} | {seconds:.2f} | {rate:.0f} | {rate / threads:.0f} | {cpu:.2f} | {memory:.0f} | {parts} |", flush=True)
