#!/usr/bin/env python3
"""What one `cargo test` compiles again although another one has compiled the same crate, and whether features or the profile are the reason.

    scripts/bench/compiled-twice.py                  the tests on GPUs, after `cargo test --workspace`
    scripts/bench/compiled-twice.py ARGUMENTS...     cargo test ARGUMENTS after that

Prints the crates that differ themselves, with the features that they have more (+) or less (-), and counts those that are compiled again because
these are. Nothing is compiled. Cargo's graph of units is an unstable option, for which RUSTC_BOOTSTRAP is set.
"""
import functools
import json
import os
import subprocess
import sys

GPU = ["--workspace", "--features", "moe-train/wgpu,moe-train/cuda", "--test", "main", "--test", "it"]


class Graph:
    """The units that a command compiles: crates with features, profile and what they depend on."""

    def __init__(self, arguments):
        command = ["cargo", "test", "--unit-graph", "-Zunstable-options", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, RUSTC_BOOTSTRAP="1"), check=True)
        self.units = json.loads(done.stdout)["units"]
        self.whole = functools.cache(self.whole)

    def name(self, i):
        unit = self.units[i]
        return unit["pkg_id"].split("/")[-1], unit["target"]["name"], unit["target"]["kind"][0], unit["mode"], unit["platform"]

    def own(self, i):
        return tuple(self.units[i]["features"]), json.dumps(self.units[i]["profile"], sort_keys=True)

    def whole(self, i):
        return self.name(i), self.own(i), tuple(sorted(map(hash, (self.whole(d["index"]) for d in self.units[i]["dependencies"]))))


def main():
    before, after = Graph(["--workspace"]), Graph(sys.argv[1:] or GPU)
    compiled = {before.whole(i) for i in range(len(before.units))}
    variants = {}
    for i in range(len(before.units)):
        variants.setdefault(before.name(i), []).append(before.own(i))
    again = [i for i in range(len(after.units)) if after.whole(i) not in compiled and after.name(i) in variants]
    causes = [i for i in again if after.own(i) not in variants[after.name(i)]]
    print(f"{len(after.units)} units, {len(again)} of them compiled again: {len(causes)} that differ, and what depends on them")
    for i in sorted(causes, key=after.name):
        features, profile = after.own(i)
        package, _, kind, _, _ = after.name(i)
        for other, other_profile in variants[after.name(i)]:
            changes = ["-" + f for f in other if f not in features] + ["+" + f for f in features if f not in other]
            if profile != other_profile:
                changes.append("(another profile, as for build scripts)")
            print(f"{package.split('#')[-1]}, {kind}: {' '.join(changes)}")


sys.setrecursionlimit(10_000)
main()
