"""What NVIDIA's assembler makes of kernels, without a GPU: registers, spilled bytes, blocks on a multiprocessor.

    registers.py PTXAS FOLDER TRACE [NAME ...]

FOLDER holds modules and TRACE launches as the driver of tests/cuda leaves them (CUDA_EMULATOR_PTX, CUDA_EMULATOR_TRACE);
NAME begins the names of the kernels to show. Limits of an H100: 65,536 registers (given out by 8 for a thread), 2,048 threads,
32 blocks and 228 KiB of shared memory (1 KiB of it for each block) on a multiprocessor.
"""
import pathlib
import re
import subprocess
import sys

ptxas, folder, trace, *names = sys.argv[1:]
launches = {}
for line in open(trace):
    name, _, threads, shared, *_ = line.split()
    count = 1
    for extent in threads.split(","):
        count *= int(extent)
    launches[name] = (count, int(shared))

rows = []
for path in sorted(pathlib.Path(folder).glob("*.ptx")):
    target = re.search(r"^\.target (\w+)", path.read_text(), re.M).group(1)
    command = [ptxas, "-v", f"-arch={target}", str(path), "-o", "/dev/null"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    text = found.stderr + found.stdout
    for part in text.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        if name not in launches or (names and not any(name.startswith(start) for start in names)):
            continue
        registers = int(re.search(r"Used (\d+) registers", part).group(1))
        spilled = int(re.search(r"(\d+) bytes spill stores", part).group(1))
        threads, shared = launches[name]
        # Warps get registers by 256.
        warps = -(-threads // 32)
        by_registers = 65536 // (warps * -(-registers * 32 // 256) * 256)
        by_shared = 228 * 1024 // (shared + 1024)
        blocks = min(by_registers, by_shared, 2048 // threads, 32)
        rows.append((re.sub(r"_[0-9a-f]{6,8}$", "", name), threads, registers, spilled, shared, blocks, blocks * warps / 64))

print("| kernel | threads | registers | spilled bytes | shared bytes | blocks on a multiprocessor | warps of 64 |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for name, threads, registers, spilled, shared, blocks, share in sorted(set(rows)):
    print(f"| `{name}` | {threads} | {registers} | {spilled} | {shared} | {blocks} | {100 * share:.0f} % |")
