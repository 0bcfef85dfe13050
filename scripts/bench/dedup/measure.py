#!/usr/bin/env python3
"""Runs a command and prints one JSON line: seconds of wall and CPU time, exit code, and the peak memory of all
its processes together (sum of their proportional set sizes, sampled ten times a second; shared pages count once).
CPU time is that of all descendants as last sampled; unlike wall time it hardly depends on what else the machine does.

    measure.py [--label NAME] -- COMMAND...
"""
import json, os, pathlib, resource, subprocess, sys, threading, time


def tree(root):
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def memory(pid):
    try:
        for line in open(f"/proc/{pid}/smaps_rollup"):
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    try:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    except OSError:
        return 0.0


def main():
    args = sys.argv[1:]
    label = None
    if args[:1] == ["--label"]:
        label, args = args[1], args[2:]
    command = args[1:] if args[:1] == ["--"] else args
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    peak, seconds, done = 0, {}, threading.Event()

    def sample():
        nonlocal peak
        while not done.wait(0.1):
            pids = tree(process.pid)
            peak = max(peak, sum(memory(pid) for pid in pids))
            for pid in pids:
                seconds[pid] = max(seconds.get(pid, 0.0), cpu(pid))
    sampler = threading.Thread(target=sample)
    sampler.start()
    code = process.wait()
    wall = time.monotonic() - start
    done.set(); sampler.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A run shorter than a sample is measured by the kernel, for its largest process.
    peak = max(peak, used.ru_maxrss * 1024)
    print(json.dumps({"label": label, "command": command, "wall_s": round(wall, 2), "exit": code,
                      "cpu_s": round(max(used.ru_utime + used.ru_stime, sum(seconds.values())), 2), "peak_mb": round(peak / 1e6, 1)}))
    sys.exit(code)


if __name__ == "__main__":
    main()
