"""See cpu-torch.sh: runs both programs alternately on the same geometries, and compares them."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("work", type=pathlib.Path)
parser.add_argument("moe_train")
parser.add_argument("--quick", action="store_true", help="few steps, one round")
parser.add_argument("--only", action="append", help="a geometry; may be repeated")
parser.add_argument("--threads", help="numbers of threads [default: 1 and all cores]")
parser.add_argument("--rounds", type=int, help="how often each is measured, in turn; the best counts")
parser.add_argument("--without-torch", action="store_true", help="moe-train alone")
args = parser.parse_args()

VOCAB = 4096


def config(layers, width, heads, kv_heads, batch, dense=None, experts=None, n_dense=0, shared=0):
    """The text of a configuration: dense is the width of dense feed-forwards, experts their number and width."""
    n_dense = n_dense if experts else layers
    text = f"[data]\nbatch = {batch}\n[model]\nd_model = {width}\nlayers = {layers}\ndense_layers = {n_dense}\n"
    text += f"dense_ffn = {dense or width}\n[attention]\nheads = {heads}\nkv_heads = {kv_heads}\n"
    if experts:
        text += f"[moe]\nexperts = {experts[0]}\ntop_k = 2\nshared = {shared}\nexpert_ffn = {experts[1]}\n"
        text += "[moe.balance]\nbias_rate = 0.01\nsequence = 1e-3\nz = 1e-4\n"
    return text


# Name: configuration, tokens per sample, steps. Dense models have as many active feed-forward weights as the sparse ones.
GEOMETRIES = {
    "tiny": (config(3, 128, 4, 2, 8, 384, (8, 128), n_dense=1, shared=1), 256, 40),
    "tiny-dense": (config(3, 128, 4, 2, 8, 384), 256, 40),
    "char-moe": (config(4, 128, 4, 4, 12, experts=(8, 172)), 64, 80),
    "char": (config(4, 128, 4, 4, 12, 341), 64, 80),
    "wide": (config(6, 384, 6, 2, 8, experts=(16, 384)), 512, 6),
    "wide-dense": (config(6, 384, 6, 2, 8, 768), 512, 6),
}


def measured(command, threads):
    """What a program prints as JSON, with the peak of its memory in MB."""
    env = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{err[-2000:]}")
    return json.loads(out)


def ours(path, seq, steps, threads):
    # A shell that reports how much memory its only child used.
    script = (
        "import json, resource, subprocess, sys\n"
        "out = json.loads(subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE).stdout)\n"
        "out['peak_mb'] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3\n"
        "print(json.dumps(out))\n"
    )
    command = [sys.executable, "-c", script, args.moe_train, "--quiet", "bench", "--only-steps", "--config", path]
    command += ["--seq-len", str(seq), "--vocab", str(VOCAB), "--steps", str(steps), "--device", "cpu"]
    return measured(command, threads)


def torch(path, seq, steps, threads, is_compiled):
    script = pathlib.Path(__file__).resolve().parents[1] / "gpu" / "torch_moe.py"
    command = [sys.executable, script, "--cpu", "--config", path, "--seq-len", str(seq), "--vocab", str(VOCAB)]
    command += ["--steps", str(steps), "--threads", str(threads)] + (["--compile"] if is_compiled else [])
    return measured(command, threads)


def main():
    cores = len(os.sched_getaffinity(0))
    numbers = [int(n) for n in args.threads.split(",")] if args.threads else sorted({1, cores})
    rounds = args.rounds or (1 if args.quick else 3)
    print("| geometry | threads | | tokens/s | CPU ms a step | peak MB | moe-train is |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    behind = []
    for name, (text, seq, steps) in GEOMETRIES.items():
        if args.only and name not in args.only:
            continue
        path = args.work / f"{name}.toml"
        path.write_text(text)
        steps = max(3, steps // 4) if args.quick else steps
        for threads in numbers:
            runs = {"moe-train": lambda: ours(path, seq, steps, threads)}
            if not args.without_torch:
                runs["eager"] = lambda: torch(path, seq, steps, threads, False)
                runs["compiled"] = lambda: torch(path, seq, steps, threads, True)
            best = {}
            for _ in range(rounds):
                for who, run in runs.items():
                    found = run()
                    if who not in best or found["tokens_per_second"] > best[who]["tokens_per_second"]:
                        best[who] = found
            own = best["moe-train"]
            for who, found in best.items():
                ratio = own["tokens_per_second"] / found["tokens_per_second"]
                print(
                    f"| {name} | {threads} | {who} | {found['tokens_per_second']:,.0f} | {found['cpu_ms']:,.0f} | "
                    f"{found['peak_mb']:,.0f} | {'' if who == 'moe-train' else f'{ratio:.2f} x'} |",
                    flush=True,
                )
                if ratio < 1 or own["peak_mb"] > found["peak_mb"]:
                    behind.append(f"{name}, {threads} threads, {who}: {ratio:.2f} x")
    if behind:
        sys.exit("PyTorch is faster or smaller:\n" + "\n".join(behind))


main()
