"""The table of scripts/gpu-check.sh from the files that it left: python3 table.py OUT"""

import json
import pathlib
import re
import sys

out = pathlib.Path(sys.argv[1])


def text(name):
    path = out / name
    return path.read_text() if path.exists() else ""


def json_of(name):
    """The JSON object that a log ends with, or None."""
    log = text(name)
    start = log.rfind("\n{\n") + 1 if "\n{\n" in log else log.rfind('{"')
    try:
        return json.loads(log[start:].strip()) if start >= 0 and "{" in log else None
    except json.JSONDecodeError:
        return None


machine = text("machine.txt").strip().splitlines()
print(f"`scripts/gpu-check.sh` on {' | '.join(machine) or 'an unknown machine'}\n")
print("## Correctness\n")
for log in sorted(out.glob("*-against-cpu.log")):
    if log.read_text().strip():
        print(f"- {log.stem}: {log.read_text().strip().splitlines()[-1]}")
tests = re.findall(r"test result: .*", text("kernel-tests.log"))
if tests:
    print(f"- kernels compared with their plain forms: {tests[-1]}")
if text("resume.txt"):
    print(f"- {text('resume.txt').strip()}")
used = [int(line) for line in text("memory.txt").split() if line.isdigit()]
if len(used) > 2:
    print(f"- memory over 1,000 steps of `smoke`: {used[1]} MiB early, {used[-1]} MiB at the end, {max(used)} MiB at most")

print("\n## Speed\n")
presets = sorted(path.stem.removeprefix("bench-") for path in out.glob("bench-*.log") if "bench-plain-" not in path.name)
for preset in presets:
    ours, torch = json_of(f"bench-{preset}.log"), json_of(f"torch-{preset}.log")
    if not ours:
        print(f"### {preset}: no result, see bench-{preset}.log\n")
        continue
    limits = ours["roofline"]
    print(f"### {preset}\n")
    print(f"Copy {limits['copy_gb_per_s']:.0f} GB/s; dense {ours['compute']} product of {limits['matmul_rows']} rows {limits['matmul_tflops']:.0f} TFLOP/s, measured in the same call.\n")
    print("| part | forward ms | backward ms | TFLOP/s | of the dense product | GB/s | of the copy | ms a step |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for part in ours["parts"]:
        rate = "" if part["tflops"] is None else f"{part['tflops']:.1f}"
        share = "" if part["share_of_matmul"] is None else f"{100 * part['share_of_matmul']:.0f} %"
        print(f"| {part['name']} | {part['forward_ms']:.2f} | {part['backward_ms']:.2f} | {rate} | {share} | {part['gb_per_s']:.0f} | {100 * part['share_of_copy']:.0f} % | {part['step_ms']:.1f} |")
    print(f"| all else | | | | | | | {ours['other_ms']:.1f} |\n")
    steps = ours["steps"]
    print("| | tokens/s | step ms | model TFLOP/s | MFU |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| moe-train | {steps['tokens_per_second']:.0f} | {steps['ms']:.0f} | {ours['model_tflops']:.1f} | {100 * ours['mfu']:.1f} % of {ours['peak_tflops']:.0f} |")
    plain = json_of(f"bench-plain-{preset}.log")
    if plain:
        print(f"| moe-train without tensor cores in our kernels | {plain['steps']['tokens_per_second']:.0f} | {plain['steps']['ms']:.0f} | {plain['model_tflops']:.1f} | {100 * plain['model_tflops'] / ours['peak_tflops']:.1f} % |")
    compiled = json_of("torch-compiled.log") if preset == "mini-1b" else None
    for label, other in (("PyTorch", torch), ("PyTorch, compiled", compiled)):
        if other:
            rate = ours["flops_per_token"] * other["tokens_per_second"] / 1e12
            print(f"| {label} {other['torch']} | {other['tokens_per_second']:.0f} | {other['step_ms']:.0f} | {rate:.1f} | {100 * rate / ours['peak_tflops']:.1f} % |")
    memory = steps["memory"]
    print(f"\nWaits for the device in a step: {steps['reads']}, after {steps['host_ms'] or 0:.0f} ms in which the host gives out work. Memory: {ours['planned_memory'] / 2**30:.1f} GiB planned"
          + (f", {memory[1] / 2**30:.1f} GiB reserved" if memory else "") + ".\n")
